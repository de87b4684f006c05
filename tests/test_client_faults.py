"""The client against servers that fail: what is repeated, what is told, what is verified."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import grpc
import pyarrow as pa
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from clients import KINDS, client_of, gateway_of, server_of
from gateways import World
from test_gateway_doors import certificates, token_file
from visavis.client import (
    AccessError,
    Certificates,
    Client,
    DamageError,
    DeadlineError,
    GatewayError,
    JobState,
    OverloadedError,
    RequestError,
    ServerError,
    StateError,
    UnavailableError,
    UnknownIdError,
    UnsupportedError,
    VersionChangedError,
    channel,
    decoding,
)
from visavis.client import jobs as job_plans
from visavis.client.columns import Overrides
from visavis.client.errors import error_of_call
from visavis.client.frames import Window
from visavis.digest import canonical_digest
from visavis.engine import OPPORTUNITY_SCHEMA
from visavis.errors import CorruptionError, InputError, NotFoundError, SetupError
from visavis.gateway import incoming, server
from visavis.gateway.errors import Fault, status_of
from visavis.gateway.tokens import TokenFile
from visavis.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    errors_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    match_service_pb2,
    match_service_pb2_grpc,
    profile_pb2,
    profile_service_pb2,
    profile_service_pb2_grpc,
    version_pb2,
)

Code = grpc.StatusCode
VERSION = version_pb2.ServingVersion(base_version=1, journal_offset=7, as_of="2026-03-01")


def abort(call: Any, fault: Fault) -> None:
    status = status_of(fault)
    call.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    call.abort(fault.code, status.message)


class Matching(match_service_pb2_grpc.MatchServiceServicer):  # type: ignore[misc]
    """Answers as it is told, one behaviour for each call."""

    def __init__(self, *behaviours: Callable[[Any, Any], Any]) -> None:
        self.behaviours = list(behaviours)
        self.requests: list[Any] = []

    def _next(self, request: Any, call: Any) -> Any:
        self.requests.append(request)
        return self.behaviours.pop(0)(request, call)

    MatchCustomer = Explain = MatchCustomers = FindAudience = StreamMatches = _next


def fails(code: Any, reason: str = "UNSPECIFIED", **more: Any) -> Callable[[Any, Any], Any]:
    def behaviour(_: Any, call: Any) -> Any:
        abort(call, Fault(code, reason, "so it is", **more))

    return behaviour


def answers(request: Any, _: Any) -> Any:
    return match_service_pb2.MatchCustomerResponse(version=VERSION, customer_id=request.customer_id)


def matching(servicer: Any) -> Any:
    return match_service_pb2_grpc.add_MatchServiceServicer_to_server, servicer


@pytest.fixture(name="kind", params=KINDS)
def a_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_unavailable_alone_is_repeated(kind: str) -> None:
    away = fails(Code.UNAVAILABLE, "NOT_READY", retry_s=1.5)
    servicer = Matching(away, away, answers, *[away] * 9)
    with server_of(matching(servicer)) as target, client_of(kind, target) as client:
        assert client.match("c01").version.journal_offset == 7
        assert len(servicer.requests) == 3
        with pytest.raises(UnavailableError) as caught:
            client.match("c01")
        assert (caught.value.reason, caught.value.retry_s) == ("NOT_READY", 1.5)
        assert len(servicer.requests) == 3 + channel.ATTEMPTS_MAX


CASES: list[tuple[Any, str, type[GatewayError], type[Exception]]] = [
    (Code.INVALID_ARGUMENT, "INVALID_RULE", RequestError, ValueError),
    (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", RequestError, ValueError),
    (Code.NOT_FOUND, "UNKNOWN_JOB", UnknownIdError, NotFoundError),
    (Code.ABORTED, "VERSION_CHANGED", VersionChangedError, GatewayError),
    (Code.FAILED_PRECONDITION, "JOURNAL_ABSENT", StateError, SetupError),
    (Code.RESOURCE_EXHAUSTED, "OVERLOADED", OverloadedError, SetupError),
    (Code.DATA_LOSS, "CORRUPTED", DamageError, CorruptionError),
    (Code.UNAUTHENTICATED, "CREDENTIALS_INVALID", AccessError, GatewayError),
    (Code.PERMISSION_DENIED, "SCOPE_MISSING", AccessError, GatewayError),
    (Code.DEADLINE_EXCEEDED, "DEADLINE_PASSED", DeadlineError, SetupError),
    (Code.UNIMPLEMENTED, "UNSPECIFIED", UnsupportedError, SetupError),
    (Code.INTERNAL, "UNSPECIFIED", ServerError, SetupError),
    (Code.UNKNOWN, "A_REASON_OF_TOMORROW", ServerError, SetupError),
]


@pytest.mark.parametrize(("code", "reason", "wanted", "related"), CASES)
def test_every_code_has_its_error_and_is_sent_once(
    kind: str, code: Any, reason: str, wanted: type[GatewayError], related: type[Exception]
) -> None:
    told = {"metadata": {"position": "7"}, "retry_s": 2.25, "resource": ("job", "j1")}
    servicer = Matching(fails(code, reason, field="draft.rule", row=3, **told), answers)
    with (
        server_of(matching(servicer)) as target,
        client_of(kind, target) as client,
        pytest.raises(wanted) as caught,
    ):
        client.match("c01")
    error = caught.value
    assert isinstance(error, related)
    assert type(error) is wanted
    assert (error.code, error.reason, error.metadata) == (code, reason, {"position": "7"})
    assert (error.retry_s, error.resource) == (2.25, ("job", "j1"))
    assert error.field == ("draft.rule[3]" if code is Code.INVALID_ARGUMENT else None)
    assert error.message == "so it is"
    assert len(servicer.requests) == 1
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (made two lines above)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_a_status_without_details_or_with_broken_ones_keeps_its_code(kind: str) -> None:
    def bare(_: Any, call: Any) -> Any:
        call.abort(Code.RESOURCE_EXHAUSTED, "too much")

    def broken(_: Any, call: Any) -> Any:
        call.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        call.abort(Code.INTERNAL, "odd")

    def foreign(_: Any, call: Any) -> Any:
        status = status_of(Fault(Code.NOT_FOUND, "UNKNOWN_JOB", "no"))
        status.details.append(AnyMessage(type_url="type.googleapis.com/a.B", value=b"x"))
        call.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        call.abort(Code.NOT_FOUND, "no")

    servicer = Matching(bare, broken, foreign)
    with server_of(matching(servicer)) as target, client_of(kind, target) as client:
        with pytest.raises(OverloadedError, match="too much") as caught:
            client.match("c01")
        assert caught.value.reason == "UNSPECIFIED"
        with pytest.raises(ServerError, match="odd"):
            client.match("c01")
        with pytest.raises(UnknownIdError) as unknown:
            client.match("c01")
        assert unknown.value.reason == "UNKNOWN_JOB"


def test_bytes_that_are_no_details_or_no_table_crash_nothing() -> None:
    rng = random.Random(6)

    def damaged(content: bytes) -> bytes:
        kept = bytearray(content[: rng.randrange(1, len(content) + 1)])
        for _ in range(rng.randrange(3)):
            kept[rng.randrange(len(kept))] = rng.randrange(256)
        return bytes(kept)

    fault = Fault(Code.NOT_FOUND, "UNKNOWN_JOB", "no", retry_s=1e15, resource=("job", "j"))
    details, table = status_of(fault).SerializeToString(), arrow_of(["a", "b", "c"])
    for _ in range(2_000):
        trailers = (("grpc-status-details-bin", damaged(details)),)
        failed = mock.Mock()
        failed.code.return_value, failed.details.return_value = Code.NOT_FOUND, "no"
        failed.trailing_metadata.return_value = trailers
        assert isinstance(error_of_call(failed), UnknownIdError)
        try:
            decoding.table_of(damaged(table))
        except ServerError:
            continue


def test_a_deadline_holds_whatever_the_server_does(kind: str) -> None:
    held = threading.Event()
    seen: list[float] = []

    def waits(request: Any, call: Any) -> Any:
        seen.append(call.time_remaining())
        held.wait(30)
        return answers(request, call)

    servicer = Matching(waits, waits)
    with server_of(matching(servicer)) as target:
        try:
            with client_of(kind, target, timeout_s=0.2) as client, pytest.raises(DeadlineError):
                client.match("c01")
            with client_of(kind, target) as client, pytest.raises(DeadlineError):
                client.match("c01", timeout_s=0.1)
        finally:
            held.set()
    # What gRPC tells is rounded, and on a busy machine these may be over before they arrive.
    assert all(each < 1.0 for each in seen)
    with server_of(matching(Matching(waits))) as target, client_of(kind, target) as client:
        client.match("c01")
    assert 0 < seen[-1] < 2 * channel.TIMEOUT_S


def test_nobody_there_is_unavailable_soon(kind: str) -> None:
    with client_of(kind, "127.0.0.1:1") as client, pytest.raises(UnavailableError):
        client.match("c01")


class Recording(profile_service_pb2_grpc.ProfileServiceServicer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.ids: list[str] = []

    def RecordFacts(self, request: Any, call: Any) -> Any:  # noqa: N802
        self.ids.append(request.request_id)
        if len(self.ids) % 3:
            abort(call, Fault(Code.UNAVAILABLE, "STORAGE_FAILED", "the disk"))
        return profile_service_pb2.RecordFactsResponse(version=VERSION)


def test_a_record_keeps_its_id_while_it_is_repeated(kind: str) -> None:
    servicer = Recording()
    added = profile_service_pb2_grpc.add_ProfileServiceServicer_to_server, servicer
    with server_of(added) as target, client_of(kind, target) as client:
        first = client.record_facts(objections=["c01"]).request_id
        second = client.record_facts(objections=["c01"]).request_id
        client.record_facts(objections=["c01"], request_id="mine")
    assert servicer.ids == [first] * 3 + [second] * 3 + ["mine"] * 3
    assert first != second


class Informing(catalog_service_pb2_grpc.CatalogServiceServicer):  # type: ignore[misc]
    def GetServingInfo(self, request: Any, call: Any) -> Any:  # noqa: ARG002, N802
        told = catalog_service_pb2.GetServingInfoResponse(version=VERSION)
        told.policy.k = 1
        told.limits.message_bytes_max = 4 * 2**20
        told.limits.customer_count_max = 2
        return told


def informing() -> Any:
    return catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server, Informing()


def arrow_of(ids: list[str]) -> bytes:
    table = pa.table(
        {
            "customer_id": pa.array(ids, pa.string()).dictionary_encode(),
            "capability_id": pa.array(ids, pa.string()).dictionary_encode(),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def at(offset: int) -> Callable[[Any, Any], Any]:
    def behaviour(request: Any, _: Any) -> Any:
        version = version_pb2.ServingVersion()
        version.CopyFrom(VERSION)
        version.journal_offset = offset
        ids = list(request.ids.customer_ids)
        return match_service_pb2.MatchCustomersResponse(
            version=version, customer_count=len(ids), arrow=arrow_of(ids)
        )

    return behaviour


def test_pieces_behind_the_newest_version_are_asked_again(kind: str) -> None:
    ids = ["a", "b", "c", "d", "e"]
    servicer = Matching(at(1), at(2), at(2), at(3), at(3), at(3), *map(at, range(4, 40)))
    with server_of(matching(servicer), informing()) as target, client_of(kind, target) as client:
        batch = client.match_many(ids)
        assert batch.version.journal_offset == 3
        assert batch.table["customer_id"].to_pylist() == ids
        asked = [list(each.ids.customer_ids) for each in servicer.requests]
        assert asked == [ids[:2], ids[2:4], ids[4:], ids[:2], ids[2:4], ids[4:]]
        with pytest.raises(VersionChangedError, match="use a stream"):
            client.match_many(ids)


def test_what_is_wrong_with_a_later_piece_says_where_its_rows_begin(kind: str) -> None:
    wrong = fails(Code.INVALID_ARGUMENT, "INVALID_VALUE", field="ids.customer_ids", row=1)
    servicer = Matching(at(1), wrong)
    with (
        server_of(matching(servicer), informing()) as target,
        client_of(kind, target) as client,
        pytest.raises(RequestError, match="counted from row 2 of the batch") as caught,
    ):
        client.match_many(["a", "b", "c"])
    assert caught.value.field == "ids.customer_ids[1]"


def frames_back(skipped: frozenset[int]) -> Callable[[Any, Any], Iterator[Any]]:
    def behaviour(frames: Any, _: Any) -> Iterator[Any]:
        for frame in frames:
            if frame.frame_id in skipped:
                continue
            told = match_service_pb2.StreamMatchesResponse(frame_id=frame.frame_id)
            if frame.frame_id % 2:
                told.error.code = Code.UNAVAILABLE.value[0]
                told.error.reason = errors_pb2.ERROR_REASON_DRAINING
                told.error.retry_delay_ms = 250
            else:
                told.match.CopyFrom(at(1)(frame.match, None))
            yield told

    return behaviour


def test_streams_tell_frames_that_failed_and_those_nobody_answered(kind: str) -> None:
    servicer = Matching(frames_back(frozenset()), frames_back(frozenset({2})))
    with server_of(matching(servicer), informing()) as target, client_of(kind, target) as client:
        frames = list(client.stream([["a"], ["b"], ["c"]]))
        assert [each.index for each in frames] == [0, 1, 2]
        failed = frames[1].error
        assert isinstance(failed, UnavailableError)
        assert (failed.reason, failed.retry_s) == ("DRAINING", 0.25)
        with pytest.raises(ServerError, match="without answers to 1 frame"):
            list(client.stream([["a"], ["b"], ["c"]]))


def test_a_frame_that_is_never_answered_ends_the_stream(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    rings = iter([False, False, True])
    monkeypatch.setattr(Window, "is_due", lambda *_: next(rings))

    def silent(frames: Any, _: Any) -> Iterator[Any]:
        next(frames)
        held.wait(30)
        yield from ()

    servicer = Matching(silent)
    with server_of(matching(servicer), informing()) as target, client_of(kind, target) as client:
        try:
            with pytest.raises(DeadlineError, match="next answer"):
                list(client.stream([["a"]], timeout_s=0.05))
        finally:
            held.set()
    assert next(rings, None) is None


def test_a_frame_is_due_from_when_it_was_sent_and_nobody_waits_for_none() -> None:
    window = Window([["a"]], lambda _: match_service_pb2.MatchCustomersRequest(), 1)
    window.room = threading.Semaphore(1)
    assert not window.is_due(0.0)
    (frame,) = [next(window.messages())]
    assert window.is_due(0.0)
    assert not window.is_due(1000.0)
    window.taken(next(frames_back(frozenset())(iter([frame]), None)))
    assert not window.is_due(0.0)
    with pytest.raises(ServerError, match="is not open"):
        window.taken(match_service_pb2.StreamMatchesResponse(frame_id=9))


def rows_of(part: int, count: int) -> pa.Table:
    ids = [f"p{part}-{row}" for row in range(count)]
    ranks, capabilities = pa.array([1] * count, pa.int32()), pa.array(["k"] * count, pa.string())
    schema = pa.schema(list(OPPORTUNITY_SCHEMA)[:3])
    return pa.Table.from_arrays([pa.array(ids, pa.string()), ranks, capabilities], schema=schema)


def result_frames() -> list[Any]:
    """Three parts of two frames, one and one without rows."""
    digests = []
    frames = []
    for part, sizes in enumerate(((2, 1), (3,), (0,))):
        tables, start = [], 0
        whole = rows_of(part, sum(sizes))
        digests.append(canonical_digest(whole))
        for size in sizes:
            tables.append(whole.slice(start, size))
            start += size
        for place, table in enumerate(tables):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            content = sink.getvalue().to_pybytes()
            is_end = place == len(tables) - 1
            frames.append(
                job_service_pb2.ReadResultsResponse(
                    version=VERSION,
                    arrow=content,
                    arrow_sha256=hashlib.sha256(content).hexdigest(),
                    resume_token=str(len(frames) + 1),
                    part_index=part,
                    row_count=table.num_rows,
                    is_part_end=is_end,
                    part_digest=digests[part] if is_end else "",
                )
            )
    frames[-1].result_digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return frames


class Jobs(job_service_pb2_grpc.JobServiceServicer):  # type: ignore[misc]
    """Jobs in memory; a reading breaks off behind the frames that `breaks` names."""

    def __init__(self, frames: list[Any], breaks: tuple[int, ...] = ()) -> None:
        self.frames = frames
        self.breaks = list(breaks)
        self.tokens: list[str] = []
        self.watches = 0

    def _job(self, job_id: str, state: str = "RUNNING") -> Any:
        job = job_service_pb2.Job(
            job_id=job_id, state=f"JOB_STATE_{state}", version=VERSION, part_count=3
        )
        job.create_time.FromDatetime(datetime(2026, 3, 1, 12, tzinfo=UTC))
        if state == "FAILED":
            job.error.reason = errors_pb2.ERROR_REASON_CORRUPTED
        return job

    def CreateRescoreJob(self, request: Any, call: Any) -> Any:  # noqa: ARG002, N802
        created = job_service_pb2.CreateRescoreJobResponse(job=self._job("j1", "PENDING"))
        created.job.reason_count = request.reason_count
        return created

    def GetJob(self, request: Any, call: Any) -> Any:  # noqa: N802
        if request.job_id != "j1":
            resource = ("job", request.job_id)
            abort(call, Fault(Code.NOT_FOUND, "UNKNOWN_JOB", "no", resource=resource))
        return job_service_pb2.GetJobResponse(job=self._job("j1", "FAILED"))

    def ListJobs(self, request: Any, call: Any) -> Any:  # noqa: ARG002, N802
        start = int(request.page_token or 0)
        token = str(start + 2) if start < 2 else ""
        ids = [f"j{start + place}" for place in range(2)]
        listed = [self._job(each) for each in ids]
        return job_service_pb2.ListJobsResponse(jobs=listed, next_page_token=token)

    def CancelJob(self, request: Any, call: Any) -> Any:  # noqa: ARG002, N802
        return job_service_pb2.CancelJobResponse(job=self._job(request.job_id, "CANCELLED"))

    def WatchJob(self, request: Any, call: Any) -> Iterator[Any]:  # noqa: ARG002, N802
        self.watches += 1
        told = job_service_pb2.WatchJobResponse
        if self.watches == 1:
            yield told(job=self._job("j1", "PENDING"))
            yield told(job=self._job("j1", "RUNNING"))
            abort(call, Fault(Code.UNAVAILABLE, "DRAINING", "about to stop"))
        yield told(job=self._job("j1", "RUNNING"))
        yield told(job=self._job("j1", "SUCCEEDED"))

    def ReadResults(self, request: Any, call: Any) -> Iterator[Any]:  # noqa: N802
        self.tokens.append(request.resume_token)
        for place in range(int(request.resume_token or 0), len(self.frames)):
            if place in self.breaks:
                self.breaks.remove(place)
                abort(call, Fault(Code.UNAVAILABLE, "DRAINING", "about to stop", retry_s=0.01))
            yield self.frames[place]
        if len(self.frames) in self.breaks:
            self.breaks.remove(len(self.frames))
            abort(call, Fault(Code.UNAVAILABLE, "DRAINING", "about to stop"))


def jobs_of(servicer: Jobs) -> Any:
    return job_service_pb2_grpc.add_JobServiceServicer_to_server, servicer


def test_jobs_are_made_listed_watched_and_cancelled(kind: str) -> None:
    servicer = Jobs([])
    with server_of(jobs_of(servicer)) as target, client_of(kind, target) as client:
        made = client.create_rescore_job(reasons=3, as_of="2026-03-01")
        assert (made.job.state, made.job.reason_count) == (JobState.PENDING, 3)
        assert made.job.create_time == datetime(2026, 3, 1, 12, tzinfo=UTC)
        assert (made.job.start_time, made.job.result_digest) == (None, None)
        failed = client.job("j1")
        assert failed.state.has_ended
        assert failed.error.reason == "CORRUPTED"
        assert [each.job_id for each in client.jobs(job_state=JobState.RUNNING)] == [
            *("j0", "j1", "j2", "j3")
        ]
        assert client.cancel_job("j1").state is JobState.CANCELLED
        # Taken up again where it broke off, and nothing told twice.
        assert [each.state.value for each in client.watch_job("j1")] == [
            *("pending", "running", "succeeded")
        ]
        with pytest.raises(UnknownIdError) as caught:
            client.job("j2")
        assert caught.value.resource == ("job", "j2")


@pytest.mark.parametrize("breaks", [(), (0,), (1, 1, 3), (4,), (2, 4)])
def test_results_are_read_on_where_they_broke_off(kind: str, breaks: tuple[int, ...]) -> None:
    servicer = Jobs(result_frames(), breaks)
    with server_of(jobs_of(servicer)) as target, client_of(kind, target) as client:
        frames = list(client.read_results("j1"))
        # What broke off behind the last frame has told everything.
        again = [place for place in breaks if place < len(servicer.frames)]
        assert servicer.tokens == ["", *(str(place or "") for place in again)]
        whole = pa.concat_tables([rows_of(0, 3), rows_of(1, 3), rows_of(2, 0)])
        assert pa.concat_tables([each.table for each in frames]).equals(whole)
        assert [each.part_index for each in frames if each.is_part_end] == [0, 1, 2]
        rest = list(client.read_results("j1", resume_token=frames[0].resume_token))
        assert pa.concat_tables([each.table for each in rest]).equals(whole.slice(2))
        assert list(client.read_results("j1", resume_token=frames[-1].resume_token)) == []


def _flipped(frames: list[Any]) -> None:
    frames[1].arrow = bytes(reversed(frames[1].arrow))


def _rows_swapped(frames: list[Any]) -> None:
    frames[0].arrow, frames[0].row_count = frames[1].arrow, 1
    frames[0].arrow_sha256 = frames[1].arrow_sha256


def _part_skipped(frames: list[Any]) -> None:
    del frames[2]


def _wrong_result(frames: list[Any]) -> None:
    frames[-1].result_digest = "0" * 64


def _truncated(frames: list[Any]) -> None:
    del frames[-1]


def _two_versions(frames: list[Any]) -> None:
    frames[1].version.journal_offset = 8


def _miscounted(frames: list[Any]) -> None:
    frames[0].row_count = 9


def _behind_the_end(frames: list[Any]) -> None:
    frames.append(frames[-1])


@pytest.mark.parametrize(
    "damage",
    [
        *(_flipped, _rows_swapped, _part_skipped, _wrong_result, _truncated, _two_versions),
        *(_miscounted, _behind_the_end),
    ],
)
def test_results_that_are_damaged_are_not_taken_for_whole(
    kind: str, damage: Callable[[list[Any]], None]
) -> None:
    frames = result_frames()
    damage(frames)
    with (
        server_of(jobs_of(Jobs(frames))) as target,
        client_of(kind, target) as client,
        pytest.raises(DamageError),
    ):
        list(client.read_results("j1"))


def test_a_server_that_stays_away_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_plans, "_BACKOFF_S", 0.01)
    servicer = Jobs(result_frames(), (1,) * 1000)
    with (
        server_of(jobs_of(servicer)) as target,
        client_of(kind, target) as client,
        pytest.raises(UnavailableError),
    ):
        list(client.read_results("j1", timeout_s=0.2))
    assert len(servicer.tokens) > 2


def test_overrides_travel_row_by_row() -> None:
    info: Any = SimpleNamespace(
        indicator_names=("days", "spend"), attributes={"age": "int64", "name": "string"}
    )
    table = pa.table({"spend": [1.5, None, 3.0], "age": [None, 4, 5], "name": ["x", None, "z"]})
    overrides = Overrides.of(table, info, 3).message(1, 3)
    assert isinstance(overrides, profile_pb2.OverrideColumns)
    names, values, given = incoming.indicator_cells(
        overrides.indicators, ("days", "spend"), 2, field="x"
    )
    at = list(names).index("spend")
    assert values[:, at].tolist() == [0.0, 3.0]
    assert given[:, at].tolist() == [False, True]
    assert not given[:, [each for each in range(len(names)) if each != at]].any()
    schema = pa.schema({"age": pa.int64(), "name": pa.string()})
    columns = [
        incoming.attribute_column(each, schema, 2, field="x").to_pylist()
        for each in overrides.attributes
    ]
    assert columns == [[4, 5], [None, "z"]]


def test_a_token_is_shown_to_this_machine_or_under_tls_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target in ("example.org:8420", "10.0.0.1:8420", "dns:///127.0.0.1:8420", "127.0.0.1.x:1"):
        with pytest.raises(InputError, match="under TLS alone"):
            Client(target, token="secret")  # noqa: S106
    for token in ("", "two\nlines", "ümlaut", " x", 7):
        with pytest.raises(InputError) as caught:
            Client("127.0.0.1:1", token=token)  # type: ignore[arg-type]
        assert caught.value.field == "token"
    with pytest.raises(InputError, match="go together"):
        Certificates(certificate="cert.pem")
    with pytest.raises(InputError) as caught:
        Client("example.org:1", certificates=Certificates(tmp_path / "none.pem"))
    assert caught.value.field == "certificates"
    assert "secret" not in repr(Client("127.0.0.1:1", token="secret"))  # noqa: S106


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_tls_and_tokens_let_in(kind: str, tmp_path: Path) -> None:
    with World(tmp_path) as world:
        files = certificates(tmp_path)
        chosen = files._replace(client_authority=files.certificate)
        tokens = TokenFile(token_file(tmp_path))
        rotated = iter(["token of read", "token of record"])
        trusting = Certificates(files.certificate, files.certificate, files.key)
        with gateway_of(world, certificates=chosen, tokens=tokens) as target:
            with client_of(
                kind, target, token=lambda: next(rotated, "token of forget"), certificates=trusting
            ) as client:
                # The first is looked at when the client is made.
                with pytest.raises(AccessError) as caught:
                    client.match("c01")
                assert caught.value.reason == "SCOPE_MISSING"
                assert client.forget("c01").emptied_count == 0
            with client_of(kind, target, certificates=trusting) as client:
                with pytest.raises(AccessError) as caught:
                    client.match("c01")
                assert caught.value.reason == "CREDENTIALS_MISSING"
            known = Certificates(files.certificate)
            with (
                client_of(kind, target, certificates=known, timeout_s=2.0) as client,
                pytest.raises(UnavailableError),
            ):
                client.match("c01")


def test_a_client_is_closed_once_and_stays_in_its_process(kind: str) -> None:
    with client_of(kind, "127.0.0.1:1") as client:
        state = client if kind == "sync" else client.client
        with pytest.raises(TypeError, match="make one in each process"):
            pickle.dumps(state)
        state._process += 1
        with pytest.raises(InputError, match="after the fork"):
            client.match("c01")
        state._process = os.getpid()
    with pytest.raises(InputError, match="is closed"):
        state._method(SimpleNamespace(path="x"))


def test_the_server_puts_up_with_how_often_a_silent_connection_is_asked() -> None:
    assert channel._KEEPALIVE_MS >= 2 * server._PING_INTERVAL_MS
    asked = dict(channel.options(is_local=False))
    assert asked["grpc.keepalive_time_ms"] == channel._KEEPALIVE_MS
    assert "grpc.enable_http_proxy" not in asked
    assert dict(channel.options(is_local=True))["grpc.enable_http_proxy"] == 0
    told = dict(server._options())
    assert told["grpc.http2.min_ping_interval_without_data_ms"] == server._PING_INTERVAL_MS


def test_what_is_repeated_without_asking_is_every_call_with_one_answer() -> None:
    config = json.loads(channel.service_config())
    (policy,) = config["methodConfig"]
    assert policy["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    named = {f"{each['service']}/{each['method']}" for each in policy["name"]}
    services = (match_service_pb2, profile_service_pb2, catalog_service_pb2, job_service_pb2)
    unary = {
        f"{service.full_name}/{method.name}"
        for module in services
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.server_streaming
    }
    assert named == unary
