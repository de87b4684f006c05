"""Whole random worlds: base, catalog, policy and a day, with a slow oracle of what they allow.

As in `strategies`, hypothesis draws shapes and styles, a numpy generator with a drawn seed fills
the cells, and names and numbers collide on purpose. The oracle reads the rows that the tables are
made of, pair by pair, and shares no code with the package; scores are `reference`'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

import reference
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.domain import Link
from visavis.engine import Engine
from visavis.history import adjustments
from visavis.policy import Exclusions, Policy

AS_OF = date(2020, 2, 29)

#: Their order by code point, by UTF-8 byte and by UTF-16 unit is not the same, nor any locale's.
NAMES = (
    *("a", "B", "aa", "é", "ﬀ", "𝄞", "z", "ä", "0", "~"),
    *("a b", "e\u0301", "Z'", "\u00a0", "a-", "日"),
)
INDICATORS = ("visits", "spend", "Age", "élan", "𝄞", "h", "history2", "i", "ﬀ")
PRODUCTS = ("tea", "milk", "thé")
CHANNELS = ("email", "phone", "letter")
FAMILIES = ("drinks", "other")
GATES = ("objection", "exclusion", "validity", "consent", "cool-down", "rule")

Row = dict[str, Any]


def _known(*names: str) -> Callable[[Row], bool]:
    return lambda customer: all(customer[name] is not None for name in names)


#: Rules with what they mean, written by hand: whether one holds for one customer on one day.
RULES: dict[str, Callable[[Row, date], bool]] = {
    "age >= 18": lambda c, _: _known("age")(c) and c["age"] >= 18,
    "not age >= 18": lambda c, _: _known("age")(c) and c["age"] < 18,
    "country in ('FR', 'été')": lambda c, _: c["country"] in ("FR", "été"),
    "country <> 'FR' and member": lambda c, _: (
        _known("country")(c) and c["country"] != "FR" and c["member"] is True
    ),
    "member or age < 18": lambda c, _: c["member"] is True or (_known("age")(c) and c["age"] < 18),
    "member is not true": lambda c, _: c["member"] is not True,
    "born is null or days_between(born, as_of) > 30": lambda c, day: (
        c["born"] is None or (day - c["born"]).days > 30
    ),
    "score * 2 > 1": lambda c, _: _known("score")(c) and c["score"] * 2 > 1,
    "year(as_of) = 2020": lambda _, day: day.year == 2020,
    "true": lambda *_: True,
    "null": lambda *_: False,
}

#: First and last day; most are open on `AS_OF`, some on that day alone.
VALIDITIES: tuple[tuple[date | None, date | None], ...] = (
    *[(None, None)] * 4,
    (AS_OF, None),
    (None, AS_OF),
    (AS_OF, AS_OF),
    (AS_OF + timedelta(days=1), None),
    (None, AS_OF - timedelta(days=1)),
)

ATTRIBUTE_TYPES: dict[str, pa.DataType] = {
    "age": pa.int32(),
    "country": pa.string(),
    "member": pa.bool_(),
    "born": pa.date32(),
    "score": pa.float64(),
    "objected": pa.bool_(),
    **{f"consent_{channel}": pa.bool_() for channel in CHANNELS},
}
UNKNOWN: Row = {**dict.fromkeys(ATTRIBUTE_TYPES), "objected": False}

FACT_TYPES: dict[str, pa.DataType] = {
    "customer_id": pa.string(),
    "product": pa.string(),
    "capability_id": pa.string(),
    "kind": pa.string(),
    "date": pa.date32(),
    "count": pa.int64(),
}


def ago(days: int) -> date:
    return AS_OF - timedelta(days=days)


@dataclass(frozen=True, eq=False)
class World:
    """Rows as somebody would hand them in, in no order; `i` and `j` count in the order of ids."""

    indicators: np.ndarray
    indicator_names: tuple[str, ...]
    customer_ids: tuple[str, ...]
    attributes: dict[str, Row]
    facts: tuple[Row, ...]
    capabilities: tuple[Row, ...]
    policy: Policy = field(default_factory=Policy)
    as_of: date = AS_OF

    def indicator_table(self) -> pa.Table:
        columns = dict(zip(self.indicator_names, self.indicators.T, strict=True))
        return pa.table({"customer_id": pa.array(self.customer_ids), **columns})

    def attribute_table(self) -> pa.Table:
        rows = [{"customer_id": name, **row} for name, row in self.attributes.items()]
        schema = pa.schema([("customer_id", pa.string()), *ATTRIBUTE_TYPES.items()])
        return pa.Table.from_pylist(rows, schema)

    def fact_table(self) -> pa.Table:
        return pa.Table.from_pylist(list(self.facts), pa.schema(list(FACT_TYPES.items())))

    @cached_property
    def base(self) -> Base:
        return Base.from_tables(
            self.indicator_table(),
            as_of=min(AS_OF, self.as_of),
            attributes=self.attribute_table(),
            facts=self.fact_table(),
        )

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog.from_rows(self.capabilities)

    def engine(self, **options: Any) -> Engine:
        return Engine(self.base, self.catalog, self.policy, as_of=self.as_of, **options)

    @cached_property
    def customers(self) -> list[str]:
        return sorted(self.customer_ids, key=str.encode)

    @cached_property
    def offers(self) -> list[Row]:
        """Capabilities in the order of their ids, every column given."""
        default = {"rule": None, "valid_from": None, "valid_to": None}
        rows = [{**default, "family": row["product"], **row} for row in self.capabilities]
        return sorted(rows, key=lambda row: row["id"].encode())

    @cached_property
    def x(self) -> np.ndarray:
        position = {name: row for row, name in enumerate(self.customer_ids)}
        return self.indicators[[position[name] for name in self.customers]]

    @cached_property
    def w(self) -> np.ndarray:
        return np.array(
            [
                [offer["weights"].get(name, 0.0) for name in self.indicator_names]
                for offer in self.offers
            ],
            dtype=np.float32,
        )

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """What `reference` calls the numbers of the capabilities."""
        return {
            "weights": self.w,
            "bias": np.array([offer["bias"] for offer in self.offers], np.float32),
            "value": np.array([offer["value"] for offer in self.offers]),
            "cost": np.array([offer["cost"] for offer in self.offers]),
            "link": [offer["link"] for offer in self.offers],
        }

    @cached_property
    def history(self) -> Any:
        """The adjustments, which have an oracle of their own in test_history."""
        return adjustments(
            self.base.facts, self.catalog, self.as_of, customer_count=len(self.customers)
        )

    @cached_property
    def scores(self) -> reference.Scores:
        return reference.scores(self.x, **self.numbers, history=self.history)

    def closed_gates(self, i: int, j: int) -> list[str]:
        """The gates that are closed between two, in the order of `GATES`."""
        customer_id, offer = self.customers[i], self.offers[j]
        customer = self.attributes.get(customer_id, UNKNOWN)
        out, channel = self.policy.exclusions, offer["channel"]
        days = self.policy.cool_down_days.get(channel, 0)
        closed = {
            "objection": customer["objected"],
            "exclusion": customer_id in out.customers
            or offer["id"] in out.capabilities
            or offer["product"] in out.products
            or channel in out.channels
            or offer["family"] in out.families,
            "validity": (offer["valid_from"] or date.min) > self.as_of
            or (offer["valid_to"] or date.max) < self.as_of,
            "consent": channel not in self.policy.consent_not_needed
            and customer[f"consent_{channel}"] is not True,
            "cool-down": any(age < days for age in self.contact_ages(customer_id, channel)),
            "rule": offer["rule"] is not None and not RULES[offer["rule"]](customer, self.as_of),
        }
        return [gate for gate in GATES if closed[gate]]

    def contact_ages(self, customer_id: str, channel: str) -> list[int]:
        channel_of = {offer["id"]: offer["channel"] for offer in self.offers}
        return [
            (self.as_of - fact["date"]).days
            for fact in self.facts
            if fact["customer_id"] == customer_id
            and fact["kind"] == "contacted"
            and fact["date"] <= self.as_of
            # Where the channel cannot be told, it may have been any.
            and channel_of.get(fact["capability_id"], channel) == channel
        ]

    def is_out(self, i: int) -> bool:
        """Whether a customer is left out of the match as a whole."""
        customer_id = self.customers[i]
        return (
            self.attributes.get(customer_id, UNKNOWN)["objected"]
            or customer_id in self.policy.exclusions.customers
        )

    @cached_property
    def allowed(self) -> np.ndarray:
        """Who may meet what, of shape (n, m), as far as gates go."""
        return np.array(
            [
                [not self.closed_gates(i, j) for j in range(len(self.offers))]
                for i in range(len(self.customers))
            ]
        )

    def is_control(self, i: int) -> bool:
        text = self.policy.control_salt + "\0" + self.customers[i]
        drawn = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)
        return drawn < self.policy.control_share * 2.0**64

    def group_codes(self, column: str) -> np.ndarray:
        names = sorted({offer[column] for offer in self.offers})
        return np.array([names.index(offer[column]) for offer in self.offers], np.int32)

    @cached_property
    def matched(self) -> reference.Match:
        """The oracle's match over all customers; those who are out have nothing eligible."""
        return reference.match(
            self.x,
            **self.numbers,
            k=self.policy.k,
            **{name: self.group_codes(name) for name in ("product", "channel", "family")},
            eligible=self.allowed,
            history=self.history,
            limits=tuple(self.policy.limits),
            ev_min=self.policy.ev_min,
        )

    def h(self, i: int, j: int) -> float:
        return float(reference.history_matrix(self.history, len(self.customers), len(self.w))[i, j])

    def terms(self, i: int, j: int, distinctive: bool = False) -> list[tuple[str, float]]:
        """Every term of z but the bias, contribution descending, then name."""
        w = self.w.astype(np.float64)
        against = [sum(column.tolist(), 0.0) / len(w) if distinctive else 0.0 for column in w.T]
        products = self.x[i].astype(np.float64) * (w[j] - np.array(against))
        terms = [*zip(self.indicator_names, products.tolist(), strict=True)]
        terms.append(("history", self.h(i, j)))
        return sorted(terms, key=lambda term: (-term[1], term[0].encode()))

    def expected_rows(self, reasons: int = 3, distinctive: bool = False) -> list[Row]:
        """What `Matches.to_table` has to hold."""
        found = self.matched
        return [
            {
                "customer_id": self.customers[i],
                "rank": rank + 1,
                "capability_id": self.offers[j]["id"],
                "propensity": float(found.propensity[i, rank]),
                "expected_value": float(found.expected_value[i, rank]),
                "control": self.is_control(i),
                "reasons": [
                    {"indicator": name, "contribution": amount}
                    for name, amount in self.terms(i, j, distinctive)
                    if amount > 0
                ][:reasons],
            }
            for i in range(len(self.customers))
            for rank, j in enumerate(found.capability_index[i, : found.opportunity_count[i]])
        ]


