"""``serve``: the gateway, until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from visavis.cli.options import (
    AsJson,
    AsOf,
    BaseFolder,
    CatalogFile,
    Insecure,
    JournalFile,
    PolicyFile,
    Threads,
    VariantName,
    named,
)
from visavis.cli.spread import RayAddress, RayWorkers, Spread
from visavis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from visavis.gateway.fellows import Fellows
    from visavis.gateway.server import Gateway
    from visavis.serving import Serving

__all__ = ["serve"]

#: How soon a worker sees that its supervisor is gone.
_LOOK_S: Final = 1.0


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
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that answer at the port.")
    ] = 1,
    metrics_address: Annotated[
        str | None,
        typer.Option(help="host:port where Prometheus reads; a port for each worker."),
    ] = None,
    access_log: Annotated[
        bool,
        typer.Option("--access-log", help="A line of JSON for every call, on standard output."),
    ] = False,
    tracing: Annotated[
        bool, typer.Option("--tracing", help="Export spans, as OTEL_… in the environment say.")
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0.0, help="Seconds for calls under way to end, on SIGTERM.")
    ] = 30.0,
    ray: RayAddress = None,
    ray_workers: RayWorkers = None,
    insecure: Insecure = False,
    as_of: AsOf = None,
    threads: Threads = None,
    variant: VariantName = None,
    as_json: AsJson = False,
    worker: Annotated[str | None, typer.Option("--worker", hidden=True)] = None,
) -> None:
    """Answer over gRPC until SIGTERM or SIGINT; then drain."""
    spread = Spread(ray, ray_workers, threads, insecure, variant)
    spread.check(workers)
    if workers > 1 and worker is None:
        _supervise(address, workers, grace, as_json)
        return
    # An event loop that takes less of the processor for the same calls.
    import uvloop

    from visavis.base import StoredBase
    from visavis.catalog import Catalog
    from visavis.gateway.audit import Audit
    from visavis.gateway.fellows import Published
    from visavis.gateway.server import Certificates, Gateway, Settings
    from visavis.gateway.tokens import TokenFile
    from visavis.gateway.tracing import Tracing
    from visavis.journal import Journal
    from visavis.policy import Policy

    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key go together", field="--tls-cert")
    if tls_client_ca is not None and tls_cert is None:
        raise InputError("needs --tls-cert and --tls-key", field="--tls-client-ca")
    post = None if worker is None else _Post.of(worker)
    certificates = None
    if tls_cert is not None and tls_key is not None:
        certificates = Certificates(tls_cert, tls_key, tls_client_ca)
    with ExitStack() as stack:
        with named(tokens="--tokens"):
            known = None if tokens is None else TokenFile(tokens)
        with named(path="--journal", journal="--journal"):
            opened = None if journal is None else stack.enter_context(Journal.open(journal))
        owners = spread.owners()
        if owners is not None:
            stack.callback(owners.close)
        settings = Settings(
            address=address,
            certificates=certificates,
            tokens=known,
            has_reflection=reflection,
            roots=root or (),
            threads=spread.slots(owners),
            jobs=jobs,
            job_threads=job_threads or max(1, len(os.sched_getaffinity(0)) // 2),
            variant=variant,
            access=Audit(sys.stdout, event="access") if access_log else None,
            metrics_address=_port_of(metrics_address, post),
            tracing=Tracing() if tracing else None,
        )
        with named(address="--address", metrics_address="--metrics-address", path="--jobs"):
            gateway = Gateway(
                settings, journal=opened, fellows=None if post is None else post.fellows
            )

        def load() -> Serving:
            # What was published since goes before what the command line says.
            now = Published() if post is None else post.fellows.published
            rules = now.policy or policy
            with named(path="--base"):
                stored = StoredBase.open(now.base or base, version=now.base_version)
            with named("--catalog", path="--catalog"):
                capabilities = Catalog.read(now.catalog or catalog)
            with named(policy="--policy", as_of="--as-of", threads="--threads"):
                limits = Policy() if rules is None else Policy.read(rules)
                return spread.open(
                    owners,
                    stored,
                    capabilities,
                    limits,
                    journal=opened,
                    as_of=now.as_of or as_of,
                )

        if post is None:
            uvloop.run(_serve(gateway, load, grace, as_json))
        else:
            uvloop.run(_serve_beside(gateway, load, grace, post))


class _Post(NamedTuple):
    """What a supervisor tells a worker."""

    fellows: Fellows
    ready: int

    @classmethod
    def of(cls, text: str) -> _Post:
        from visavis.gateway.fellows import Fellows

        index, ready, folder = text.split(":", 2)
        return cls(Fellows(Path(folder), int(index)), int(ready))


def _port_of(address: str | None, post: _Post | None) -> str | None:
    """Where this worker's metrics are read."""
    from visavis.gateway.limits import host_and_port

    if address is None or post is None:
        return address
    with named(metrics_address="--metrics-address"):
        host, port = host_and_port(address, "metrics_address")
    return f"{host}:{port + post.fellows.index if port else 0}"


def _supervise(address: str, count: int, grace_s: float, as_json: bool) -> None:
    """Begin workers with the command line of this process, and keep them running."""
    from visavis.gateway.workers import Supervisor, WorkerError, reserved

    def ended(index: int, status: int) -> None:
        print(f"Worker {index} ended with status {status}.", file=sys.stderr, flush=True)

    def told(said: bytes) -> None:
        _say(json.loads(said or b"{}"), as_json)

    with named(address="--address"), reserved(address) as taken:

        def command(index: int, folder: Path, ready: int) -> list[str]:
            own = ["--address", taken, "--worker", f"{index}:{ready}:{folder}"]
            return [sys.executable, "-m", "visavis.cli", *sys.argv[1:], *own]

        try:
            asyncio.run(Supervisor(count, command, grace_s, ended).run(told))
        except WorkerError as error:
            if error.status <= 0:
                raise
            # What was wrong has been told already.
            raise typer.Exit(error.status) from None


async def _serve_beside(
    gateway: Gateway, load: Callable[[], Serving], grace_s: float, post: _Post
) -> None:
    """Load, then listen beside others; drain on a signal, or when the supervisor has gone."""
    stopped, parent = _stopped(), os.getppid()
    serving = await asyncio.to_thread(load)
    try:
        await gateway.open(serving)
        await gateway.start()
        said = json.dumps({"port": gateway.port, **serving.name._asdict()}, default=str)
        os.write(post.ready, said.encode() + b"\n")
        os.close(post.ready)
        while not stopped.is_set() and os.getppid() == parent:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _LOOK_S)
    finally:
        await gateway.drain(grace_s)
        serving.close()


async def _serve(
    gateway: Gateway, load: Callable[[], Serving], grace_s: float, as_json: bool
) -> None:
    """Listen, load, answer, and drain on a signal."""
    stopped = _stopped()
    await gateway.start()
    if not as_json:
        print(f"Listening at port {gateway.port}, loading …", file=sys.stderr, flush=True)
    serving = None
    try:
        serving = await asyncio.to_thread(load)
        await gateway.open(serving)
        _say({"port": gateway.port, **serving.name._asdict()}, as_json)
        await stopped.wait()
    finally:
        await gateway.drain(grace_s)
        if serving is not None:
            serving.close()


def _stopped() -> asyncio.Event:
    """Set by the signals that end a server."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _say(told: dict[str, object], as_json: bool) -> None:
    """Say what is answered now, and from what."""
    if as_json:
        print(json.dumps(told, default=str), flush=True)
        return
    said = ", ".join(f"{name} {value}" for name, value in told.items())
    print(f"Serving: {said}", file=sys.stderr, flush=True)
