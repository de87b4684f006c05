"""What a report is made of: plain mappings, each of them optional."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np

from visavis.errors import InputError

__all__ = ["LIMITATIONS", "ReportContent", "plain"]

Json = Mapping[str, Any]

#: What holds for every run on held-out data, and has to stand beside its figures.
LIMITATIONS: Final = (
    (
        "Captured, not caused. Nothing was sent: a hit is a purchase that took place anyway in the "
        "window after the cut. What a contact changes, only a control group can tell."
    ),
    (
        "Purchases are what customers already did. A score that follows habits captures much and "
        "may change little; purchases never made before are therefore reported on their own."
    ),
    (
        "Every arm uses the same scores, rules and consent. Arms are compared within one contact "
        "policy only: without a cap, contacts pile up on the customers who buy most."
    ),
    (
        "Times are those of one machine in one run. Ratios were measured side by side and move "
        "with the machine, the catalog and the share of pairs that rules close."
    ),
)


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What one report says. A part that is missing is named as missing, and nothing else changes.

    Numbers must be finite; an *interval* is ``{"value", "low", "high"}`` or a plain number.

    Attributes
    ----------
    title : str
    run : mapping, optional
        The content of run.json: ``as_of``, ``customer_count``, ``capability_count``,
        ``pair_count``, ``opportunity_count``, ``customers_with_opportunities``, ``stats``,
        ``seconds`` by stage, ``digests``, ``files``, ``inputs``, ``versions``, ``command``,
        ``variant``, ``threads``, ``notice``, ``written_at``.
    evaluations : sequence of mapping
        The first is the headline. Each has ``setting`` (as_of, window_days,
        contacts_per_customer, customer_count, capability_count, budget, by; optionally
        confidence, such as 0.95), ``arms`` (name, label, contact_policy, contact_count,
        hit_count, hit_rate interval, spend, spend_share interval, never_bought_hit_count,
        never_bought_hit_rate interval, coverage, contacts_per_customer with mean, max, gini and
        histogram by number of contacts, redundancy, curve of contacts, hits and spend) and
        ``differences`` (arm, against, contact_policy, hit_rate and spend_share intervals).
    sensitivity : sequence of mapping
        as_of, window_days, contacts_per_customer, arm, hit_rate and spend_share intervals.
    calibration : mapping, optional
        ``bins`` (low, high, pair_count, expected and observed purchases, ratio), ``brier``,
        ``log_loss``, ``untuned_log_loss``, ``outliers`` (capability_id, observed, expected,
        ratio).
    timing : mapping, optional
        ``rounds``, ``pairs``, ``seconds`` by form, ``ratio_to_match`` by form (intervals),
        ``note``.
    stories : sequence of mapping
        As `stories.customer_stories` gives them.
    divergence : mapping, optional
        As `divergence.divergent_customers` gives it.
    coverage : mapping, optional
        As `coverage.coverage` gives it.
    policy : sequence of str
        The policy in words, as `asked.policy_in_words` gives it.
    notice : str, optional
        What must stand wherever the data are shown; default: the run's.
    limitations : sequence of str
        Beside those of `LIMITATIONS`.
    """

    title: str = "One-to-one, beside the campaign"
    run: Json | None = None
    evaluations: Sequence[Json] = ()
    sensitivity: Sequence[Json] = ()
    calibration: Json | None = None
    timing: Json | None = None
    stories: Sequence[Json] = ()
    divergence: Json | None = None
    coverage: Json | None = None
    policy: Sequence[str] = ()
    notice: str | None = None
    limitations: Sequence[str] = ()

    def canonical(self) -> ReportContent:
        """The same content as plain JSON values, the notice filled in.

        Raises
        ------
        InputError
            Naming the place of a value that JSON cannot hold: NaN, ±inf, half a surrogate.
        """
        fields = {
            each.name: plain(getattr(self, each.name), each.name)
            for each in dataclasses.fields(self)
        }
        if fields["notice"] is None and fields["run"] is not None:
            fields["notice"] = fields["run"].get("notice")
        return ReportContent(**fields)

    def to_json(self) -> dict[str, Any]:
        """What report.json holds."""
        held = self.canonical()
        content = {each.name: getattr(held, each.name) for each in dataclasses.fields(held)}
        content["limitations"] = [*LIMITATIONS, *held.limitations]
        return {"format": 1, **content}


def plain(value: Any, place: str) -> Any:
    """`value` as JSON knows it: numpy scalars as numbers, dates as ISO text, tuples as lists.

    Raises
    ------
    InputError
        Naming the place.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"must be finite, got {value}", field=place)
        return value
    if isinstance(value, str):
        return _text(value, place)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {
            _text(str(key), place): plain(each, f"{place}.{key}") for key, each in value.items()
        }
    if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (bytes, bytearray)):
        return [plain(each, f"{place}[{position}]") for position, each in enumerate(value)]
    raise InputError(f"cannot be written as JSON: {type(value).__name__}", field=place)


def _text(value: str, place: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"is no Unicode text: {value!r}", field=place) from None
    return value
