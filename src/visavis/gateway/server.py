"""The server: services on one port, closed unless told otherwise, drained before it stops.

::

    Gateway.start ─► listening, not ready ─► open(serving) ─► ready ─► drain ─► closed

An address that others can reach needs TLS and tokens, or it is refused. Health says whether a
version is served: it is asked without a token.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from visavis.errors import InputError, StorageError
from visavis.gateway.audit import Audit
from visavis.gateway.catalog_service import CatalogService
from visavis.gateway.desk import DEADLINE_S, Desk
from visavis.gateway.entrance import Entrance
from visavis.gateway.fellows import Fellows, Forwarding, Published
from visavis.gateway.job_service import JobService
from visavis.gateway.limits import MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, host_and_port
from visavis.gateway.match_service import MatchService
from visavis.gateway.metrics import Exposition, Meters
from visavis.gateway.profile_service import ProfileService
from visavis.gateway.publishing import Publishing, follow
from visavis.gateway.shedding import Gate
from visavis.gateway.tokens import TokenFile
from visavis.gateway.tracing import Tracing
from visavis.journal import Journal
from visavis.serving import Serving, ServingVersion
from visavis.store import open_place, read_bytes
from visavis.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    match_service_pb2,
    match_service_pb2_grpc,
    profile_service_pb2,
    profile_service_pb2_grpc,
)

__all__ = ["ADDRESS", "Certificates", "Gateway", "Settings"]

ADDRESS: Final = "127.0.0.1:8420"

#: Calls of one connection that are open at a time; the client's library keeps the others back.
_STREAMS_MAX: Final = 256

#: Calls of one method that may wait to be taken over; gRPC's default is less than what four busy
#: connections may have open.
_PENDING_MAX: Final = 4_096

#: Connections of one process; half of the files that it may open, where those are fewer.
_CONNECTIONS_MAX: Final = 8_192

#: How long a process may need to load what another one publishes.
_FOLLOW_S: Final = 600.0

#: A socket that says nothing stays open for minutes by gRPC's default.
_HANDSHAKE_MS: Final = 5_000
_IDLE_MS: Final = 5 * 60 * 1000

#: How often a client that is silent is asked whether it is there, and how long it may take.
_KEEPALIVE_MS: Final = 60_000
_KEEPALIVE_TIMEOUT_MS: Final = 20_000

#: How often a client may ask whether the server is there, while nothing else is said.
_PING_INTERVAL_MS: Final = 15_000

_SERVICES: Final = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (match_service_pb2, "MatchService"),
        (profile_service_pb2, "ProfileService"),
        (catalog_service_pb2, "CatalogService"),
        (job_service_pb2, "JobService"),
    )
)


class Certificates(NamedTuple):
    """Files of PEM.

    Attributes
    ----------
    certificate, key : Path
    client_authority : Path or None
        Clients must show a certificate that it signed.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a gateway listens.

    Attributes
    ----------
    address : str
        ``host:port``; port 0 takes a free one.
    certificates : Certificates, optional
    tokens : TokenFile, optional
    has_reflection : bool
    roots : sequence of str
        Below which PublishVersion may find sources.
    threads : int
        That match at a time.
    deadline_s : float
        Where a client sets none.
    jobs : str, optional
        Where jobs and their results lie: a folder, or the URL of an object store's prefix.
    job_threads : int
        That compute a job.
    variant : str, optional
        Of the kernel, in jobs; see `kernel.choose_variant`.
    audit : Audit
    access : Audit, optional
        Where every call is written to; default: nowhere.
    metrics_address : str, optional
        ``host:port`` where Prometheus reads; default: nowhere.
    tracing : Tracing, optional
        Where spans go; default: nowhere.
    """

    address: str = ADDRESS
    certificates: Certificates | None = None
    tokens: TokenFile | None = None
    has_reflection: bool = False
    roots: Sequence[str] = ()
    threads: int = 2
    deadline_s: float = DEADLINE_S
    jobs: str | None = None
    job_threads: int = 1
    variant: str | None = None
    audit: Audit = field(default_factory=Audit)
    access: Audit | None = None
    metrics_address: str | None = None
    tracing: Tracing | None = None


class Gateway:
    """A server that listens once it is started and answers once something is served.

    Parameters
    ----------
    settings : Settings
    journal : Journal, optional
        The one that is served with.
    fellows : Fellows, optional
        Other processes that answer at the same port.

    Raises
    ------
    InputError
        If the address is none, or can be reached by others and is not guarded.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        journal: Journal | None = None,
        fellows: Fellows | None = None,
    ) -> None:
        check_guarded(settings)
        self._settings = settings
        self._journal = journal
        self._fellows = fellows
        self._forwarding: Forwarding | None = None
        self._meters = Meters()
        self._meters.watch(self._served)
        self._desk = Desk(settings.threads, settings.audit, settings.deadline_s, self._meters)
        self._jobs = JobService(
            self._desk,
            None if settings.jobs is None else open_place(settings.jobs),
            journal=None if journal is None else journal.path,
            threads=settings.job_threads,
            variant=settings.variant,
        )
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self._exposition: Exposition | None = None
        self.port = 0
        self.metrics_port = 0

    async def start(self) -> None:
        """Listen; what is asked before `open` is told to come again.

        Raises
        ------
        StorageError
            If the address cannot be listened at, certificates cannot be used, or the place of jobs
            cannot be read.
        """
        await self._jobs.load()
        settings, has_journal = self._settings, self._journal is not None
        if settings.metrics_address is not None:
            self._exposition = Exposition(settings.metrics_address, self._meters)
            self.metrics_port = self._exposition.port
        told = self._meters, settings.access, settings.tracing
        gate = Gate(self._desk.crowding, *told)
        entrance = Entrance(settings.tokens, settings.audit, *told, gate)
        interceptors: list[Any] = [entrance]
        fellows, announce, recorded = self._fellows, None, None
        if fellows is not None:
            # Before the entrance: who calls is asked where the call is answered.
            self._forwarding = Forwarding(fellows, self._follow)
            interceptors.insert(0, self._forwarding)
            announce, recorded = self._announcer(fellows), fellows.tick.change
        self._server = grpc.aio.server(
            interceptors=interceptors, options=_options(is_shared=fellows is not None)
        )
        publishing = Publishing(settings.roots, self._journal, announce)
        match_service_pb2_grpc.add_MatchServiceServicer_to_server(
            MatchService(self._desk), self._server
        )
        profile_service_pb2_grpc.add_ProfileServiceServicer_to_server(
            ProfileService(self._desk, has_journal=has_journal, recorded=recorded), self._server
        )
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
            CatalogService(
                self._desk, publishing, has_journal=has_journal, has_jobs=self._jobs.has_jobs
            ),
            self._server,
        )
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self._jobs, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if not self._desk.is_open:
            await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        if settings.has_reflection:
            names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.port = self._listen()
        if fellows is not None:
            self._server.add_insecure_port(fellows.address)
        await self._server.start()
        if fellows is not None and fellows.leads:
            fellows.lead()

    def _listen(self) -> int:
        settings, port = self._settings, 0
        try:
            if settings.certificates is None:
                port = self._server.add_insecure_port(settings.address)
            else:
                credentials = _credentials(settings.certificates)
                port = self._server.add_secure_port(settings.address, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise StorageError("cannot be listened at", path=settings.address)
        return port

    async def open(self, serving: Serving) -> None:
        """Answer from now on; or, before `start`, as soon as it listens."""
        if self._fellows is not None:
            serving.follow(self._fellows.tick)
        self._desk.open(serving)
        self._jobs.open()
        await self._tell(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float) -> None:
        """Take no call any more, let those under way end, and stop.

        Parameters
        ----------
        grace_s : float
            After which calls that have not ended are cancelled.
        """
        await self._health.enter_graceful_shutdown()
        # Streams live long: their next frames are told to come again, elsewhere.
        self._desk.drain()
        await self._jobs.drain()
        await self._server.stop(grace_s)
        if self._forwarding is not None:
            await self._forwarding.close()
        self._desk.close()
        self._jobs.close()
        if self._exposition is not None:
            self._exposition.close()
        if self._settings.tracing is not None:
            await asyncio.to_thread(self._settings.tracing.close)

    def _announcer(self, fellows: Fellows) -> Callable[[Published], None]:
        """What has the other processes serve what was published; called in a thread."""
        loop = asyncio.get_running_loop()

        def announce(published: Published) -> None:
            before = fellows.published
            known = {name: value for name, value in asdict(published).items() if value is not None}
            fellows.publish(replace(before, **known))
            told = fellows.tell(published, timeout_s=_FOLLOW_S)
            asyncio.run_coroutine_threadsafe(told, loop).result()

        return announce

    async def _follow(self, published: Published) -> None:
        """Serve what the leader published."""
        serving = self._desk.serving
        await self._desk.run(
            partial(follow, serving, published), remaining_s=_FOLLOW_S, queue="change"
        )

    def _served(self) -> tuple[ServingVersion, int] | None:
        """What is served, and how far the journal is beyond it."""
        if not self._desk.is_open:
            return None
        serving = self._desk.serving
        name = serving.name
        return name, 0 if self._journal is None else self._journal.offset - name.journal_offset

    async def _tell(self, status: Any) -> None:
        for service in ("", *_SERVICES):
            await self._health.set(service, status)


def _options(*, is_shared: bool = False) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", _STREAMS_MAX),
        # A client at the limit opens a stream when it has seen another end, which the server may
        # not have put away yet: gRPC would refuse the call of a client that did nothing wrong.
        ("grpc.http.overload_protection", 0),
        # Calls that the event loop has not taken over yet; what is beyond, gRPC cancels by chance,
        # and from the second number on always: without a word of why, or when to come back.
        ("grpc.server.max_pending_requests", _PENDING_MAX),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_MAX),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Who says half of something and then nothing has no call open.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_allowed_incoming_connections", _connections_max()),
        # Clients may ask the same of a silent stream: gRPC would cut them off after 90 s.
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
        # Two servers that know nothing of each other would answer by turns, from two journals.
        ("grpc.so_reuseport", int(is_shared)),
    ]


