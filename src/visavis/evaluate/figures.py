"""What a comparison says: figures by arm, paired differences, and how JSON holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from visavis.errors import InputError
from visavis.evaluate.arms import Contacts
from visavis.evaluate.metrics import COLUMNS, Interval, Tally

__all__ = ["ArmFigures", "Difference", "Evaluation"]


@dataclass(frozen=True, eq=False)
class ArmFigures:
    """One arm and what it captured.

    Attributes
    ----------
    name, label, contact_policy : str
    contacts : Contacts
    tally : Tally
    hit_rate : Interval
        Hits per contact.
    spend : Interval
        In the currency's unit.
    spend_share : Interval
        Of all that was spent in the window, by customers who may be matched, on products of the
        catalog.
    never_bought_hit_rate : Interval
        Hits on products that the customer had never bought, per contact (all contacts of the arm,
        so that arms with equal contacts compare).
    """

    name: str
    label: str
    contact_policy: str
    contacts: Contacts
    tally: Tally
    hit_rate: Interval
    spend: Interval
    spend_share: Interval
    never_bought_hit_rate: Interval

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON holds them."""
        sums = dict(zip(COLUMNS, self.tally.sums.tolist(), strict=True))
        return {
            "name": self.name,
            "label": self.label,
            "contact_policy": self.contact_policy,
            "contact_count": sums["contacts"],
            "hit_count": sums["hits"],
            "hit_rate": self.hit_rate.to_dict(),
            "spend": self.spend.to_dict(),
            "spend_share": self.spend_share.to_dict(),
            "never_bought_contact_count": sums["new_contacts"],
            "never_bought_hit_count": sums["new_hits"],
            "never_bought_hit_rate": self.never_bought_hit_rate.to_dict(),
            "coverage": self.tally.coverage,
            "contacts_per_customer": self.tally.contacts_per_customer,
            "redundancy": self.tally.redundancy,
            "curve": self.tally.curve,
        }


class Difference(NamedTuple):
    """One arm minus another of the same contact policy, on the same draws of customers."""

    arm: str
    against: str
    contact_policy: str
    hit_rate: Interval
    spend_share: Interval

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON holds it."""
        return {
            **self._asdict(),
            "hit_rate": self.hit_rate.to_dict(),
            "spend_share": self.spend_share.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What each arm captured with the same budget under the same rules.

    Attributes
    ----------
    setting : dict
        What was asked; see `to_dict`.
    arms : tuple of ArmFigures
    differences : tuple of Difference
    seconds : dict of str to float
        Wall time by arm, which no figure depends on. Scores that arms share are charged to
        ``scores``.
    """

    setting: dict[str, Any]
    arms: tuple[ArmFigures, ...]
    differences: tuple[Difference, ...]
    seconds: dict[str, float]

    def arm(self, name: str) -> ArmFigures:
        """One arm by its name."""
        for figures in self.arms:
            if figures.name == name:
                return figures
        raise InputError(f"{name!r} was not evaluated", field="arm")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the contacts, in types that JSON knows."""
        return {
            "setting": self.setting,
            "arms": [figures.to_dict() for figures in self.arms],
            "differences": [difference.to_dict() for difference in self.differences],
            "seconds": self.seconds,
        }
