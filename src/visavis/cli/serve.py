"""``serve``: the gateway, until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visavis.cli.options import (
    AsJson,
    AsOf,
    BaseFolder,
    CatalogFile,
    JournalFile,
    PolicyFile,
    Threads,
    VariantName,
    named,
)
from visavis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from visavis.gateway.server import Gateway
    from visavis.serving import Serving

__all__ = ["serve"]


def serve(
    base: BaseFolder,
    catalog: CatalogFile,
    policy: PolicyFile = None,
    journal: JournalFile = None,
    address: Annotated[
        str, typer.Option(help="host:port; anything but this machine needs TLS and tokens.")
    ] = "127.0.0.1:8420",
    tokens: Annotated[
        Path | None, typer.Option(help="TOML file of tokens' digests: see docs/gateway.md.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="PEM file: the certificate and its chain.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file: its key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option("--tls-client-ca", help="PEM file: clients must show what it signed."),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(help="Below it PublishVersion finds sources. May be given many times."),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(help="Where jobs and their results lie: folder, or URL; needed for jobs."),
    ] = None,
    job_threads: Annotated[
        int | None, typer.Option(min=1, help="Of a job; default: half of the processors.")
    ] = None,
    reflection: Annotated[
        bool, typer.Option("--reflection", help="Tell callers which calls there are.")
    ] = False,
    metrics_address: Annotated[
        str | None, typer.Option(help="host:port where Prometheus reads; it brings no token.")
    ] = None,
    access_log: Annotated[
        bool,
        typer.Option("--access-log", help="A line of JSON for every call, on standard output."),
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds for calls under way to end, on SIGTERM.")
    ] = 30.0,
    as_of: AsOf = None,
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
) -> None:
    """Answer over gRPC until SIGTERM or SIGINT; then drain."""
    from visavis.base import StoredBase
    from visavis.catalog import Catalog
    from visavis.gateway.audit import Audit
    from visavis.gateway.server import Certificates, Gateway, Settings
    from visavis.gateway.tokens import TokenFile
    from visavis.journal import Journal
    from visavis.policy import Policy
    from visavis.serving import Serving

    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key go together", field="--tls-cert")
    if tls_client_ca is not None and tls_cert is None:
        raise InputError("needs --tls-cert and --tls-key", field="--tls-client-ca")
    certificates = None
    if tls_cert is not None and tls_key is not None:
        certificates = Certificates(tls_cert, tls_key, tls_client_ca)
    with ExitStack() as stack:
        with named(tokens="--tokens"):
            known = None if tokens is None else TokenFile(tokens)
        with named(path="--journal", journal="--journal"):
            opened = None if journal is None else stack.enter_context(Journal.open(journal))
        settings = Settings(
            address=address,
            certificates=certificates,
            tokens=known,
            has_reflection=reflection,
            roots=root or (),
            threads=threads or len(os.sched_getaffinity(0)),
            jobs=jobs,
            job_threads=job_threads or max(1, len(os.sched_getaffinity(0)) // 2),
            variant=variant,
            access=Audit(sys.stdout, event="access") if access_log else None,
            metrics_address=metrics_address,
        )
        with named(address="--address", metrics_address="--metrics-address", path="--jobs"):
            gateway = Gateway(settings, journal=opened)

        def load() -> Serving:
            with named(path="--base"):
                stored = StoredBase.open(base)
            with named("--catalog", path="--catalog"):
                capabilities = Catalog.read(catalog)
            with named(policy="--policy", as_of="--as-of", threads="--threads"):
                limits = Policy() if policy is None else Policy.read(policy)
                return Serving.open(
                    stored,
                    capabilities,
                    limits,
                    journal=opened,
                    as_of=as_of,
                    threads=threads,
                    variant=variant,
                )

        asyncio.run(_serve(gateway, load, grace, as_json))


async def _serve(
    gateway: Gateway, load: Callable[[], Serving], grace_s: float, as_json: bool
) -> None:
    """Listen, load, answer, and drain on a signal."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await gateway.start()
    if not as_json:
        print(f"Listening at port {gateway.port}, loading …", file=sys.stderr, flush=True)
    serving = None
    try:
        serving = await asyncio.to_thread(load)
        await gateway.open(serving)
        _tell(gateway.port, serving, as_json)
        await stopped.wait()
    finally:
        await gateway.drain(grace_s)
        if serving is not None:
            serving.close()


def _tell(port: int, serving: Serving, as_json: bool) -> None:
    """Say that it answers now, and from what."""
    told = {"port": port, **serving.name._asdict()}
    if as_json:
        print(json.dumps(told, default=str), flush=True)
        return
    said = ", ".join(f"{name} {value}" for name, value in told.items())
    print(f"Serving: {said}", file=sys.stderr, flush=True)
