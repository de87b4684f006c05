"""``visavis query match | explain | audience | info``: questions to a gateway, from the shell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from visavis.cli.options import AsJson
from visavis.cli.output import cell, print_json, print_pairs
from visavis.errors import InputError
from visavis.terminal import add_row, new_console, new_table, plain

if TYPE_CHECKING:
    from rich.console import Console

    from visavis.client import Client, CustomerMatches, Explanation, RequestContext

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Ask a gateway: see `visavis serve`.")

#: Where the token is, if no file is named: an argument would stand in the list of processes.
_TOKEN_VARIABLE: Final = "VISAVIS_TOKEN"  # noqa: S105 (a name, and no token)

#: Contributions listed in an explanation: those of the largest magnitude.
_SHOWN_CONTRIBUTIONS: Final = 8

#: Fields of a request, as they are called here.
_OPTIONS: Final = {
    "context.as_of": "--as-of",
    "context.policy_overrides.k": "-k",
    "context.policy_overrides.ev_min": "--ev-min",
    "context.available_channels.names": "--channel",
    "reason_count": "--reasons",
    "audience_count": "-k",
    "customer_id": "CUSTOMER",
    "capability_id": "CAPABILITY",
    "timeout_s": "--timeout",
    "target": "--address",
    "token": "--token-file",
    "certificates": "--tls-ca, --tls-cert, --tls-key",
}

Address = Annotated[str, typer.Option(help="host:port of the gateway.")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"Holds the bearer token; default: ${_TOKEN_VARIABLE}."),
]
Tls = Annotated[bool, typer.Option("--tls", help="Use TLS, and trust whom this machine trusts.")]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", help="PEM file: who signed the gateway's certificate.")
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM file: a certificate of your own.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM file: its key.")]
Timeout = Annotated[float, typer.Option(help="Seconds until an answer must be there.")]
CustomerId = Annotated[str, typer.Argument(help="The customer's id.")]
CapabilityId = Annotated[str, typer.Argument(help="The capability's id.")]
AsOfNow = Annotated[str | None, typer.Option("--as-of", help="UTC date; default: the server's.")]
Channels = Annotated[
    list[str] | None,
    typer.Option("--channel", help="Reachable now; may be given many times. Default: all."),
]
EvMin = Annotated[
    float | None, typer.Option("--ev-min", help="Least expected value, above the policy's.")
]

_HERE: Final = "127.0.0.1:8420"


class _Asked(NamedTuple):
    """A client, and what must stand wherever its answers are shown."""

    client: Client
    notice: str | None


@app.command()
def match(
    customer: CustomerId,
    address: Address = _HERE,
    token_file: TokenFile = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    timeout: Timeout = 10.0,
    k: Annotated[int | None, typer.Option("-k", help="At most so many.")] = None,
    ev_min: EvMin = None,
    channel: Channels = None,
    as_of: AsOfNow = None,
    reasons: Annotated[int, typer.Option(help="At most so many reasons each.")] = 3,
    distinctive: Annotated[
        bool, typer.Option("--distinctive", help="Reasons for this, rather than for anything.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The opportunities of one customer, now."""
    with _asking(address, token_file, tls, tls_ca, tls_cert, tls_key, timeout) as asked:
        found = asked.client.match(
            customer,
            context=_context(as_of, channel, k=k, ev_min=ev_min),
            reasons=reasons,
            distinctive=distinctive,
        )
    if as_json:
        print_json({**asdict(found), "notice": asked.notice})
        return
    _show_matches(found, new_console())
    _show_end(found.version, asked.notice)


@app.command()
def explain(
    customer: CustomerId,
    capability: CapabilityId,
    address: Address = _HERE,
    token_file: TokenFile = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    timeout: Timeout = 10.0,
    channel: Channels = None,
    as_of: AsOfNow = None,
    as_json: AsJson = False,
) -> None:
    """Why one customer has, or has not, one opportunity, now."""
    with _asking(address, token_file, tls, tls_ca, tls_cert, tls_key, timeout) as asked:
        found = asked.client.explain(customer, capability, context=_context(as_of, channel))
    if as_json:
        print_json({**asdict(found), "notice": asked.notice})
        return
    _show_explanation(found, new_console())
    _show_end(found.version, asked.notice)


@app.command()
def audience(
    capability: CapabilityId,
    address: Address = _HERE,
    token_file: TokenFile = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    timeout: Timeout = 10.0,
    k: Annotated[int, typer.Option("-k", help="At most so many customers.")] = 10,
    reach: Annotated[
        bool,
        typer.Option("--reach", help="Count also who would get it; costs a match of the base."),
    ] = False,
    ev_min: EvMin = None,
    as_of: AsOfNow = None,
    as_json: AsJson = False,
) -> None:
    """The customers whom one capability fits best, now."""
    with _asking(address, token_file, tls, tls_ca, tls_cert, tls_key, timeout) as asked:
        context = _context(as_of, None, ev_min=ev_min)
        pages = list(asked.client.find_audience(capability, k, context=context, with_reach=reach))
    first = pages[0]
    members = list(chain.from_iterable(page.members for page in pages))
    counts = {"eligible_count": first.eligible_count, "reach_count": first.reach_count}
    if as_json:
        about = {"capability_id": capability, "version": asdict(first.version), **counts}
        print_json({**about, "members": list(map(asdict, members)), "notice": asked.notice})
        return
    table = new_table("", "customer", "chance", "worth", "control", title=capability)
    for rank, each in enumerate(members, start=1):
        add_row(
            table,
            rank,
            each.customer_id,
            f"{each.propensity:.1%}",
            f"{each.expected_value:.4f}",
            cell(each.is_control),
        )
    new_console().print(table)
    print_pairs({name: count for name, count in counts.items() if count is not None})
    _show_end(first.version, asked.notice)


