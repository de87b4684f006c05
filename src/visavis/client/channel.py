"""The way to a gateway: target, TLS, token, and what gRPC repeats by itself.

Fork
----
A channel does not survive ``fork``: gRPC's threads stay behind. Make a client in each process,
after the fork; one that was brought along refuses to be used.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc

from visavis.errors import InputError
from visavis.store import read_bytes

__all__ = [
    "ADDRESS",
    "MESSAGE_BYTES_MAX",
    "TIMEOUT_S",
    "Certificates",
    "Token",
    "Way",
    "metadata_of",
    "options",
    "service_config",
]

ADDRESS: Final = "127.0.0.1:8420"

#: Of a method, unless it is told otherwise.
TIMEOUT_S: Final = 10.0

#: Of a message, either way, as of the server.
MESSAGE_BYTES_MAX: Final = 4 * 2**20

#: In what pieces a server may send: HTTP/2's default of 16 KiB costs who reads a result by
#: megabytes more; behind much larger pieces other calls would wait on a slow line.
_HTTP_FRAME_BYTES: Final = 128 * 2**10

#: A silent connection is asked whether it still stands, while a call is open; at most half as often
#: as the server puts up with.
_KEEPALIVE_MS: Final = 30_000
_KEEPALIVE_TIMEOUT_MS: Final = 10_000

#: Times in all that a call is sent: 0.1, 0.2 and 0.4 s between them, give or take.
ATTEMPTS_MAX: Final = 4

#: What may be sent twice. Changes among them are known to the server by their request id, or leave
#: what they leave when they are repeated. Streams are not among them: what of one has been answered
#: gRPC does not know (`visavis.client.jobs` goes on with those that can be gone on with).
_SAFE_TO_REPEAT: Final = {
    "MatchService": ("MatchCustomer", "MatchCustomers", "Explain", "FindAudience"),
    "ProfileService": ("RecordFacts", "ForgetCustomer"),
    "CatalogService": ("GetServingInfo", "ListCapabilities", "PublishVersion"),
    "JobService": ("CreateRescoreJob", "GetJob", "ListJobs", "CancelJob"),
}

#: A token, or what gives the one that holds now.
Token: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of PEM for TLS.

    Attributes
    ----------
    authority : Path or str, optional
        Who signed the server's certificate; default: those whom this machine trusts.
    certificate, key : Path or str, optional
        The client's own, where the server asks for one.
    """

    authority: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("certificate and key go together", field="certificates")

    def credentials(self) -> Any:
        """What gRPC takes.

        Raises
        ------
        InputError, StorageError
            If a file is not there, or cannot be read.
        """
        roots, chain, key = (
            None if path is None else read_bytes(Path(path), field="certificates")
            for path in (self.authority, self.certificate, self.key)
        )
        return grpc.ssl_channel_credentials(roots, key, chain)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a gateway is, and how to get there.

    Attributes
    ----------
    target : str
        ``host:port``, or whatever gRPC resolves.
    token : Token, optional
        Shown with every call.
    certificates : Certificates, optional
        None: without TLS.

    Raises
    ------
    InputError
        If the target is empty, or the token would travel to another machine without TLS.
    """

    target: str
    token: Token | None = field(default=None, repr=False)
    certificates: Certificates | None = None

    def __post_init__(self) -> None:
        target: Any = self.target
        if not isinstance(target, str) or not target:
            raise InputError(f"must be host:port, got {self.target!r:.80}", field="target")
        if self.token is not None and self.certificates is None and not _is_local(self.target):
            reason = "a token goes to another machine under TLS alone: give certificates"
            raise InputError(reason, field="token")
        metadata_of(self.token)

    def open(self, module: Any) -> Any:
        """A channel of ``grpc`` or of ``grpc.aio``."""
        chosen = options(is_local=_is_local(self.target))
        if self.certificates is None:
            return module.insecure_channel(self.target, options=chosen)
        credentials = self.certificates.credentials()
        return module.secure_channel(self.target, credentials, options=chosen)


def metadata_of(token: Token | None) -> tuple[tuple[str, str], ...]:
    """What is sent with every call.

    Raises
    ------
    InputError
        If the token is none; what it is, is not told.
    """
    if token is None:
        return ()
    text: Any = token() if callable(token) else token
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable():
        raise InputError("must be a text of printable ASCII, and not empty", field="token")
    if text != text.strip():
        raise InputError("must not begin or end with a space", field="token")
    return (("authorization", f"Bearer {text}"),)


def options(*, is_local: bool) -> list[tuple[str, int | str]]:
    """The options of a channel."""
    chosen: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.http2.max_frame_size", _HTTP_FRAME_BYTES),
        # What does not fit in here is sent once only.
        ("grpc.per_rpc_retry_buffer_size", 2 * MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.service_config", service_config()),
    ]
    if is_local:
        # A proxy named by the environment must not see what is meant for this machine.
        chosen.append(("grpc.enable_http_proxy", 0))
    return chosen


def service_config() -> str:
    """The service config of a channel: what a server did not take is repeated, where it is safe."""
    named = [
        {"service": f"visavis.v1.{service}", "method": method}
        for service, methods in _SAFE_TO_REPEAT.items()
        for method in methods
    ]
    policy = {
        "maxAttempts": ATTEMPTS_MAX,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        # gRPC cancels what reaches a server in the moment that it stops; what the client itself
        # cancels is never repeated.
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    # While most calls fail, none is repeated: a server that comes back must not be buried.
    throttling = {"maxTokens": 20, "tokenRatio": 0.2}
    return json.dumps(
        {"methodConfig": [{"name": named, "retryPolicy": policy}], "retryThrottling": throttling}
    )


def _is_local(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host, _, _ = target.rpartition(":")
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        # A name means what a resolver says today; localhost alone is promised to be this machine.
        return host == "localhost"