def _cells(rng: np.random.Generator, style: str, shape: tuple[int, ...]) -> np.ndarray:
    """Few values, so that many pairs tie; distinct ones; or sums that float32 holds exactly."""
    if style == "few":
        return rng.choice([-2.0, -1.0, 0.0, 0.0, 1.0, 1.0, 2.0], size=shape).astype(np.float32)
    if style == "exact":
        return (rng.integers(-64, 65, size=shape) / 32).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


def _attributes_of(rng: np.random.Generator, day: date) -> Row:
    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    return {
        "age": one_of(17, 18, 40, None),
        "country": one_of("FR", "été", "BE", None),
        "member": one_of(True, False, None),
        "born": one_of(day, day - timedelta(days=30), day - timedelta(days=31), None),
        "score": one_of(0.5, 0.75, None),
        "objected": bool(rng.random() < 0.1),
        **{f"consent_{channel}": one_of(True, True, True, False, None) for channel in CHANNELS},
    }


def _fact_of(rng: np.random.Generator, customers: list[str], offers: list[str]) -> Row:
    is_about_product = rng.random() < 0.5
    return {
        "customer_id": str(rng.choice(customers)),
        "product": str(rng.choice([*PRODUCTS, "retired"])) if is_about_product else None,
        "capability_id": None if is_about_product else str(rng.choice([*offers, "retired"])),
        "kind": str(rng.choice(["bought", "refused", "contacted", "contacted", "excluded"])),
        "date": ago(int(rng.choice([-1, 0, 1, 6, 7, 8, 40]))),
        "count": int(rng.integers(1, 4)),
    }