@app.command()
def info(
    address: Address = _HERE,
    token_file: TokenFile = None,
    tls: Tls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    timeout: Timeout = 10.0,
    as_json: AsJson = False,
) -> None:
    """What a gateway serves: versions, policy and limits."""
    with _asking(address, token_file, tls, tls_ca, tls_cert, tls_key, timeout) as asked:
        found = asked.client.info
    assert found is not None  # noqa: S101 (asked for on the way in)
    said = asdict(found)
    if as_json:
        print_json(said)
        return
    counted = {"indicators": len(found.indicator_names), "attributes": len(found.attributes)}
    left_out = ("notice", "indicator_names", "attributes", "version")
    rest = {name: value for name, value in said.items() if name not in left_out}
    policy = {name: _listed(value) for name, value in said["policy"].items()}
    version = {name: str(value) for name, value in said["version"].items()}
    print_pairs({"version": version, **rest, "policy": policy, **counted})
    _show_notice(asked.notice)


def _listed(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(held)}" for name, held in value.items())
    return (list(value) or None) if isinstance(value, tuple) else value


@contextmanager
def _asking(
    address: str,
    token_file: Path | None,
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    timeout_s: float,
) -> Iterator[_Asked]:
    """A client; what is wrong with a request is told by the option."""
    from visavis.client import Certificates, Client, RequestError

    try:
        certificates = None
        if tls or tls_ca is not None or tls_cert is not None or tls_key is not None:
            certificates = Certificates(tls_ca, tls_cert, tls_key)
        token = _token(token_file)
        with Client(address, token=token, certificates=certificates, timeout_s=timeout_s) as client:
            yield _Asked(client, client.serving_info().notice)
    except RequestError as error:
        if error.field not in _OPTIONS:
            raise
        raise InputError(error.message, field=_OPTIONS[error.field]) from error
    except InputError as error:
        if error.field not in _OPTIONS:
            raise
        raise InputError(error.reason, field=_OPTIONS[error.field]) from error


def _token(path: Path | None) -> str | None:
    from visavis.store import read_bytes

    if path is None:
        return os.environ.get(_TOKEN_VARIABLE) or None
    try:
        return read_bytes(path, field="token").decode().strip()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text", field="token") from None


def _context(as_of: str | None, channels: list[str] | None, **limits: Any) -> RequestContext | None:
    from visavis.client import RequestContext

    said = {"as_of": as_of, "available_channels": channels or None, **limits}
    held = {name: value for name, value in said.items() if value is not None}
    return RequestContext(**held) if held else None


def _show_matches(found: CustomerMatches, console: Console) -> None:
    if not found.opportunities:
        console.print(plain(f"customer {found.customer_id}: no opportunity"))
        return
    is_control = found.opportunities[0].is_control
    mark = " (control group: not to be contacted)" if is_control else ""
    title = f"customer {found.customer_id}{mark}"
    table = new_table("", "capability", "by", "chance", "worth", "because", title=title)
    for each in found.opportunities:
        why = [f"{reason.indicator} {reason.contribution:+.3f}" for reason in each.reasons]
        add_row(
            table,
            each.rank,
            each.capability_id,
            each.channel,
            f"{each.propensity:.1%}",
            f"{each.expected_value:.4f}",
            ", ".join(why),
        )
    console.print(table)
    for each in found.opportunities:
        if each.message:
            console.print(plain(f"{each.rank}. {each.message}"), soft_wrap=True)


def _show_explanation(found: Explanation, console: Console) -> None:
    console.print(
        plain(f"{found.customer_id} × {found.capability_id}", "bold") + plain(f": {found.verdict}"),
        soft_wrap=True,
    )
    gates = new_table("gate", "", "")
    for gate in found.gates:
        state = plain("open") if gate.is_open else plain("closed", "bold")
        add_row(gates, gate.obstacle.replace("_", " ").lower(), state, gate.detail)
    console.print(gates)
    if found.linear_predictor is not None:
        terms = new_table("contribution to z", "")
        add_row(terms, f"{found.bias:+.4f}", "bias")
        ordered = sorted(found.contributions, key=lambda term: -abs(term.contribution))
        for term in ordered[:_SHOWN_CONTRIBUTIONS]:
            add_row(terms, f"{term.contribution:+.4f}", term.name)
        rest = ordered[_SHOWN_CONTRIBUTIONS:]
        if rest:
            total = sum(term.contribution for term in rest)
            add_row(terms, f"{total:+.4f}", f"{len(rest)} smaller")
        console.print(terms)
        console.print(
            f"z = {found.linear_predictor:.4f}, propensity {found.propensity:.1%}, "
            f"expected value {found.expected_value:.4f}"
        )
    for remedy in found.remedies:
        console.print(plain(f"would change it: {remedy}"), soft_wrap=True)


def _show_end(version: Any, notice: str | None) -> None:
    """From what it was answered, and what must be said of it."""
    said = f"base {version.base_version}, journal {version.journal_offset}, as of {version.as_of}"
    new_console().print(plain(said, "dim"))
    _show_notice(notice)


def _show_notice(notice: str | None) -> None:
    if notice is not None:
        new_console().print(plain(notice, "dim"), soft_wrap=True)
