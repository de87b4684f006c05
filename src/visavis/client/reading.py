"""A job's result, frame by frame: digests verified, gone on with where it broke off."""

from __future__ import annotations

import hashlib
from typing import Any

import grpc
import pyarrow as pa

from visavis.client import decoding
from visavis.client.errors import DamageError
from visavis.client.results import ResultFrame, Version
from visavis.digest import canonical_digest
from visavis.v1 import job_service_pb2

__all__ = ["Reading"]


class Reading:
    """How far a result has been read.

    Every frame is compared with its sha256; every part that was read from its beginning with the
    digest of its canonical columns; and the whole, if it was read from its beginning, with the
    result's. For that, the rows of one part are kept until it ends.

    Parameters
    ----------
    job_id : str
    resume_token : str
        Of the last frame that somebody has; empty: from the beginning.

    Attributes
    ----------
    is_complete : bool
        The frame that ends the result has been read.
    """

    def __init__(self, job_id: str, resume_token: str) -> None:
        self.is_complete = False
        self._job_id = job_id
        self._token = resume_token
        self._is_from_start = not resume_token
        self._has_begun = False
        self._version: Version | None = None
        #: None: the part was not read from its beginning.
        self._rows: list[pa.Table] | None = [] if self._is_from_start else None
        self._part_index = 0 if self._is_from_start else -1
        self._digests: list[str] = []

    def request(self) -> job_service_pb2.ReadResultsRequest:
        """What goes on behind the last frame."""
        return job_service_pb2.ReadResultsRequest(job_id=self._job_id, resume_token=self._token)

    def taken(self, answer: Any) -> ResultFrame:
        """The next frame.

        Raises
        ------
        DamageError
            If it is not what its digests say, or not what comes next.
        """
        # Each look at the field would copy it.
        arrow = answer.arrow
        if hashlib.sha256(arrow).hexdigest() != answer.arrow_sha256:
            raise _damage("the frame does not fit its digest")
        version, table = decoding.version(answer.version), decoding.table_of(arrow)
        self._check_next(version, table, answer)
        if self._rows is not None:
            self._rows.append(table)
        if answer.is_part_end:
            self._end_part(answer)
        self._token = answer.resume_token
        return ResultFrame(
            version=version,
            part_index=answer.part_index,
            table=table,
            is_part_end=answer.is_part_end,
            resume_token=answer.resume_token,
        )

    def _check_next(self, version: Version, table: pa.Table, answer: Any) -> None:
        if self.is_complete:
            raise _damage("a frame came behind the result's end")
        if table.num_rows != answer.row_count:
            raise _damage("the frame does not have the rows that it says")
        if self._version not in (None, version):
            raise _damage("frames are of two versions")
        if self._part_index not in (-1, answer.part_index):
            reason = f"a frame of part {answer.part_index} came, not of part {self._part_index}"
            raise _damage(reason)
        self._version, self._part_index, self._has_begun = version, answer.part_index, True

    def _end_part(self, answer: Any) -> None:
        whole = None if self._rows is None else pa.concat_tables(self._rows)
        if whole is not None and canonical_digest(whole) != answer.part_digest:
            raise _damage(f"part {answer.part_index} does not fit its digest")
        self._digests.append(answer.part_digest)
        self._rows = []
        self._part_index += 1
        if answer.result_digest:
            self._check_result(answer.result_digest)

    def _check_result(self, digest: str) -> None:
        said = hashlib.sha256("\n".join(self._digests).encode()).hexdigest()
        if self._is_from_start and said != digest:
            raise _damage("the result does not fit its digest")
        self.is_complete = True

    def check_end(self) -> None:
        """Refuse a result that ended too early.

        Raises
        ------
        DamageError
        """
        # Behind the token of the last frame there is nothing.
        if not self.is_complete and (self._has_begun or self._is_from_start):
            raise _damage("the result ended before its last part")


def _damage(reason: str) -> DamageError:
    return DamageError(reason, code=grpc.StatusCode.DATA_LOSS, reason="CORRUPTED")
