"""The public contract: its style, its stability, and the Python that is generated from it."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

import visavis
from visavis.domain import FactKind, Link, Obstacle

ROOT = Path(__file__).parent.parent
PROTOS = sorted((ROOT / "proto").rglob("*.proto"))
IMAGE = "proto/visavis.v1.binpb"
GENERATED = Path(visavis.__file__).parent / "v1"

pytestmark = pytest.mark.skipif(not PROTOS, reason="needs the source tree")

#: The words that visavis does without (CONTRIBUTING.md), also in the plural.
UNUSED_WORDS = {"item", "user", "target", "lead", "data", "info", "manager", "helper", "util"}

#: What the contract must offer, call by call.
CALLS = {
    "MatchService": [
        "MatchCustomer", "MatchCustomers", "StreamMatches", "Explain", "FindAudience",
    ],
    "ProfileService": ["RecordFacts", "ForgetCustomer"],
    "CatalogService": ["GetServingInfo", "ListCapabilities", "PublishVersion"],
    "JobService": [
        "CreateRescoreJob", "GetJob", "ListJobs", "CancelJob", "WatchJob", "ReadResults",
    ],
}  # fmt: skip

#: Who streams: (client, server).
STREAMS = {
    "StreamMatches": (True, True),
    "WatchJob": (False, True),
    "ReadResults": (False, True),
}

SCOPES = {"read", "record", "publish", "jobs", "forget"}

#: The codes that a refused call may end with; nothing that a client can cause is INTERNAL.
CODES = {
    "ABORTED", "ALREADY_EXISTS", "DATA_LOSS", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION",
    "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED",
    "UNAVAILABLE",
}  # fmt: skip

FILES = [importlib.import_module(f"visavis.v1.{path.stem}_pb2").DESCRIPTOR for path in PROTOS]


def services() -> list[ServiceDescriptor]:
    return [service for file in FILES for service in file.services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    return [method for service in services() for method in service.methods]


def messages() -> Iterator[Descriptor]:
    for file in FILES:
        for message in file.message_types_by_name.values():
            yield message
            # Maps are nested messages that the compiler makes; ours are never nested.
            assert all(nested.GetOptions().map_entry for nested in message.nested_types)


def enums() -> list[EnumDescriptor]:
    return [enum for file in FILES for enum in file.enum_types_by_name.values()]


def run(command: list[str], cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "BUF_CACHE_DIR": str(cache)},
    )


def buf(tmp_path: Path, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "buf"
    assert program.exists(), "buf is among the requirements of the tests"
    return run([str(program), *arguments], root, tmp_path / "cache")


def protoc(tmp_path: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *arguments]
    done = run(command, ROOT, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The contract in a folder of its own, to be spoiled there."""
    shutil.copytree(ROOT / "proto", tmp_path / "copy" / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path / "copy")
    return tmp_path / "copy"


def spoil(root: Path, file: str, old: str, new: str) -> None:
    path = root / "proto" / "visavis" / "v1" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_committed_python_is_what_the_contract_generates(tmp_path: Path) -> None:
    sources = [str(path.relative_to(ROOT / "proto")) for path in PROTOS]
    calls = [source for source in sources if source.endswith("_service.proto")]
    protoc(tmp_path, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *sources)
    protoc(tmp_path, f"--grpc_python_out={tmp_path}", *calls)
    made = {path.name: path.read_bytes() for path in (tmp_path / "visavis" / "v1").iterdir()}
    held = {path.name: path.read_bytes() for path in GENERATED.glob("*_pb2*")}
    assert sorted(held) == sorted(made), "make proto"
    stale = [name for name, content in made.items() if held[name] != content]
    assert stale == [], "make proto"


