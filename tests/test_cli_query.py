"""`visavis query`: a gateway asked from the shell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from clients import gateway_of
from commands import call, done, refused
from gateways import World
from test_gateway_doors import certificates, token_file
from visavis.client import Client
from visavis.gateway.tokens import TokenFile


@pytest.fixture(name="world", scope="module")
def a_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(name="address", scope="module")
def an_address(world: World) -> Iterator[str]:
    with gateway_of(world) as address:
        yield address


def test_a_customer_is_matched(address: str) -> None:
    with Client(address) as client:
        wanted = client.match("c01")
    as_json = done("query", "match", "c01", "--address", address, "--json").json()
    version = as_json.pop("version")
    assert version["as_of"] == "2026-03-01"
    assert as_json["notice"] is None
    assert [each["capability_id"] for each in as_json["opportunities"]] == [
        each.capability_id for each in wanted.opportunities
    ]
    assert as_json["opportunities"][0]["reasons"] == [
        asdict(each) for each in wanted.opportunities[0].reasons
    ]
    shown = done("query", "match", "c01", "--address", address).output
    for each in wanted.opportunities:
        assert each.capability_id in shown
        assert each.message in shown
    assert "as of 2026-03-01" in shown
    few = done(
        "query", "match", "c01", "--address", address, "-k", 1, "--channel", "shop",
        "--reasons", 0, "--json",
    ).json()["opportunities"]  # fmt: skip
    assert [(each["channel"], each["reasons"]) for each in few] == [("shop", [])]
    assert "no opportunity" in done("query", "match", "c13", "--address", address).output


def test_a_customer_is_explained(address: str) -> None:
    asked = ("query", "explain", "c13", "k00", "--address", address)
    assert done(*asked, "--json").json()["obstacle"] == "OBJECTION"
    shown = done(*asked).output
    assert "c13 × k00" in shown
    assert "objection" in shown
    best = done("query", "match", "c01", "--address", address, "--json").json()["opportunities"][0]
    shown = done("query", "explain", "c01", best["capability_id"], "--address", address).output
    assert f"expected value {best['expected_value']:.4f}" in shown


def test_an_audience_is_found(address: str) -> None:
    asked = ("query", "audience", "k05", "-k", 4, "--address", address)
    found = done(*asked, "--reach", "--json").json()
    assert len(found["members"]) == 4
    assert 0 < found["reach_count"] <= found["eligible_count"]
    shown = done(*asked).output
    assert all(each["customer_id"] in shown for each in found["members"])


def test_what_is_served_is_told(address: str, world: World) -> None:
    found = done("query", "info", "--address", address, "--json").json()
    assert found["version"]["catalog_digest"] == world.catalog.digest()
    shown = done("query", "info", "--address", address).output
    assert world.catalog.digest() in shown
    assert "mail 10" in shown


def test_errors_are_one_line_and_name_the_option(address: str) -> None:
    asked = ("query", "match", "c01", "--address", address)
    assert refused(*asked, "--as-of", "soon").startswith("--as-of: must be an ISO date")
    assert refused(*asked, "--as-of", "2020-01-01").startswith("--as-of: ")
    assert refused(*asked, "-k", 9).startswith("-k: must be at most 3")
    assert refused(*asked, "--timeout", 0).startswith("--timeout: ")
    assert refused(*asked, "--reasons", 999).startswith("--reasons: ")
    assert refused(*asked, "--tls-key", "key.pem").startswith("--tls-ca")
    assert "nobody" in refused("query", "match", "nobody", "--address", address)
    assert "k99" in refused("query", "explain", "c01", "k99", "--address", address)
    assert refused("query", "audience", "k05", "-k", 0, "--address", address).startswith("-k: ")
    assert refused("query", "info", "--address", "").startswith("--address: ")
    refused("query", "info", "--address", "127.0.0.1:1", status=3)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_the_token_comes_from_a_file_or_the_environment(world: World, tmp_path: Path) -> None:
    files = certificates(tmp_path)
    tokens = TokenFile(token_file(tmp_path))
    held = tmp_path / "token"
    held.write_text("token of read\n")
    with gateway_of(world, certificates=files, tokens=tokens) as address:
        asked = ("query", "info", "--address", address, "--tls-ca", files.certificate)
        assert done(*asked, "--token-file", held).output
        assert call(*asked, env={"VISAVIS_TOKEN": "token of read"}).status == 0
        assert "bearer token" in refused(*asked)
        held.write_text("another")
        assert "unknown or has expired" in refused(*asked, "--token-file", held)
        held.write_bytes(b"\xff")
        assert refused(*asked, "--token-file", held).startswith("--token-file: ")
    held.write_text("secret")
    said = refused("query", "info", "--address", "example.org:1", "--token-file", held)
    assert said.startswith("--token-file: a token goes to another machine under TLS alone")
    assert "secret" not in said