def _history_weights(rng: np.random.Generator) -> list[Row]:
    return [
        {
            "kind": str(rng.choice(["bought", "refused", "contacted"])),
            "feature": str(rng.choice(["days", "ever", "recency", "log_count"])),
            "half_life_days": [None, 7.0][rng.integers(2)],
            "weight": float(rng.choice([1.0, -1.0, 0.3])),
        }
        for _ in range(rng.integers(3))
    ]


def _capability(
    rng: np.random.Generator, name: str, names: tuple[str, ...], style: str, link: str | None
) -> Row:
    cells = _cells(rng, style, (len(names) + 1,)).tolist()
    row = {
        "id": name,
        "product": str(rng.choice(PRODUCTS)),
        "channel": str(rng.choice(CHANNELS)),
        "family": str(rng.choice(FAMILIES)),
        "weights": {each: cell for each, cell in zip(names, cells, strict=False) if cell},
        "bias": cells[-1],
        "history_weights": _history_weights(rng),
        "value": float(rng.choice([0.0, 1.0, 1.0, 7.5])),
        "cost": float(rng.choice([-0.25, 0.0, 0.0, 0.125])),
        "link": link or str(rng.choice([each.label for each in Link])),
    }
    if rng.random() < 0.5:
        row["rule"] = str(rng.choice(list(RULES)))
    valid = VALIDITIES[rng.integers(len(VALIDITIES))]
    return row | dict(zip(("valid_from", "valid_to"), valid, strict=True))


