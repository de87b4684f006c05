"""Every call of the contract, asked by whom it does not let in: tokens and certificates."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from gateways import Client, Code, World, listening, refused_as
from test_gateway_doors import bearer, token_file
from visavis.gateway.audit import Audit
from visavis.gateway.entrance import SCOPE_OF
from visavis.gateway.server import Certificates
from visavis.gateway.tokens import SCOPES, TokenFile

STREAMED = {
    "StreamMatches": "stream_stream",
    "WatchJob": "unary_stream",
    "ReadResults": "unary_stream",
}

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificates"
)


@pytest.fixture(name="world")
def a_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


async def asked(client: Client, method: str, metadata: Any = ()) -> None:
    """The call, empty, to its end."""
    kind = STREAMED.get(method.rpartition("/")[2])
    if kind is None:
        await client.channel.unary_unary(method)(b"", metadata=metadata, timeout=30)
        return
    given = iter([b""]) if kind == "stream_stream" else b""
    call = getattr(client.channel, kind)(method)(given, metadata=metadata, timeout=30)
    async for _ in call:
        pass


def openssl(*command: str | Path) -> None:
    program = shutil.which("openssl") or "openssl"
    subprocess.run([program, *map(str, command)], check=True, capture_output=True)


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key,
                "-out", self.certificate)  # fmt: skip

    def signed(self, name: str, *, days: int = 2) -> tuple[Path, Path]:
        """A certificate of 127.0.0.1 and its key."""
        key, request = self._folder / f"{name}.key", self._folder / f"{name}.csr"
        certificate, extra = self._folder / f"{name}.pem", self._folder / f"{name}.ext"
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", key, "-out", request)  # fmt: skip
        extra.write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
                "-CAcreateserial", "-extfile", extra, "-out", certificate,
                "-days", str(days))  # fmt: skip
        return certificate, key


def credentials(roots: Path, own: tuple[Path, Path] | None) -> Any:
    """What a client trusts, and what it shows."""
    if own is None:
        return grpc.ssl_channel_credentials(roots.read_bytes())
    certificate, key = (path.read_bytes() for path in own)
    return grpc.ssl_channel_credentials(roots.read_bytes(), key, certificate)


def test_no_call_is_reached_with_a_wrong_certificate_or_without_one(world: World) -> None:
    ours = Authority(world.folder / "ours", "ours")
    theirs = Authority(world.folder / "theirs", "ours")
    certificate, key = ours.signed("gateway")
    chosen = Certificates(certificate, key, ours.certificate)
    access = io.StringIO()
    strangers = {
        "no certificate": credentials(ours.certificate, None),
        "signed by somebody else of the same name": credentials(
            ours.certificate, theirs.signed("client")
        ),
        "expired": credentials(ours.certificate, ours.signed("old", days=-1)),
        "no trust in the server": credentials(theirs.certificate, ours.signed("wary")),
        "no TLS": None,
    }

    async def scene() -> None:
        options = {"certificates": chosen, "access": Audit(access, event="access")}
        async with listening(world, jobs=str(world.folder / "jobs"), **options) as (gateway, _):
            address = f"127.0.0.1:{gateway.port}"
            for name, shown in strangers.items():
                if shown is None:
                    channel = grpc.aio.insecure_channel(address)
                else:
                    channel = grpc.aio.secure_channel(address, shown)
                async with channel:
                    client = Client(channel)
                    for method in SCOPE_OF:
                        with pytest.raises(grpc.aio.AioRpcError) as caught:
                            await asked(client, method)
                        assert caught.value.code() is Code.UNAVAILABLE, (name, method)
                    with pytest.raises(grpc.aio.AioRpcError):
                        await client.health.Check(health_pb2.HealthCheckRequest())
            assert not access.getvalue()
            known = credentials(ours.certificate, ours.signed("friend"))
            async with grpc.aio.secure_channel(address, known) as channel:
                assert (await Client(channel).one("c01")).opportunities

    asyncio.run(scene())
    assert len(access.getvalue().splitlines()) == 1


def test_a_known_certificate_does_not_stand_for_a_token(world: World) -> None:
    ours = Authority(world.folder / "ours", "ours")
    certificate, key = ours.signed("gateway")
    chosen = Certificates(certificate, key, ours.certificate)
    tokens = TokenFile(token_file(world.folder), today=lambda: date(2026, 1, 2))
    audit = io.StringIO()

    async def scene() -> None:
        options = {"certificates": chosen, "tokens": tokens, "audit": audit}
        known = credentials(ours.certificate, ours.signed("friend"))
        jobs = str(world.folder / "jobs")
        async with listening(world, jobs=jobs, has_reflection=True, **options) as (gateway, _):
            address = f"127.0.0.1:{gateway.port}"
            async with grpc.aio.secure_channel(address, known) as channel:
                client = Client(channel)
                for method, scope in SCOPE_OF.items():
                    unauthenticated = Code.UNAUTHENTICATED
                    await refused_as(asked(client, method), unauthenticated, "CREDENTIALS_MISSING")
                    for wrong in (bearer("nobody"), bearer("old"), (("authorization", "Bearer "),)):
                        call = asked(client, method, wrong)
                        await refused_as(call, unauthenticated, "CREDENTIALS_INVALID")
                    for other in set(SCOPES) - {scope}:
                        call = asked(client, method, bearer(other))
                        details = await refused_as(call, Code.PERMISSION_DENIED, "SCOPE_MISSING")
                        assert details["ErrorInfo"].metadata["scope"] == scope
                # What there is to call is not for everybody either; whether it stands is.
                reflection = client.channel.stream_stream(
                    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
                )
                call = reflection(iter([b""]))
                await refused_as(call.read(), Code.UNAUTHENTICATED, "CREDENTIALS_MISSING")
                assert (await client.health.Check(health_pb2.HealthCheckRequest())).status == 1

    asyncio.run(scene())
    lines = [json.loads(line) for line in audit.getvalue().splitlines()]
    # None, three that do not hold, four of other scopes; and reflection.
    assert len(lines) == len(SCOPE_OF) * (4 + len(SCOPES) - 1) + 1
    assert {line["caller"] for line in lines} == {"unknown"}
