"""Who may call, what is published, and how a gateway begins and ends."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from commands import refused as refused_command
from gateways import (
    IDS,
    Client,
    Code,
    World,
    a_catalog,
    batch_request,
    listening,
    refused,
    refused_as,
    served,
    table_of,
)
from visavis.engine import Engine
from visavis.errors import InputError, StorageError
from visavis.gateway import match_service
from visavis.gateway.entrance import SCOPE_OF
from visavis.gateway.naming import named_opportunity, opportunity_namer
from visavis.gateway.server import Certificates, Gateway, Settings
from visavis.gateway.tokens import SCOPES, TokenFile
from visavis.journal import Journal
from visavis.v1 import (
    catalog_service_pb2,
    errors_pb2,
    job_service_pb2,
    match_service_pb2,
    profile_service_pb2,
)

CONTRACT = (match_service_pb2, profile_service_pb2, catalog_service_pb2, job_service_pb2)


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def publish_request(request_id: str, **more: Any) -> Any:
    return catalog_service_pb2.PublishVersionRequest(request_id=request_id, **more)


def test_a_published_catalog_is_swapped_in_under_load(world: World, tmp_path: Path) -> None:
    other = a_catalog(bias=1.0)
    other.write(tmp_path / "other.parquet")
    world.catalog.write(tmp_path / "first.parquet")
    (tmp_path.parent / "outside.toml").write_text("k = 1\n")
    (tmp_path / "loose.toml").write_text("cool_down_days = { pigeon = 3 }\n")
    tables = {}
    for catalog in (world.catalog, other):
        table = Engine(world.base, catalog, world.policy).match().to_table(reasons=None)
        tables[catalog.digest()] = table.to_pylist()

    async def scene(client: Client) -> None:
        publish = client.catalog.PublishVersion
        stopped, seen = asyncio.Event(), set()

        async def load() -> None:
            while not stopped.is_set():
                answer = await client.many(IDS)
                digest = answer.version.catalog_digest
                seen.add(digest)
                found = table_of(answer, IDS, with_reasons=False).to_pylist()
                assert found == tables[digest]

        loads = [asyncio.create_task(load()) for _ in range(2)]
        for number in range(6):
            name, catalog = (("other", other), ("first", world.catalog))[number % 2]
            source = {"location": str(tmp_path / f"{name}.parquet"), "digest": catalog.digest()}
            done = await publish(publish_request(str(number), catalog=source))
            assert done.version.catalog_digest == catalog.digest()
            assert done.replaced_version.catalog_digest != catalog.digest()
            assert (await client.many(["c01"])).version.catalog_digest == catalog.digest()
        stopped.set()
        await asyncio.gather(*loads)
        assert seen == set(tables)
        again = await publish(publish_request("5", catalog=source))
        assert again.is_repeated
        source["digest"] = "0" * 64
        unfit = Code.FAILED_PRECONDITION
        await refused_as(publish(publish_request("a", catalog=source)), unfit, "DIGEST_MISMATCH")
        await refused_as(publish(publish_request("5", catalog=source)), Code.ALREADY_EXISTS,
                         "REQUEST_ID_REUSED")  # fmt: skip
        loose = {"location": "loose.toml"}
        await refused_as(publish(publish_request("b", policy=loose)), unfit, "VERSION_UNFIT")
        for location in ("../outside.toml", "/etc/passwd", "", "s3://bucket/x", "a\0b", "x" * 300):
            await refused_as(
                publish(publish_request("c", policy={"location": location})),
                Code.INVALID_ARGUMENT,
                "INVALID_VALUE",
                "policy.location",
            )
        dry = publish_request("d", catalog={"location": "other.parquet"}, validate_only=True)
        assert (await publish(dry)).version.catalog_digest == other.digest()
        assert (await client.many([])).version.catalog_digest == world.catalog.digest()

    served(world, scene)


def test_a_publish_is_answered_again_after_a_restart(world: World, tmp_path: Path) -> None:
    a_catalog(bias=1.0).write(tmp_path / "other.parquet")
    world.catalog.write(tmp_path / "first.parquet")
    one = publish_request("one", catalog={"location": "other.parquet"})
    two = publish_request("two", catalog={"location": "first.parquet"})
    dry = publish_request("dry", catalog={"location": "other.parquet"}, validate_only=True)
    answers = []

    async def first(client: Client) -> None:
        await client.catalog.PublishVersion(dry)
        answers.append(await client.catalog.PublishVersion(one))
        answers.append(await client.catalog.PublishVersion(two))
        assert not any(each.is_repeated for each in answers)

    async def later(client: Client) -> None:
        publish = client.catalog.PublishVersion
        before = (await client.many([])).version
        for request, answer in zip((one, two), answers, strict=True):
            again = await publish(request)
            assert again.is_repeated
            assert (again.version, again.replaced_version) == (
                answer.version,
                answer.replaced_version,
            )
        assert (await client.many([])).version == before
        changed = publish_request("one", catalog={"location": "first.parquet"})
        await refused_as(publish(changed), Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert not (await publish(dry)).is_repeated

    served(world, first)
    served(world, later)


def test_a_publish_that_could_not_be_kept_is_sent_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = a_catalog(bias=1.0)
    other.write(tmp_path / "other.parquet")
    request = publish_request("one", catalog={"location": "other.parquet"})

    def full(*_: Any) -> None:
        raise StorageError("disk is full", path=tmp_path)

    async def scene(client: Client) -> None:
        publish = client.catalog.PublishVersion
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "keep_answer", full)
            details = await refused_as(publish(request), Code.UNAVAILABLE, "STORAGE_FAILED")
            assert str(tmp_path) not in str(details)
        done = await publish(request)
        assert not done.is_repeated
        assert done.version.catalog_digest == other.digest()
        assert (await publish(request)).is_repeated

    served(world, scene)


def token_file(folder: Path) -> Path:
    lines = []
    for name in (*SCOPES, "old"):
        digest = hashlib.sha256(f"token of {name}".encode()).hexdigest()
        scopes = json.dumps(list(SCOPES) if name == "old" else [name])
        lines += ["[[token]]", f'name = "{name}"', f'sha256 = "{digest}"', f"scopes = {scopes}"]
        lines += ["expires = 2026-01-01"] if name == "old" else []
    path = folder / "tokens.toml"
    path.write_text("\n".join(lines))
    return path


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer token of {name}"),)


def test_every_call_needs_a_token_of_its_scope(world: World) -> None:
    audit = io.StringIO()
    tokens = TokenFile(token_file(world.folder), today=lambda: date(2026, 1, 2))

    def ask(client: Client, method: str, metadata: Any) -> Awaitable[Any]:
        if method.endswith("StreamMatches"):

            async def streamed() -> None:
                call = client.channel.stream_stream(method)
                async for _ in call(none(), metadata=metadata):
                    pass

            return streamed()
        if method.endswith(("WatchJob", "ReadResults")):

            async def watched() -> None:
                async for _ in client.channel.unary_stream(method)(b"", metadata=metadata):
                    pass

            return watched()
        return client.channel.unary_unary(method)(b"", metadata=metadata)  # type: ignore[no-any-return]

    async def none() -> AsyncIterator[bytes]:
        for nothing in ():
            yield nothing

    async def scene(client: Client) -> None:
        methods = {
            f"/{service.full_name}/{each.name}"
            for module in (
                match_service_pb2,
                profile_service_pb2,
                catalog_service_pb2,
                job_service_pb2,
            )
            for service in module.DESCRIPTOR.services_by_name.values()
            for each in service.methods
        }
        assert methods == set(SCOPE_OF)
        for method, scope in SCOPE_OF.items():
            missing = ask(client, method, ())
            await refused_as(missing, Code.UNAUTHENTICATED, "CREDENTIALS_MISSING")
            for wrong in (
                bearer("nobody"),
                bearer("old"),
                (("authorization", "token of read"),),
                bearer(scope) + bearer(scope),
            ):
                call = ask(client, method, wrong)
                await refused_as(call, Code.UNAUTHENTICATED, "CREDENTIALS_INVALID")
            for other in SCOPES:
                if other != scope:
                    call = ask(client, method, bearer(other))
                    await refused_as(call, Code.PERMISSION_DENIED, "SCOPE_MISSING")
            try:
                await ask(client, method, bearer(scope))
            except grpc.aio.AioRpcError as error:
                assert error.code() in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)  # noqa: PT017
        unknown = client.channel.unary_unary("/visavis.v1.MatchService/Guess")
        call = unknown(b"", metadata=bearer("read"))
        await refused_as(call, Code.PERMISSION_DENIED, "SCOPE_MISSING")
        await client.health.Check(health_pb2.HealthCheckRequest())

    served(world, scene, tokens=tokens, audit=audit, jobs=str(world.folder / "jobs"))
    assert "token of" not in audit.getvalue()


def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    tokens = TokenFile(path, today=lambda: date(2026, 1, 1))
    assert tokens.find("token of read") is not None
    assert tokens.find("token of old") is not None
    text = path.read_text()
    path.write_text("half a fi")
    assert tokens.find("token of read") is not None
    digest = hashlib.sha256(b"new").hexdigest()
    path.write_text(text.replace(hashlib.sha256(b"token of read").hexdigest(), digest))
    assert tokens.find("token of read") is None
    found = tokens.find("new")
    assert found is not None
    assert found.scopes == {"read"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "tokens"),
        ("token = 1", "tokens"),
        ("x = 1", "tokens.x"),
        ('[[token]]\nname = ""', "tokens.token.name"),
        ('[[token]]\nname = "a"\nsha256 = "secret"', "tokens.token.sha256"),
        (f'[[token]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["all"]', "tokens.token.scopes"),
        ("[[token]]\nkey = 1", "tokens.token.key"),
        ("[[token", "tokens"),
    ],
)
def test_a_token_file_that_is_wrong_is_refused(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        TokenFile(path)
    assert caught.value.field == field


def test_an_address_that_others_reach_needs_tls_and_tokens(tmp_path: Path) -> None:
    tokens = TokenFile(token_file(tmp_path))
    files = Certificates(tmp_path / "cert", tmp_path / "key")
    for address in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"):
        for settings in ({}, {"tokens": tokens}, {"certificates": files}):
            with pytest.raises(InputError, match="can be reached by others"):
                Gateway(Settings(address=address, **settings))
        Gateway(Settings(address=address, tokens=tokens, certificates=files))
    for address in ("127.0.0.1:0", "localhost:0", "[::1]:0"):
        Gateway(Settings(address=address))
    for address in ("127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ""):
        with pytest.raises(InputError, match="host:port"):
            Gateway(Settings(address=address))


def certificates(folder: Path) -> Certificates:
    """A certificate of 127.0.0.1, signed by itself."""
    files = Certificates(folder / "cert.pem", folder / "key.pem")
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", "/CN=gateway", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(files.key), "-out", str(files.certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
@pytest.mark.parametrize("of_clients", [False, True])
def test_tls_lets_in_who_trusts_it_and_whom_it_trusts(world: World, of_clients: bool) -> None:
    files = certificates(world.folder)
    authority = files.certificate if of_clients else None
    chosen = files._replace(client_authority=authority)
    chain, key = files.certificate.read_bytes(), files.key.read_bytes()
    known = {"private_key": key, "certificate_chain": chain} if of_clients else {}

    async def scene() -> None:
        async with listening(world, certificates=chosen) as (gateway, plain):
            address = f"127.0.0.1:{gateway.port}"
            trusting = grpc.ssl_channel_credentials(chain, **known)
            async with grpc.aio.secure_channel(address, trusting) as channel:
                assert (await Client(channel).one("c01")).opportunities
            strangers = [plain.channel]
            if of_clients:
                nameless = grpc.ssl_channel_credentials(chain)
                strangers.append(grpc.aio.secure_channel(address, nameless))
            for channel in strangers:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await Client(channel).one("c01")
                assert caught.value.code() is Code.UNAVAILABLE
                await channel.close()

    asyncio.run(scene())


def test_what_was_let_in_is_answered_while_it_drains(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()
    plain = match_service.MatchService._match_together

    def held(*given: Any) -> Any:
        begun.set()
        assert released.wait(30)
        return plain(*given)

    monkeypatch.setattr(match_service.MatchService, "_match_together", held)

    async def scene() -> None:
        async with listening(world, threads=1) as (gateway, client):
            calls = [asyncio.create_task(client.one("c01")) for _ in range(3)]
            await asyncio.to_thread(begun.wait, 30)
            # The others wait for the one thread.
            while sum(len(each.asked) for each in gateway._desk._lines["match"]._waiting) < 2:
                await asyncio.sleep(0.001)
            draining = asyncio.create_task(gateway.drain(20.0))
            while not gateway._desk._is_draining:
                await asyncio.sleep(0.001)
            released.set()
            for answer in await asyncio.gather(*calls):
                assert answer.opportunities
            await draining

    asyncio.run(scene())


def test_nothing_is_answered_before_it_is_loaded_or_while_it_drains(world: World) -> None:
    async def scene() -> None:
        async with listening(world, is_open=False) as (gateway, client):
            ask = health_pb2.HealthCheckRequest()
            assert (await client.health.Check(ask)).status == 2  # NOT_SERVING
            details = await refused_as(client.one("c01"), Code.UNAVAILABLE, "NOT_READY")
            assert details["RetryInfo"].retry_delay.seconds == 1
            with world.serving() as serving:
                await gateway.open(serving)
                assert (await client.health.Check(ask)).status == 1
                assert (await client.one("c01")).opportunities
                more = asyncio.Event()

                async def sent() -> AsyncIterator[Any]:
                    frame = match_service_pb2.StreamMatchesRequest
                    yield frame(frame_id=1, match=batch_request(["c01"]))
                    await more.wait()
                    yield frame(frame_id=2, match=batch_request(["c01"]))

                stream = client.match.StreamMatches(sent())
                assert (await stream.read()).match.customer_count == 1
                draining = asyncio.create_task(gateway.drain(5.0))
                while not gateway._desk._is_draining:
                    await asyncio.sleep(0.001)
                more.set()
                last = await stream.read()
                assert last.error.reason == errors_pb2.ERROR_REASON_DRAINING
                assert last.error.retry_delay_ms > 0
                assert await stream.read() is grpc.aio.EOF
                await draining

    asyncio.run(scene())


def test_a_call_that_is_late_is_dropped_before_the_kernel(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    released = threading.Event()

    def held(_: Any, key: Any, customer_ids: list[str]) -> list[bytes]:
        begun.append(1)
        assert released.wait(30)
        return [b""] * len(customer_ids)

    monkeypatch.setattr(match_service.MatchService, "_match_together", held)

    async def scene() -> None:
        async with listening(world, threads=1, deadline_s=0.2) as (gateway, client):
            first = asyncio.create_task(refused(client.one("c01")))
            while not begun:
                await asyncio.sleep(0.001)
            # It waits behind the first, and is late before a thread is free.
            second = client.one("c01")
            await refused_as(second, Code.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
            await first
            waiting = client.match.MatchCustomer(
                match_service_pb2.MatchCustomerRequest(customer_id="c01"), timeout=60
            )
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.sleep(0.05)
            released.set()
            await gateway._desk.run(lambda: None, remaining_s=60)
            assert len(begun) == 1

    asyncio.run(scene())


def test_a_fault_of_ours_is_told_without_a_word_of_the_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = io.StringIO()

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("c01 did it")

    monkeypatch.setattr(match_service.MatchService, "_match_together", broken)

    async def scene(client: Client) -> None:
        code, details = await refused(client.one("c01"))
        assert code is Code.INTERNAL
        assert "c01" not in str(details)

    served(world, scene, audit=audit)
    assert "ZeroDivisionError" in audit.getvalue()
    assert "c01" not in audit.getvalue()


def test_an_opportunity_id_says_whose_it_is_and_nothing_else_is_one() -> None:
    for customer_id, capability_id in (("a", "b"), ("été\0", "k" * 300), ("1:2", ":")):
        text = opportunity_namer(customer_id)(capability_id)
        assert named_opportunity(text, field="x", row=0) == (customer_id, capability_id)
        for wrong in (text[:-4], "A" + text[1:] if text[0] != "A" else "B" + text[1:], "", "é"):
            with pytest.raises(InputError):
                named_opportunity(wrong, field="x", row=0)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_command_serves_until_sigterm_and_ends_well(world: World, tmp_path: Path) -> None:
    world.catalog.write(tmp_path / "catalog.parquet")
    (tmp_path / "policy.toml").write_text("k = 3\nproduct_limit = 1\n")
    port = free_port()
    command = [
        sys.executable, "-m", "visavis.cli", "serve", "--base", str(tmp_path / "base"),
        "--catalog", str(tmp_path / "catalog.parquet"), "--policy", str(tmp_path / "policy.toml"),
        "--journal", str(tmp_path / "journal"), "--address", f"127.0.0.1:{port}", "--reflection",
        "--threads", "1",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("Serving: "):
                    break

            async def scene() -> None:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    assert (await Client(channel).one("c01")).opportunities

            asyncio.run(scene())
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(30) == 0, rest
        finally:
            process.kill()


def test_the_command_refuses_what_others_could_reach(world: World, tmp_path: Path) -> None:
    world.catalog.write(tmp_path / "catalog.parquet")
    said = refused_command(
        "serve", "--base", tmp_path / "base", "--catalog", tmp_path / "catalog.parquet",
        "--address", "0.0.0.0:8420",
    )  # fmt: skip
    assert "--address" in said
    assert "TLS" in said