@st.composite
def policies(draw: st.DrawFn, world: World) -> Policy:
    """A policy that names only what the world has."""

    def some(names: Any) -> tuple[str, ...]:
        # Nobody left out, more often than not.
        few = st.lists(st.sampled_from(sorted(set(names))), max_size=1)
        return tuple(draw(st.just([]) | st.just([]) | few))

    offers = world.offers
    channels = sorted({offer["channel"] for offer in offers})
    limits = st.none() | st.integers(1, 3)
    return Policy(
        k=draw(st.integers(1, 5)),
        ev_min=draw(st.sampled_from([0.0, None, None, 0.25, -0.25, float("-inf")])),
        product_limit=draw(limits),
        channel_limit=draw(limits),
        family_limit=draw(limits),
        cool_down_days=draw(
            st.dictionaries(st.sampled_from(channels), st.sampled_from([1, 7, 8, 41]), max_size=2)
        ),
        consent_not_needed=tuple(draw(st.sets(st.sampled_from(channels)))),
        exclusions=Exclusions(
            customers=some(world.customer_ids),
            capabilities=some(offer["id"] for offer in offers),
            products=some(offer["product"] for offer in offers),
            channels=some(channels),
            families=some(offer["family"] for offer in offers),
        ),
        control_share=draw(st.sampled_from([0.0, 0.5])),
    )


@st.composite
def worlds(
    draw: st.DrawFn,
    customers_max: int = 8,
    capabilities_max: int = 12,
    style: str | None = None,
    link: str | None = None,
) -> World:
    """A world in which every kind of gate, limit, tie and history happens often."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    style = style or draw(st.sampled_from(["few", "few", "normal"]))
    n, m = draw(st.integers(1, customers_max)), draw(st.integers(1, capabilities_max))
    customers = rng.permutation(NAMES)[:n].tolist()
    names = tuple(rng.permutation(INDICATORS)[: draw(st.integers(1, len(INDICATORS)))].tolist())
    offers = rng.permutation(NAMES)[:m].tolist()
    known = [name for name in customers if rng.random() < 0.85]
    world = World(
        indicators=_cells(rng, style, (n, len(names))),
        indicator_names=names,
        customer_ids=tuple(customers),
        attributes={name: _attributes_of(rng, AS_OF) for name in known},
        facts=tuple(_fact_of(rng, customers, offers) for _ in range(draw(st.integers(0, 2 * n)))),
        capabilities=tuple(_capability(rng, name, names, style, link) for name in offers),
        as_of=ago(draw(st.sampled_from([0, 0, 1, -400]))),
    )
    return replace(world, policy=draw(policies(world)))