@pytest.mark.parametrize("arguments", [("lint",), ("format", "--diff", "--exit-code")])
def test_the_contract_passes_bufs_rules(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = buf(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_contract_breaks_nothing_that_was_published(tmp_path: Path) -> None:
    done = buf(tmp_path, "breaking", "--against", IMAGE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_holds_everything_that_the_contract_holds(tmp_path: Path) -> None:
    # What is not in the image would not be watched: `make proto` puts it there.
    done = buf(tmp_path, "breaking", IMAGE, "--against", ".")
    assert (done.returncode, done.stdout) == (0, ""), "make proto"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("version.proto", "int64 journal_offset = 5;", "int64 journal_offset = 7;"),
        ("version.proto", "int64 base_version = 1;", "string base_version = 1;"),
        ("opportunity.proto", "  // 1 is the best.\n  int32 rank = 8;\n", ""),
        ("profile.proto", "FACT_KIND_EXCLUDED = 4;", "FACT_KIND_BARRED = 4;"),
        ("job_service.proto", "returns (stream WatchJobResponse)", "returns (WatchJobResponse)"),
    ],
)
def test_a_broken_contract_is_noticed(
    tmp_path: Path, copied: Path, file: str, old: str, new: str
) -> None:
    spoil(copied, file, old, new)
    done = buf(tmp_path, "breaking", "--against", IMAGE, root=copied)
    assert done.returncode == 100, done.stderr
    assert file in done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("opportunity.proto", "  // 1 is the best.\n", ""),
        ("errors.proto", "ERROR_REASON_OVERLOADED = 17", "OVERLOADED = 17"),
        ("job_service.proto", "returns (GetJobResponse)", "returns (CancelJobResponse)"),
        ("version.proto", "package visavis.v1;", "package visavis.v2;"),
    ],
)
def test_bad_style_and_missing_comments_are_noticed(
    tmp_path: Path, copied: Path, file: str, old: str, new: str
) -> None:
    spoil(copied, file, old, new)
    assert buf(tmp_path, "lint", root=copied).returncode == 100


def test_the_contract_offers_these_calls() -> None:
    assert {s.name: [m.name for m in s.methods] for s in services()} == CALLS


def test_every_call_has_messages_of_its_own() -> None:
    used = [message for method in methods() for message in (method.input_type, method.output_type)]
    assert [message.name for message in used] == [
        f"{method.name}{end}" for method in methods() for end in ("Request", "Response")
    ]
    assert len({message.full_name for message in used}) == 2 * len(methods())


def test_the_calls_that_stream_are_these() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    streams = {}
    for descriptor in FILES:
        descriptor.CopyToProto(file)
        for service in file.service:
            for method in service.method:
                streams[method.name] = (method.client_streaming, method.server_streaming)
    assert {name: kind for name, kind in streams.items() if any(kind)} == STREAMS


def test_every_enum_begins_with_an_unspecified_zero() -> None:
    assert len(enums()) >= 8
    for enum in enums():
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
        assert [v.name for v in enum.values if v.number == 0] == [f"{prefix}_UNSPECIFIED"]
        assert sorted(v.number for v in enum.values) == list(range(len(enum.values)))


def test_the_package_is_the_folder() -> None:
    for file in FILES:
        assert file.package == "visavis.v1"
        assert Path(file.name).parent == Path("visavis/v1")


def test_the_contract_needs_nothing_but_protobuf_itself() -> None:
    needed = {other.name for file in FILES for other in file.dependencies}
    outside = {name for name in needed if not name.startswith("visavis/v1/")}
    assert outside == {"google/protobuf/timestamp.proto"}


def names() -> Iterator[str]:
    for service in services():
        yield service.name
        yield from (method.name for method in service.methods)
    for message in messages():
        yield message.name
        yield from (field.name for field in message.fields)
        yield from (oneof.name for oneof in message.oneofs)
    for enum in enums():
        yield enum.name
        yield from (value.name for value in enum.values)


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_names_are_made_of_the_words_of_visavis() -> None:
    unused = UNUSED_WORDS | {f"{word}s" for word in UNUSED_WORDS}
    assert words_of("userId") & unused
    assert words_of("ITEM_LEADS") & unused == {"leads", "item"}
    wrong = {name for name in names() if words_of(name) & unused}
    allowed = {"GetServingInfo", "GetServingInfoRequest", "GetServingInfoResponse"}
    assert wrong == allowed