def _connections_max() -> int:
    """So many that enough files are left to the base, the journal and the jobs."""
    return min(_CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def check_guarded(settings: Settings) -> None:
    """Refuse an address that others can reach, unless TLS and tokens guard it.

    Raises
    ------
    InputError
    """
    if settings.metrics_address is not None:
        # Prometheus brings no token, and what it reads holds nothing of any customer.
        host_and_port(settings.metrics_address, "metrics_address")
    if _is_local(settings.address):
        return
    has_clients = settings.certificates is not None and settings.certificates.client_authority
    if settings.certificates is None:
        reason = "can be reached by others: TLS is needed, a certificate and its key"
        raise InputError(reason, field="address")
    if settings.tokens is None and not has_clients:
        reason = "can be reached by others: tokens are needed, or certificates of clients"
        raise InputError(reason, field="address")


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host, _ = host_and_port(address, "address")
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        # A name means what a resolver says today; localhost alone is promised to be this machine.
        return host == "localhost"


def _credentials(files: Certificates) -> Any:
    key = read_bytes(files.key, field="tls_key")
    chain = read_bytes(files.certificate, field="tls_cert")
    authority = files.client_authority
    roots = None if authority is None else read_bytes(authority, field="tls_client_ca")
    return grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=roots, require_client_auth=roots is not None
    )
