"""The plan of a job: everything that its bytes depend on, and nothing else.

The same plan is the same job: its id is the sha256 of the plan's bytes, so whoever runs it again,
from whatever machine, goes on where it stopped or hears that it is done. Paths, threads, workers
and variants are not in it, for no result depends on them.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, ClassVar, Final

from pydantic import Field

from visavis import kernel
from visavis.base import StoredBase
from visavis.journal import Overlay
from visavis.sealed import Sealed, Strict
from visavis.store import bytes_digest

__all__ = ["PLAN", "PartEntry", "Plan", "ResultManifest"]

PLAN: Final = "plan.json"

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]


class Plan(Sealed):
    """What is matched with what, by digest.

    Attributes
    ----------
    contract : int
        The version of docs/score.md.
    base_version : int
    base_digest : str
        Of the version's manifest, which names every byte of it.
    part_count, customer_count, capability_count : int
    catalog_digest, policy_digest : str
    as_of : date
    journal_offset : int
        The journal's entries up to it are taken into account.
    overlay_digest : str or None
        Of what those entries say beyond the base; None if that is nothing.
    reasons : int or None
        At most so many reasons each; None = no such column.
    distinctive : bool
        Of reasons.
    notice : str or None
        What must stand wherever the result is shown.
    """

    readable_format: ClassVar[int] = 1

    format: int = 1
    contract: int
    base_version: int
    base_digest: _Digest
    part_count: _Count
    customer_count: _Count
    capability_count: _Count
    catalog_digest: _Digest
    policy_digest: _Digest
    as_of: date
    journal_offset: _Count = 0
    overlay_digest: _Digest | None = None
    reasons: _Count | None = None
    distinctive: bool = False
    notice: str | None = None

    @classmethod
    def of(
        cls,
        base: StoredBase,
        overlay: Overlay | None,
        *,
        capability_count: int,
        catalog_digest: str,
        policy_digest: str,
        as_of: date,
        reasons: int | None,
        distinctive: bool,
    ) -> Plan:
        """The plan of a base with what a journal says beyond it; None = there is no journal."""
        changes = overlay is not None and not overlay.is_empty
        return cls(
            contract=kernel.CONTRACT_VERSION,
            base_version=base.version,
            base_digest=base.digest,
            part_count=base.part_count,
            customer_count=base.customer_count,
            capability_count=capability_count,
            catalog_digest=catalog_digest,
            policy_digest=policy_digest,
            as_of=as_of,
            journal_offset=base.manifest.journal_offset if overlay is None else overlay.through,
            overlay_digest=overlay.digest() if overlay is not None and changes else None,
            reasons=reasons,
            distinctive=distinctive,
            notice=base.head.notice,
        )

    @property
    def job_id(self) -> str:
        """The sha256 of the plan's bytes, in hex."""
        return bytes_digest(self.to_bytes())


class PartEntry(Strict):
    """What the manifest says of a part of the result.

    Attributes
    ----------
    file : str
        Its name in the result.
    sha256 : str
        Of the file.
    digest : str
        Of the canonical columns: the same whatever wrote the file.
    customer_count, opportunity_count : int
        Customers matched, and rows.
    """

    file: Annotated[str, Field(pattern=r"^parts/part-[0-9]{5,7}\.[0-9a-f]{64}\.parquet$")]
    sha256: _Digest
    digest: _Digest
    customer_count: _Count
    opportunity_count: _Count


class ResultManifest(Sealed):
    """What belongs to a result, published last.

    Attributes
    ----------
    job_id : str
    digest : str
        sha256 over the parts' digests: equal results are equal in it.
    marks_sha256 : str
        Of the file that says what each capability was.
    forgotten_count : int
        Customers taken out since it was made.
    parts : tuple of PartEntry
        In the order of their index.
    """

    readable_format: ClassVar[int] = 1

    format: int = 1
    job_id: _Digest
    digest: _Digest
    marks_sha256: _Digest
    forgotten_count: _Count = 0
    parts: tuple[PartEntry, ...]

    @classmethod
    def of(
        cls,
        job_id: str,
        parts: tuple[PartEntry, ...],
        *,
        marks_sha256: str,
        forgotten_count: int = 0,
    ) -> ResultManifest:
        """The manifest of some parts."""
        return cls(
            job_id=job_id,
            digest=bytes_digest("\n".join(part.digest for part in parts).encode()),
            marks_sha256=marks_sha256,
            forgotten_count=forgotten_count,
            parts=parts,
        )