def reaches(message: Descriptor, wanted: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether a message is, or holds at some depth, a message of that name."""
    if message.name == wanted:
        return True
    if message.name in seen:
        return False
    return any(
        field.message_type is not None
        and reaches(field.message_type, wanted, seen | {message.name})
        for field in message.fields
    )


def test_every_answer_names_its_version() -> None:
    for method in methods():
        assert reaches(method.output_type, "ServingVersion"), method.name


def test_a_version_names_base_catalog_policy_journal_and_day() -> None:
    (version,) = (message for message in messages() if message.name == "ServingVersion")
    assert [field.name for field in version.fields] == [
        "base_version", "base_digest", "catalog_digest", "policy_digest", "journal_offset", "as_of",
    ]  # fmt: skip


def test_pages_are_asked_for_by_size_and_token() -> None:
    paged = set()
    for method in methods():
        asked = {field.name for field in method.input_type.fields}
        answered = {field.name for field in method.output_type.fields}
        is_paged = {name in asked for name in ("page_size", "page_token")}
        is_paged.add("next_page_token" in answered)
        assert len(is_paged) == 1, method.name
        if is_paged == {True}:
            paged.add(method.name)
    assert paged == {"FindAudience", "ListCapabilities", "ListJobs"}


def test_what_must_not_happen_twice_has_a_request_id() -> None:
    with_id = {
        method.name for method in methods() if "request_id" in method.input_type.fields_by_name
    }
    assert with_id == {"RecordFacts", "PublishVersion", "CreateRescoreJob"}


def test_bulk_columns_are_bytes_and_dictionaries() -> None:
    (columns,) = (message for message in messages() if message.name == "OpportunityColumns")
    kinds = {(field.is_repeated, field.type) for field in columns.fields}
    assert kinds == {(False, FieldDescriptor.TYPE_BYTES), (True, FieldDescriptor.TYPE_STRING)}


def labels(name: str) -> set[str]:
    (enum,) = (enum for enum in enums() if enum.name == name)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower() for value in enum.values if value.number}


def test_kinds_of_facts_and_links_are_those_of_visavis() -> None:
    assert labels("FactKind") == set(FactKind)
    assert labels("Link") == {link.label for link in Link}


def test_every_obstacle_of_the_engine_is_one_of_the_contract() -> None:
    ours = [each.name.lower() for each in Obstacle]
    assert set(ours) == labels("Obstacle") - {"none", "context"}
    (enum,) = (enum for enum in enums() if enum.name == "Obstacle")
    numbers = [enum.values_by_name[f"OBSTACLE_{each.name}"].number for each in Obstacle]
    assert numbers == sorted(numbers)


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands before each service, call and enum value, by its name."""
    folder = tmp_path_factory.mktemp("comments")
    sources = [str(path.relative_to(ROOT / "proto")) for path in PROTOS]
    out = folder / "all.binpb"
    protoc(folder, "--include_source_info", f"--descriptor_set_out={out}", *sources)
    found = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        for location in file.source_code_info.location:
            holder: Any = file
            path = list(location.path)
            for number, index in zip(path[::2], path[1::2], strict=False):
                name = holder.DESCRIPTOR.fields_by_number[number].name
                holder = getattr(holder, name)[index]
            if len(path) in (2, 4) and location.leading_comments:
                found[holder.name] = location.leading_comments
    return found


def test_every_reason_says_its_code(comments: dict[str, str]) -> None:
    (reasons,) = (enum for enum in enums() if enum.name == "ErrorReason")
    codes = set()
    for value in reasons.values[1:]:
        code = re.match(r" ([A-Z_]+)[:.;]", comments[value.name])
        assert code is not None, value.name
        codes.add(code.group(1))
    assert codes == CODES


def test_every_call_says_what_scope_it_needs(comments: dict[str, str]) -> None:
    needed = {}
    for service in services():
        for method in service.methods:
            said = re.findall(r"scope\s+`(\w+)`", comments[method.name]) or re.findall(
                r"scope\s+`(\w+)`", comments[service.name]
            )
            assert len(said) == 1, method.name
            needed[method.name] = said[0]
    assert set(needed.values()) == SCOPES
    assert needed["ForgetCustomer"] == "forget"


def test_every_service_says_how_its_calls_fail(comments: dict[str, str]) -> None:
    for service in services():
        for word in ("INVALID_ARGUMENT", "BadRequest", "ErrorInfo", "RetryInfo", "UNAVAILABLE"):
            assert word in comments[service.name], service.name


def loaded_by(module: str) -> set[str]:
    script = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["visavis", "visavis.cli", "visavis.v1"])
def test_importing_visavis_loads_neither_grpc_nor_protobuf(module: str) -> None:
    assert not loaded_by(module) & {"grpc", "google.protobuf"}


def test_messages_need_protobuf_and_only_stubs_need_grpc() -> None:
    assert "grpc" not in loaded_by("visavis.v1.match_service_pb2")
    assert "grpc" in loaded_by("visavis.v1.match_service_pb2_grpc")
