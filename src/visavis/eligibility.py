"""Who may meet what: rule ∧ consent ∧ cool-down ∧ validity ∧ exclusions, as bit planes.

::

    Catalog + Policy + attribute schema ── Gates.compile() ──► Gates
    Gates + attributes + facts + as_of  ── Gates.planes()  ──► kernel.Eligibility

Capabilities that share rule and channel share one plane, so that a base of millions of customers
needs a few bits each, computed when it is loaded and never per request. The one evaluator of rules
serves the batch, the gateway and `explain`. Unknown means not eligible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from visavis.catalog import Catalog
from visavis.domain import CONSENT_PREFIX, OBJECTED, Obstacle
from visavis.errors import InputError, SchemaError
from visavis.history import last_contact_days
from visavis.kernel import Eligibility
from visavis.policy import Exclusions, Policy
from visavis.rules import Outcome, Rule, check_attribute_schema, compile_rule

__all__ = ["Gate", "Gates", "with_spare", "without"]

Bools = npt.NDArray[np.bool_]

#: One (rule, channel) combination; no rule is None.
_Key = tuple[str | None, str | None]

_ALWAYS: Final = -1

#: The plane of each combination that is not open to all, and of each capability.
_Numbered = tuple[dict[_Key, int], npt.NDArray[np.int32]]

#: Days for which it is kept which capabilities share a combination: every part of a base asks, and
#: every request that is evaluated by itself, and 10,240 capabilities take 10 ms.
_GROUPED_MAX: Final = 8

#: The combination of capabilities that nobody may meet.
_NOBODY: Final[_Key] = (None, None)


@dataclass(frozen=True, slots=True)
class Gate:
    """What one gate says about one pair.

    Attributes
    ----------
    name : Obstacle
        What stands in the way when it is closed: from here ``objection``, ``exclusion``,
        ``validity``, ``consent``, ``cool-down`` and ``rule``, from whoever asks about the pair
        ``exclusion``, ``filter``, ``availability`` and ``history``.
    is_open : bool
    detail : str
        What was looked at, in plain words.
    remedy : str or None
        What would open it; None if it is open.
    """

    name: Obstacle
    is_open: bool
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """Catalog and policy, compiled against the attributes of a base.

    Attributes
    ----------
    catalog : Catalog
    policy : Policy
    rules : mapping of str to Rule
        By text, each distinct text once.
    """

    catalog: Catalog
    policy: Policy
    rules: Mapping[str, Rule]
    _groups: dict[date, tuple[list[_Key], npt.NDArray[np.int32]]] = field(
        default_factory=dict, repr=False
    )

    @classmethod
    def compile(cls, catalog: Catalog, policy: Policy, schema: pa.Schema) -> Gates:
        """Compile every rule and check that consent can be known.

        Parameters
        ----------
        catalog : Catalog
        policy : Policy
        schema : pyarrow.Schema
            The attributes of the base.

        Raises
        ------
        RuleError
            Naming the capability, the position and the attribute.
        SchemaError
            If a channel needs consent and the base has no such attribute.
        InputError
            If the policy names a product, channel, family or capability that the catalog lacks.
        """
        check_attribute_schema(schema)
        rules: dict[str, Rule] = {}
        for capability_id, text in zip(catalog.ids, catalog.rules, strict=True):
            if text is not None and text not in rules:
                rules[text] = compile_rule(text, schema, capability=capability_id)
        gates = cls(catalog, policy, rules)
        for channel in gates._consent_channels():
            _check_consent(channel, schema)
        gates._check_policy_names()
        return gates

    def groups(self, as_of: date) -> npt.NDArray[np.int32]:
        """Codes, (n_capabilities,): capabilities of one code share a plane, whatever the base."""
        return self._grouped(as_of)[1]

    def planes(self, attributes: pa.Table, facts: pa.Table, as_of: date) -> Eligibility:
        """Fold every gate but the objection into bit planes.

        Parameters
        ----------
        attributes : pyarrow.Table of n rows
        facts : pyarrow.Table
            Of ``base.FACT_SCHEMA``, by row of `attributes`.
        as_of : date

        Returns
        -------
        Eligibility
            planes of shape (n, ceil(n_planes / 64)) and plane_index of shape (n_capabilities,).
        """
        n = attributes.num_rows
        shut = self._shut_out_channels(attributes, facts, as_of)
        plane_of, plane_index = self._number_planes(as_of, shut)
        by_rule: dict[str | None, list[tuple[str, int]]] = {}
        for (text, channel), q in plane_of.items():
            if channel is not None:
                by_rule.setdefault(text, []).append((channel, q))
        planes = np.zeros((n, -(-max(1, len(plane_of)) // 64)), dtype=np.uint64)
        # Rule after rule: all outcomes at once would take a byte per customer and rule.
        for text, channels in by_rule.items():
            held = None if text is None else self.rules[text].evaluate(attributes, as_of)
            for channel, q in channels:
                plane = np.ones(n, dtype=np.bool_) if held is None else held
                if channel in shut:
                    plane = plane & ~shut[channel]
                planes[:, q // 64] |= plane.astype(np.uint64) << np.uint64(q % 64)
        return Eligibility(planes, plane_index)

    def open_to(self, j: int, attributes: pa.Table, facts: pa.Table, as_of: date) -> Bools:
        """Who may meet capability `j`, (n,): what `planes` says of it, without the others' rules.

        Parameters
        ----------
        j : int
        attributes, facts, as_of
            As in `planes`.
        """
        catalog, n = self.catalog, attributes.num_rows
        valid = _is_valid(catalog.valid_from[j], catalog.valid_to[j], as_of)
        if not valid or self._exclusion_of(j) is not None:
            return np.zeros(n, dtype=np.bool_)
        text, channel = catalog.rules[j], catalog.channels[j]
        held = (
            np.ones(n, np.bool_) if text is None else self.rules[text].evaluate(attributes, as_of)
        )
        shut = self._shut_out_channels(attributes, facts, as_of).get(channel)
        return held if shut is None else held & ~shut

    def _number_planes(self, as_of: date, shut: Mapping[str, Bools]) -> _Numbered:
        """A plane per combination that is not open to all; the plane of each capability."""
        keys, group = self._grouped(as_of)
        plane_of: dict[_Key, int] = {}
        of_group = np.full(len(keys), _ALWAYS, dtype=np.int32)
        for number, key in enumerate(keys):
            if key == _NOBODY or key[0] is not None or key[1] in shut:
                of_group[number] = plane_of[key] = len(plane_of)
        return plane_of, of_group[group]

    def _grouped(self, as_of: date) -> tuple[list[_Key], npt.NDArray[np.int32]]:
        """The distinct keys, and which of them each capability has; kept for some days."""
        grouped = self._groups.get(as_of)
        if grouped is None:
            numbers: dict[_Key, int] = {}
            group = [numbers.setdefault(key, len(numbers)) for key in self._keys(as_of)]
            grouped = list(numbers), np.array(group, dtype=np.int32)
            grouped[1].setflags(write=False)
            # Whoever asks online names any day.
            while len(self._groups) >= _GROUPED_MAX:
                self._groups.pop(next(iter(self._groups)), None)
            self._groups[as_of] = grouped
        return grouped

    def _keys(self, as_of: date) -> Iterator[_Key]:
        """What decides about each capability: rule and channel, or that it is closed to all."""
        keys = zip(self.catalog.rules, self.catalog.channels, strict=True)
        for key, closed in zip(keys, self._closed_capabilities(as_of), strict=True):
            yield _NOBODY if closed else key

    def outcomes(
        self, j: int, attributes: pa.Table, facts: pa.Table, as_of: date, customer_id: str
    ) -> list[Gate]:
        """What each gate says about one customer and capability `j`, in the order of the gates.

        Parameters
        ----------
        j : int
            The capability's index.
        attributes : pyarrow.Table of 1 row
        facts : pyarrow.Table
            The customer's own, with customer_index 0.
        as_of : date
        customer_id : str
        """
        return [
            _objection_gate(attributes),
            self._exclusion_gate(j, customer_id),
            self._validity_gate(j, as_of),
            self._consent_gate(j, attributes),
            self._cool_down_gate(j, facts, as_of),
            *self._rule_gates(j, attributes, as_of),
        ]

    def _exclusion_gate(self, j: int, customer_id: str) -> Gate:
        excluded = (
            f"customer {customer_id!r}"
            if customer_id in self.policy.exclusions.customers
            else self._exclusion_of(j)
        )
        if excluded is None:
            return Gate(Obstacle.EXCLUSION, True, "not excluded")
        remedy = f"a policy that no longer excludes {excluded}"
        return Gate(Obstacle.EXCLUSION, False, f"the policy excludes {excluded}", remedy)

    def _validity_gate(self, j: int, as_of: date) -> Gate:
        valid_from, valid_to = self.catalog.valid_from[j], self.catalog.valid_to[j]
        detail = f"valid from {valid_from or 'ever'} to {valid_to or 'ever'}, asked as of {as_of}"
        if _is_valid(valid_from, valid_to, as_of):
            return Gate(Obstacle.VALIDITY, True, detail)
        return Gate(Obstacle.VALIDITY, False, detail, "a day within its validity")

    def _consent_gate(self, j: int, attributes: pa.Table) -> Gate:
        channel = self.catalog.channels[j]
        if channel in self.policy.consent_not_needed:
            return Gate(Obstacle.CONSENT, True, f"{channel} needs none")
        name = CONSENT_PREFIX + channel
        given = attributes[name][0].as_py()
        if given:
            return Gate(Obstacle.CONSENT, True, f"{name} is given")
        said = "unknown, which counts as refused" if given is None else "refused"
        return Gate(Obstacle.CONSENT, False, f"{name} is {said}", f"{name} being given")

    def _cool_down_gate(self, j: int, facts: pa.Table, as_of: date) -> Gate:
        channel = self.catalog.channels[j]
        days = self.policy.cool_down_days.get(channel)
        if days is None:
            return Gate(Obstacle.COOL_DOWN, True, f"{channel} has none")
        contacts = last_contact_days(facts, self.catalog, as_of, customer_count=1)
        ages = contacts.age_days[contacts.channel_code == self._channel_codes()[channel]]
        if not len(ages):
            return Gate(Obstacle.COOL_DOWN, True, f"never contacted by {channel}")
        age = int(ages[0])
        detail = f"last contacted by {channel} {age} days ago, the policy asks for {days}"
        if age >= days:
            return Gate(Obstacle.COOL_DOWN, True, detail)
        return Gate(Obstacle.COOL_DOWN, False, detail, f"waiting {days - age} more days")

    def _rule_gates(self, j: int, attributes: pa.Table, as_of: date) -> list[Gate]:
        text = self.catalog.rules[j]
        if text is None:
            return [Gate(Obstacle.RULE, True, "no rule")]
        return [_rule_gate(outcome) for outcome in self.rules[text].outcomes(attributes, as_of)]

    def _closed_capabilities(self, as_of: date) -> Bools:
        """Capabilities that nobody may meet: outside their validity, or excluded by the policy."""
        return np.array(
            [
                not _is_valid(valid_from, valid_to, as_of) or self._exclusion_of(j) is not None
                for j, (valid_from, valid_to) in enumerate(
                    zip(self.catalog.valid_from, self.catalog.valid_to, strict=True)
                )
            ],
            dtype=np.bool_,
        )

    def _exclusion_of(self, j: int) -> str | None:
        left_out: Exclusions = self.policy.exclusions
        catalog = self.catalog
        for word, names, name in (
            ("capability", left_out.capabilities, catalog.ids[j]),
            ("product", left_out.products, catalog.products[j]),
            ("channel", left_out.channels, catalog.channels[j]),
            ("family", left_out.families, catalog.families[j]),
        ):
            if name in names:
                return f"{word} {name!r}"
        return None

    def _shut_out_channels(
        self, attributes: pa.Table, facts: pa.Table, as_of: date
    ) -> dict[str, Bools]:
        """By channel, who may not be contacted through it; channels open to all are absent."""
        shut: dict[str, Bools] = {}
        for channel in self._consent_channels():
            consent = pc.fill_null(attributes[CONSENT_PREFIX + channel], fill_value=False)
            shut[channel] = ~consent.to_numpy().astype(np.bool_)
        if self.policy.cool_down_days:
            n = attributes.num_rows
            contacts = last_contact_days(facts, self.catalog, as_of, customer_count=n)
            codes = self._channel_codes()
            for channel, days in self.policy.cool_down_days.items():
                cooling = (contacts.channel_code == codes[channel]) & (contacts.age_days < days)
                closed = shut.setdefault(channel, np.zeros(n, dtype=np.bool_))
                closed[contacts.customer_index[cooling]] = True
        return shut

    def _channel_codes(self) -> dict[str, int]:
        return {channel: code for code, channel in enumerate(self.catalog.codes("channel")[1])}

    def _consent_channels(self) -> list[str]:
        return [
            channel
            for channel in self.catalog.codes("channel")[1]
            if channel not in self.policy.consent_not_needed
        ]

    def _check_policy_names(self) -> None:
        """A misspelt name in a policy would silently allow what it meant to forbid."""
        left_out = self.policy.exclusions
        channels = set(self.catalog.codes("channel")[1])
        for key, names, known in (
            ("cool_down_days", self.policy.cool_down_days, channels),
            ("consent_not_needed", self.policy.consent_not_needed, channels),
            ("exclusions.channels", left_out.channels, channels),
            ("exclusions.products", left_out.products, set(self.catalog.codes("product")[1])),
            ("exclusions.families", left_out.families, set(self.catalog.codes("family")[1])),
            ("exclusions.capabilities", left_out.capabilities, set(self.catalog.ids)),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"{name!r} is not in the catalog", field=f"policy.{key}")


def with_spare(eligible: Eligibility) -> Eligibility:
    """The same, with room for one plane more than its capabilities use: one that nobody is in."""
    planes, plane_index = eligible
    if _spare_plane(plane_index) < 64 * planes.shape[1]:
        return eligible
    beyond = np.zeros((len(planes), 1), dtype=np.uint64)
    return Eligibility(np.hstack([planes, beyond]), plane_index)


def without(eligible: Eligibility, closed: Bools) -> Eligibility:
    """The same, with some capabilities closed to all.

    Parameters
    ----------
    eligible : Eligibility
        Copied if `with_spare` has left no room.
    closed : ndarray of shape (n_capabilities,), bool
    """
    planes, plane_index = with_spare(eligible)
    nobody = np.int32(_spare_plane(plane_index))
    return Eligibility(planes, np.where(closed, nobody, plane_index))


def _spare_plane(plane_index: npt.NDArray[np.int32]) -> int:
    return int(plane_index.max(initial=_ALWAYS)) + 1


def _objection_gate(attributes: pa.Table) -> Gate:
    if not attributes[OBJECTED][0].as_py():
        return Gate(Obstacle.OBJECTION, True, "no objection")
    remedy = "the customer withdrawing the objection"
    return Gate(Obstacle.OBJECTION, False, "the customer objected to all contact", remedy)


def _rule_gate(outcome: Outcome) -> Gate:
    read = f" ({_values(outcome.values)})" if outcome.values else ""
    if outcome.holds:
        return Gate(Obstacle.RULE, True, f"{outcome.text}: holds{read}")
    said = "is unknown, which does not hold" if outcome.holds is None else "does not hold"
    remedy = f"attributes for which {outcome.text} holds"
    return Gate(Obstacle.RULE, False, f"{outcome.text}: {said}{read}", remedy)


def _check_consent(channel: str, schema: pa.Schema) -> None:
    name = CONSENT_PREFIX + channel
    index = schema.get_field_index(name)
    if index < 0:
        raise SchemaError(
            f"channel {channel!r} needs consent, which the base does not know: add the attribute, "
            "or list the channel in the policy's consent_not_needed",
            field=f"attributes.{name}",
        )
    if not pa.types.is_boolean(schema.field(index).type):
        raise SchemaError(
            f"must be bool, got {schema.field(index).type}", field=f"attributes.{name}"
        )


def _is_valid(valid_from: date | None, valid_to: date | None, as_of: date) -> bool:
    return (valid_from is None or valid_from <= as_of) and (valid_to is None or as_of <= valid_to)


def _values(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} = {'unknown' if value is None else value}" for name, value in values.items()
    )
