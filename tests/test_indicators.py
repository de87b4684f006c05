"""Indicators by hand, by an independent oracle, and by everything that must not change them."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.domain import day_number
from visavis.errors import InputError, LimitError, SchemaError
from visavis.indicators import Indicators, IndicatorSpec, compute
from visavis.indicators import events as indicator_events
from visavis.indicators.days import KINDS, Column, Parameters, kind
from visavis.indicators.events import Resources, open_ledger

AS_OF = date(2020, 6, 30)

EVENTS = """
[events]
customer = "who"
time = "when"
basket = "bag"
amount = "paid"
"""

TAXONOMY_KEY = """
[taxonomy]
key = "product"
"""

#: Product b2 has no aisle; product x9 of the events is in no taxonomy.
TAXONOMY = pa.table(
    {
        "product": ["a1", "a2", "b1", "b2", "c1"],
        "aisle": ["tea", "tea", "soap", None, "fuel"],
        "shelf": [1, 2, 3, 3, 9],
    }
)

EVERY_KIND = (
    EVENTS
    + TAXONOMY_KEY
    + """
[[indicator]]
kind = "recency"
[[indicator]]
kind = "frequency"
[[indicator]]
kind = "frequency"
half_lives_days = [7, 30.5]
transform = "log1p"
[[indicator]]
kind = "spend"
half_lives_days = [10, 90]
[[indicator]]
kind = "spend"
transform = "log1p"
[[indicator]]
kind = "share"
level = "aisle"
values = "taxonomy"
half_life_days = 20
[[indicator]]
kind = "share"
of = "spend"
level = "shelf"
values = [3, 1]
[[indicator]]
kind = "share"
of = "spend"
level = "till"
values = ["north", "nowhere"]
half_life_days = 5
undefined = -1
[[indicator]]
kind = "cadence"
[[indicator]]
kind = "overdue"
undefined = 0.25
[[indicator]]
kind = "trend"
short_half_life_days = 7
long_half_life_days = 60
[[indicator]]
kind = "trend"
of = "spend"
short_half_life_days = 3
long_half_life_days = 30
[[indicator]]
kind = "diversity"
level = "aisle"
[[indicator]]
kind = "diversity"
of = "spend"
level = "till"
undefined = -2
[[indicator]]
kind = "basket_size"
half_life_days = 15
[[indicator]]
kind = "basket_size"
of = "lines"
"""
)

Row = tuple[str, datetime, str, float, str | None, str | None]


def ago(days: int, hour: int = 12) -> datetime:
    return datetime(AS_OF.year, AS_OF.month, AS_OF.day, hour) - timedelta(days=days)


def table(rows: list[Row]) -> pa.Table:
    """Rows of (who, when, bag, paid, product, till)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    types = [pa.string(), pa.timestamp("us"), pa.string(), pa.float64(), pa.string(), pa.string()]
    names = ["who", "when", "bag", "paid", "product", "till"]
    arrays = [pa.array(list(c), type=t) for c, t in zip(columns, types, strict=True)]
    return pa.table(dict(zip(names, arrays, strict=True)))


def spec_of(indicators: str, events: str = EVENTS, taxonomy: str = "") -> IndicatorSpec:
    return IndicatorSpec.from_toml(events + taxonomy + indicators)


def rows_by_customer(result: Indicators) -> dict[str, dict[str, float]]:
    return {
        customer: dict(zip(result.names, (float(value) for value in row), strict=True))
        for customer, row in zip(result.customer_ids.to_pylist(), result.matrix, strict=True)
    }


def digest(result: Indicators) -> str:
    ids = "\n".join(result.customer_ids.to_pylist())
    return hashlib.sha256(ids.encode() + result.matrix.tobytes()).hexdigest()


# ---- by hand -----------------------------------------------------------------------------

#: Ann came 0, 30 (two baskets) and 90 days ago; Bob once, 60 days ago.
BY_HAND = table(
    [
        ("bob", ago(60), "b1", 5.0, "b1", "north"),
        ("ann", ago(0), "a1", 10.0, "a1", "north"),
        ("ann", ago(30, 9), "a2", 20.0, "b1", "south"),
        ("ann", ago(30, 10), "a3", 1.25, "b2", "south"),
        ("ann", ago(30, 10), "a3", -4.25, "a2", "south"),
        ("ann", ago(90), "a4", 30.0, "x9", "north"),
    ]
)


@pytest.mark.parametrize(
    ("indicator", "expected"),
    [
        ('kind = "recency"', {"recency": (0.0, 60.0)}),
        ('kind = "frequency"', {"frequency": (3.0, 1.0)}),
        (
            'kind = "frequency"\nhalf_lives_days = [30, 60]',
            {"frequency_h30d": (1.625, 0.25), "frequency_h60d": (1 + 2**-0.5 + 2**-1.5, 0.5)},
        ),
        (
            'kind = "frequency"\ntransform = "log1p"',
            {"log1p_frequency": (math.log(4), math.log(2))},
        ),
        ('kind = "spend"\nhalf_lives_days = [30]', {"spend_h30d": (10 + 8.5 + 3.75, 1.25)}),
        (
            'kind = "share"\nlevel = "aisle"\nvalues = ["tea", "soap"]\nhalf_life_days = 30',
            {
                "share_visits_h30d:aisle=tea": (1.5 / 1.625, 0.0),
                "share_visits_h30d:aisle=soap": (0.5 / 1.625, 1.0),
            },
        ),
        (
            'kind = "share"\nof = "spend"\nlevel = "aisle"\nvalues = "taxonomy"',
            {
                "share_spend:aisle=fuel": (0.0, 0.0),
                "share_spend:aisle=soap": (20 / 61.25, 1.0),
                "share_spend:aisle=tea": (10 / 61.25, 0.0),
            },
        ),
        ('kind = "cadence"', {"cadence": (45.0, 365.0)}),
        ('kind = "cadence"\nundefined = -1.5', {"cadence": (45.0, -1.5)}),
        ('kind = "overdue"', {"overdue": (0.0, 0.0)}),
        (
            'kind = "trend"\nshort_half_life_days = 30\nlong_half_life_days = 60',
            {
                "trend_visits_h30d_over_h60d": (
                    1.625 / 30 / ((1 + 2**-0.5 + 2**-1.5) / 60),
                    0.25 / 30 / (0.5 / 60),
                )
            },
        ),
        (
            'kind = "diversity"\nlevel = "aisle"',
            {"diversity_visits:aisle": (math.log(3) - 2 * math.log(2) / 3, 0.0)},
        ),
        (
            'kind = "diversity"\nof = "spend"\nlevel = "aisle"',
            {"diversity_spend:aisle": (-math.log(1 / 3) / 3 - math.log(2 / 3) * 2 / 3, 0.0)},
        ),
        ('kind = "basket_size"', {"basket_size_spend": (57 / 4, 5.0)}),
        ('kind = "basket_size"\nof = "lines"', {"basket_size_lines": (5 / 4, 1.0)}),
        (
            'kind = "basket_size"\nof = "lines"\nhalf_life_days = 30',
            {"basket_size_lines_h30d": ((1 + 1.5 + 0.125) / (1 + 1 + 0.125), 1.0)},
        ),
    ],
)
def test_by_hand(indicator: str, expected: dict[str, tuple[float, float]]) -> None:
    spec = spec_of(f"[[indicator]]\n{indicator}", taxonomy=TAXONOMY_KEY)
    result = compute(BY_HAND, spec, AS_OF, taxonomy=TAXONOMY)
    assert result.customer_ids.to_pylist() == ["ann", "bob"]
    assert result.names == tuple(expected)
    assert result.matrix.dtype == np.float32
    assert result.matrix.flags.c_contiguous
    np.testing.assert_allclose(result.matrix.T, list(expected.values()), rtol=1e-6)


def test_a_level_and_an_exclusion_may_be_columns_of_the_events() -> None:
    events = EVENTS + 'exclude = { till = ["south"] }\n'
    spec = spec_of('[[indicator]]\nkind = "share"\nlevel = "till"\nvalues = ["north"]', events)
    result = compute(BY_HAND, spec, AS_OF)
    assert rows_by_customer(result)["ann"] == {"share_visits:till=north": 1.0}


def test_exclusion_by_taxonomy_keeps_rows_that_the_taxonomy_lacks() -> None:
    events = EVENTS + 'amount_min_exclusive = 0\nexclude = { aisle = ["tea"], shelf = [9] }\n'
    indicators = """
        [[indicator]]
        kind = "spend"
        [[indicator]]
        kind = "share"
        level = "aisle"
        values = "taxonomy"
    """
    spec = spec_of(indicators, events, TAXONOMY_KEY)
    result = compute(BY_HAND, spec, AS_OF, taxonomy=TAXONOMY)
    # fuel and tea are gone from the values: no row that is left can have them.
    assert result.names == ("spend", "share_visits:aisle=soap")
    assert rows_by_customer(result)["ann"] == {"spend": 51.25, "share_visits:aisle=soap": 0.5}


def test_an_event_on_as_of_counts_and_a_later_one_does_not() -> None:
    events = table(
        [
            ("ann", ago(0, 23), "1", 1.0, None, None),
            ("ann", ago(-1, 0), "2", 1.0, None, None),
            ("eve", ago(-1, 0), "3", 1.0, None, None),
        ]
    )
    spec = spec_of('[[indicator]]\nkind = "recency"\n[[indicator]]\nkind = "frequency"')
    result = compute(events, spec, AS_OF)
    assert rows_by_customer(result) == {"ann": {"recency": 0.0, "frequency": 1.0}}
    with pytest.raises(InputError, match="hold none that is kept"):
        compute(events, spec, AS_OF - timedelta(days=1))


def test_one_who_left_long_ago_is_defined_and_a_tiny_value_is_zero() -> None:
    events = table([("old", ago(40_000 + gap), "1", 2.0, "a1", None) for gap in (0, 5)])
    spec = spec_of(
        """
        [[indicator]]
        kind = "frequency"
        half_lives_days = [1, 250]
        [[indicator]]
        kind = "share"
        level = "aisle"
        values = ["tea"]
        half_life_days = 1
        [[indicator]]
        kind = "trend"
        short_half_life_days = 1
        long_half_life_days = 250
        [[indicator]]
        kind = "basket_size"
        half_life_days = 1
        """,
        taxonomy=TAXONOMY_KEY,
    )
    (row,) = compute(events, spec, AS_OF, taxonomy=TAXONOMY).matrix.tolist()
    # 2^−160 is below the smallest normal float32.
    assert row == [0.0, 0.0, 1.0, 0.0, 2.0]


def test_days_before_1970_and_offsets_count_in_utc() -> None:
    instant = datetime(1969, 12, 31, 23, 30, tzinfo=UTC)
    zoned = pa.array([instant], pa.timestamp("us", tz="Asia/Tokyo"))
    spec = IndicatorSpec.from_toml(
        '[events]\ncustomer = "who"\ntime = "when"\n[[indicator]]\nkind = "recency"'
    )
    texts = ["1969-12-31T23:30:00Z", "1970-01-01 08:30:00+09:00", "1969-12-31"]
    for when in (zoned, pa.array([date(1969, 12, 31)]), *(pa.array([text]) for text in texts)):
        result = compute(pa.table({"who": [7], "when": when}), spec, date(1970, 1, 1))
        assert rows_by_customer(result) == {"7": {"recency": 1.0}}


# ---- by an independent oracle ------------------------------------------------------------


class Oracle:
    """Every kind again, slowly, with floats and dictionaries, from one customer's rows."""

    def __init__(self, rows: list[Row]) -> None:
        taxonomy = {row["product"]: row for row in TAXONOMY.to_pylist()}
        self.days: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for _, when, bag, paid, product, till in rows:
            age = (AS_OF - when.date()).days
            known = taxonomy.get(product, {})
            event = {"bag": bag, "paid": paid, "till": till, "aisle": known.get("aisle")}
            event["shelf"] = str(known["shelf"]) if known else None
            if age >= 0:
                self.days[age].append(event)
        self.last = min(self.days, default=0)

    def spend(self, half_life: float = math.inf) -> float:
        return sum(
            2 ** (-age / half_life) * sum(event["paid"] for event in events)
            for age, events in self.days.items()
        )

    def frequency(self, half_life: float = math.inf) -> float:
        return sum(2 ** (-age / half_life) for age in self.days)

    def bought(self, age: int, level: str | None = None, value: str | None = None) -> float:
        return sum(
            max(event["paid"], 0.0)
            for event in self.days[age]
            if level is None or event[level] == value
        )

    def share(self, of: str, level: str, value: str, half_life: float = math.inf) -> float:
        part = whole = 0.0
        for age, events in self.days.items():
            weight = 2 ** (-(age - self.last) / half_life)
            if of == "visits":
                whole += weight
                part += weight * any(event[level] == value for event in events)
            else:
                whole += weight * self.bought(age)
                part += weight * self.bought(age, level, value)
        return part / whole if whole else math.nan

    def cadence(self) -> float:
        ages = sorted(self.days)
        gaps = [later - sooner for sooner, later in pairwise(ages)]
        return median(gaps) if gaps else math.nan

    def trend(self, of: str, short: float, long: float) -> float:
        def rate(half_life: float) -> float:
            return sum(
                2 ** (-age / half_life) * (self.bought(age) if of == "spend" else 1)
                for age in self.days
            )

        return rate(short) / short / (rate(long) / long) if rate(long) else math.nan

    def diversity(self, of: str, level: str) -> float:
        counts: dict[str, float] = defaultdict(float)
        for age, events in self.days.items():
            for value in {event[level] for event in events} - {None}:
                counts[value] += 1 if of == "visits" else self.bought(age, level, value)
        total = sum(counts.values())
        parts = [count / total for count in counts.values() if count > 0]
        return -sum(part * math.log(part) for part in parts) if parts else math.nan

    def basket_size(self, of: str, half_life: float = math.inf) -> float:
        size = baskets = 0.0
        for age, events in self.days.items():
            weight = 2 ** (-(age - self.last) / half_life)
            size += weight * (len(events) if of == "lines" else sum(e["paid"] for e in events))
            baskets += weight * len({event["bag"] for event in events})
        return size / baskets

    def every_kind(self) -> dict[str, float]:
        """What EVERY_KIND asks for."""
        spend = self.spend()
        expected = {
            "recency": float(self.last),
            "frequency": self.frequency(),
            "log1p_frequency_h7d": math.log1p(self.frequency(7)),
            "log1p_frequency_h30.5d": math.log1p(self.frequency(30.5)),
            "spend_h10d": self.spend(10),
            "spend_h90d": self.spend(90),
            "log1p_spend": math.copysign(math.log1p(abs(spend)), spend),
            "share_visits_h20d:aisle=fuel": self.share("visits", "aisle", "fuel", 20),
            "share_visits_h20d:aisle=soap": self.share("visits", "aisle", "soap", 20),
            "share_visits_h20d:aisle=tea": self.share("visits", "aisle", "tea", 20),
            "share_spend:shelf=3": self.share("spend", "shelf", "3"),
            "share_spend:shelf=1": self.share("spend", "shelf", "1"),
            "share_spend_h5d:till=north": self.share("spend", "till", "north", 5),
            "share_spend_h5d:till=nowhere": self.share("spend", "till", "nowhere", 5),
            "cadence": self.cadence(),
            "overdue": self.last / self.cadence(),
            "trend_visits_h7d_over_h60d": self.trend("visits", 7, 60),
            "trend_spend_h3d_over_h30d": self.trend("spend", 3, 30),
            "diversity_visits:aisle": self.diversity("visits", "aisle"),
            "diversity_spend:till": self.diversity("spend", "till"),
            "basket_size_spend_h15d": self.basket_size("spend", 15),
            "basket_size_lines": self.basket_size("lines"),
        }
        undefined = {
            "cadence": 365.0,
            "overdue": 0.25,
            "share_spend_h5d:till=north": -1.0,
            "share_spend_h5d:till=nowhere": -1.0,
            "diversity_spend:till": -2.0,
        }
        return {
            name: undefined.get(name, 0.0) if math.isnan(value) else value
            for name, value in expected.items()
        }


def rows_of(customers: list[str]) -> st.SearchStrategy[Row]:
    return st.tuples(
        st.sampled_from(customers),
        st.builds(ago, st.integers(-3, 120), st.integers(0, 23)),
        st.sampled_from(["1", "2", "3"]),
        st.integers(-300, 2000).map(lambda cents: cents / 100),
        st.sampled_from(["a1", "a2", "b1", "b2", "c1", "x9", None]),
        st.sampled_from(["north", "south", None]),
    )


#: In the order of code points, which is not the order of UTF-16: "﹏" < "😀".
CUSTOMERS = ["10", "9", "Zoë", "a b", "é", "﹏", "😀"]


@settings(max_examples=25)
@given(st.lists(rows_of(CUSTOMERS), min_size=1, max_size=40))
def test_every_kind_equals_the_oracle(rows: list[Row]) -> None:
    spec = IndicatorSpec.from_toml(EVERY_KIND)
    present = sorted({row[0] for row in rows if row[1].date() <= AS_OF})
    if not present:
        return
    result = compute(table(rows), spec, AS_OF, taxonomy=TAXONOMY, threads=1)
    assert result.customer_ids.to_pylist() == present
    for customer, row in rows_by_customer(result).items():
        expected = Oracle([row for row in rows if row[0] == customer]).every_kind()
        assert list(row) == list(expected)
        for name, value in expected.items():
            # The oracle adds floats where the library adds cents: what cancels differs by 1e-12.
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_no_kind_is_left_out_of_the_oracle() -> None:
    asked = {each.kind for each in IndicatorSpec.from_toml(EVERY_KIND).indicators}
    assert asked == set(KINDS)


# ---- what must not change a result -------------------------------------------------------


@settings(max_examples=20)
@given(
    st.lists(rows_of(["me"]), min_size=1, max_size=15),
    st.lists(rows_of(["a", "z", "é"]), max_size=30),
    st.lists(rows_of(["0", "b", "zz"]), max_size=30),
)
def test_nobody_else_changes_my_indicators(
    mine: list[Row], some: list[Row], other: list[Row]
) -> None:
    mine = [*mine, ("me", ago(3), "1", 1.0, "a1", "north")]
    # Tills of others come before, between and after mine, and move the codes of mine.
    other = [(*row[:5], f"{row[5]}!") for row in other]
    spec = IndicatorSpec.from_toml(EVERY_KIND)
    alone, crowded = (
        compute(table(rows), spec, AS_OF, taxonomy=TAXONOMY, threads=1)
        for rows in ([*some, *mine], [*mine[::-1], *other])
    )
    me, still_me = (
        result.matrix[result.customer_ids.to_pylist().index("me")] for result in (alone, crowded)
    )
    assert me.tobytes() == still_me.tobytes()


def crowd(row_count: int, seed: int = 5) -> pa.Table:
    rng = np.random.default_rng(seed)
    day = np.datetime64(AS_OF) - rng.integers(-5, 300, row_count)
    return pa.table(
        {
            "who": rng.integers(0, max(2, row_count // 40), row_count),
            "when": day.astype("datetime64[us]") + rng.integers(0, 86_400_000_000, row_count),
            "bag": rng.integers(0, 50, row_count),
            "paid": np.round(rng.normal(8, 4, row_count), 2),
            "product": rng.choice(["a1", "a2", "b1", "b2", "c1", "x9"], row_count),
            "till": rng.choice(["north", "south", "east"], row_count),
        }
    )


def test_neither_rows_nor_files_nor_threads_nor_blocks_change_a_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = crowd(4000)
    spec = IndicatorSpec.from_toml(EVERY_KIND)
    expected = digest(compute(events, spec, AS_OF, taxonomy=TAXONOMY, threads=1))
    shuffled = events.take(np.random.default_rng(1).permutation(4000))
    odd = tmp_path / "od'd [1]*.parquet"
    pq.write_table(shuffled.slice(0, 1500), odd, row_group_size=100)
    pq.write_table(shuffled.slice(1500, 900), tmp_path / "b.parquet")
    # Other order of columns, other integers, one column more: another schema.
    extra = shuffled.slice(2400, 600).append_column("note", pa.array(["?"] * 600))
    narrow = extra.set_column(0, "who", extra["who"].cast(pa.int16())).select(
        extra.column_names[::-1]
    )
    pq.write_table(narrow, tmp_path / "c.pq")
    pa_csv.write_csv(shuffled.slice(3000), tmp_path / "d.csv")
    with pa.CompressedOutputStream(tmp_path / "e.csv.gz", "gzip") as stream:
        pa_csv.write_csv(shuffled.slice(0, 0), stream)
    files = [odd, *(tmp_path / name for name in ("b.parquet", "c.pq", "d.csv", "e.csv.gz"))]
    pa_csv.write_csv(TAXONOMY, tmp_path / "taxonomy.csv")

    variations: list[tuple[Any, dict[str, Any]]] = [
        (shuffled, {"threads": 2}),
        (events, {"block_customers": 1}),
        (events, {"block_customers": 7}),
        (files, {}),
        ([str(file) for file in reversed(files)], {"threads": 2, "block_customers": 13}),
    ]
    for given_events, options in variations:
        result = compute(given_events, spec, AS_OF, taxonomy=TAXONOMY, **options)
        assert digest(result) == expected
    from_csv = compute(events, spec, AS_OF, taxonomy=tmp_path / "taxonomy.csv")
    assert digest(from_csv) == expected

    monkeypatch.setattr(indicator_events, "BLOCK_EVENTS", 150)
    done: list[tuple[int, int]] = []
    result = compute(
        events, spec, AS_OF, taxonomy=TAXONOMY, progress=lambda *counts: done.append(counts)
    )
    assert digest(result) == expected
    assert len(done) > 20
    assert done[-1] == (len(result.customer_ids),) * 2


def test_integers_come_in_the_one_order_that_sums_are_made_in() -> None:
    spec = IndicatorSpec.from_toml(EVERY_KIND)
    opened = open_ledger(spec.events, "product", spec.indicators, Resources(threads=2))
    with opened as ledger:
        ledger.describe(crowd(20_000), TAXONOMY)
        customer_count = len(ledger.ingest(day_number(AS_OF)))
        days = ledger.days(7, customer_count)
    # Rounding to float32 hides most changes of order, so the order itself is looked at.
    later_first = 10**6 - days.age
    order = np.lexsort((later_first, days.customer))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert days.customer[0] == 0
    assert days.customer[-1] == customer_count - 8
    assert set(days.levels) == {"aisle", "shelf", "till"}
    for rows in days.levels.values():
        order = np.lexsort((rows.code, 10**6 - rows.age, rows.customer))
        np.testing.assert_array_equal(order, np.arange(len(order)))


def test_a_memory_limit_below_the_events_gives_the_same_bytes(tmp_path: Path) -> None:
    events = crowd(800_000).drop_columns(["product"])
    spec = spec_of(
        """
        [[indicator]]
        kind = "spend"
        half_lives_days = [7, 30]
        [[indicator]]
        kind = "basket_size"
        [[indicator]]
        kind = "diversity"
        level = "till"
        """
    )
    assert events.nbytes > 32e6
    spilled: list[int] = []

    def measure(_done: int, _total: int) -> None:
        spilled.append(sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()))

    roomy = compute(events, spec, AS_OF, memory_limit="2GB")
    tight = compute(
        events,
        spec,
        AS_OF,
        memory_limit="32MB",
        threads=1,
        temp_directory=tmp_path,
        progress=measure,
    )
    assert digest(roomy) == digest(tight)
    assert max(spilled) > 1e6
    assert not list(tmp_path.iterdir())
    with pytest.raises(LimitError, match="1MB does not suffice"):
        compute(events, spec, AS_OF, memory_limit="1MB", threads=1)


# ---- what is refused ---------------------------------------------------------------------


def spoiled(column: str, value: object) -> pa.Table:
    """BY_HAND with one cell of row 3 replaced."""
    values = BY_HAND[column].to_pylist()
    values[3] = value
    return BY_HAND.set_column(
        BY_HAND.column_names.index(column), column, pa.array(values, BY_HAND[column].type)
    )


SPEND = '[[indicator]]\nkind = "basket_size"'


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("who", None, "must not be null"),
        ("who", "", "must not be empty, got ''"),
        ("when", None, "must not be null"),
        ("bag", None, "must not be null"),
        ("bag", "", "must not be empty"),
        ("paid", None, "must not be null"),
        ("paid", math.nan, "must be finite, at most 1099511627776 minor units, got 'nan'"),
        ("paid", -math.inf, "must be finite"),
        ("paid", 1.1e10, "must be finite, at most"),
    ],
)
def test_a_bad_cell_names_column_row_and_file(
    tmp_path: Path, column: str, value: object, reason: str
) -> None:
    spec = spec_of(SPEND)
    events = spoiled(column, value)
    with pytest.raises(InputError, match=f"^{column}, row 3, events table: {reason}"):
        compute(events, spec, AS_OF)
    files = [tmp_path / "good.parquet", tmp_path / "bad.parquet"]
    for file, content in zip(files, (BY_HAND, events), strict=True):
        pq.write_table(content, file)
    with pytest.raises(InputError) as caught:
        compute(files, spec, AS_OF)
    assert (caught.value.field, caught.value.row) == (column, 3)
    assert caught.value.subject == f"file {files[1]}"


def test_a_bad_cell_of_a_large_file_is_found_in_its_row(tmp_path: Path) -> None:
    events = crowd(300_000)
    paid = events["paid"].to_numpy().copy()
    paid[[251_234, 290_000]] = np.nan
    events = events.set_column(3, "paid", pa.array(paid))
    pq.write_table(events, tmp_path / "e.parquet", row_group_size=9_000)
    pa_csv.write_csv(events, tmp_path / "e.csv")
    for name in ("e.parquet", "e.csv"):
        with pytest.raises(InputError, match=r"^paid, row 251234, file .*: must be finite"):
            compute(tmp_path / name, spec_of(SPEND), AS_OF, threads=2)


@pytest.mark.parametrize("when", ["yesterday", "2020-02-30", "infinity", "20000-01-01"])
def test_text_that_is_no_date_is_refused(tmp_path: Path, when: str) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f"who,when,bag,paid\n007,2020-01-01,1,2.5\n007,{when},1,2.5\n")
    with pytest.raises(InputError, match=rf"^when, row 1, .*years 1 to 9999, got '{when}'"):
        compute(path, spec_of(SPEND), AS_OF)
    path.write_text("who,when,bag,paid\n007,2020-01-01,1,2.5\n")
    assert compute(path, spec_of(SPEND), AS_OF).customer_ids.to_pylist() == ["007"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "first line must name every column once"),
        ("a.csv", b"who,WHO\n1,2\n", "first line must name every column once"),
        ("a.csv", b"who,when,bag,paid\n1,2020-01-01,1\n", "a.csv: cannot be read: .*Line: 2"),
        ("a.csv", b"who,when,bag,paid\n1,2020-01-01,1,2,3\n", "cannot be read: .*Line: 2"),
        ("a.csv", b"who,when,bag,paid\n\xff,2020-01-01,1,2\n", "can't decode byte 0xff"),
        ("a.csv", b"who,when,bag,paid\n", "hold none"),
        ("a.csv", b"who,when,bag\n1,2020-01-01,1\n", "^paid, file .*: no such column; there are"),
        ("a.csv", b"Who,when,bag,paid\n1,2020-01-01,1,1\n", "^who, file .*: no such column"),
        ("a.parquet", b"PAR1", "^events, file .*a.parquet: "),
        ("a.txt", b"", "must end in one of .parquet"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        compute(tmp_path / name, spec_of(SPEND), AS_OF)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("who", [1.0], "^who: must be integers or text, is DOUBLE"),
        ("when", [1], "^when: must be dates, timestamps or text, is BIGINT"),
        ("paid", [True], "^paid: must be numbers, is BOOLEAN"),
        ("bag", [date(2020, 1, 1)], "^bag: must be integers or text, is DATE"),
    ],
)
def test_a_wrong_type_is_refused(column: str, values: list[object], reason: str) -> None:
    events = BY_HAND.slice(0, 1)
    events = events.set_column(events.column_names.index(column), column, pa.array(values))
    with pytest.raises(SchemaError, match=reason):
        compute(events, spec_of(SPEND), AS_OF)


SHARE = '[[indicator]]\nkind = "share"\nlevel = "aisle"\nvalues = "taxonomy"\n'


@pytest.mark.parametrize(
    ("indicators", "taxonomy", "reason"),
    [
        (SHARE, None, "^taxonomy: the spec has a .taxonomy., but no table was given"),
        (SHARE, TAXONOMY.drop_columns(["product"]), "^product, taxonomy table: no such column"),
        (SHARE, pa.concat_tables([TAXONOMY] * 2), "^product, taxonomy: .* 'a1' is repeated"),
        (
            SHARE,
            TAXONOMY.set_column(0, "product", pa.array(["a", None, "b", "c", "d"])),
            "^product, row 1, taxonomy table: must not be null",
        ),
        (SHARE.replace("aisle", "ailse"), TAXONOMY, "^ailse, events table: no such column"),
        (SHARE.replace("aisle", "till"), TAXONOMY, r"^indicator\[0\].values: the taxonomy has no"),
        (
            SHARE.replace('"taxonomy"', '["tee"]'),
            TAXONOMY,
            r"^indicator\[0\].values: 'tee' is no value of 'aisle'",
        ),
        (
            SHARE,
            TAXONOMY.set_column(1, "aisle", pa.nulls(5, pa.string())),
            r"^indicator\[0\].values: the taxonomy has no value of 'aisle'",
        ),
        (SHARE * 2, TAXONOMY, "^indicator: 2 indicators are named 'share_visits:aisle=fuel'"),
    ],
)
def test_a_bad_taxonomy_or_level_is_refused(
    indicators: str, taxonomy: pa.Table | None, reason: str
) -> None:
    spec = spec_of(indicators, taxonomy=TAXONOMY_KEY)
    with pytest.raises(InputError, match=reason):
        compute(BY_HAND, spec, AS_OF, taxonomy=taxonomy)


def test_integer_keys_join_text_keys() -> None:
    events = pa.table({"who": ["a"], "when": [AS_OF], "product": pa.array([7], pa.int16())})
    spec = IndicatorSpec.from_toml(
        '[events]\ncustomer = "who"\ntime = "when"\n' + TAXONOMY_KEY + SHARE
    )
    for key in (pa.array([7, 8], pa.int64()), pa.array(["7", "8"])):
        taxonomy = pa.table({"product": key, "aisle": ["tea", "soap"]})
        assert compute(events, spec, AS_OF, taxonomy=taxonomy).matrix.tolist() == [[0.0, 1.0]]
    with pytest.raises(SchemaError, match=r"^product: must be integers or text, is DOUBLE"):
        compute(
            events, spec, AS_OF, taxonomy=taxonomy.set_column(0, "product", pa.array([7.0, 8.0]))
        )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"as_of": "yesterday"}, "^as_of: must be an ISO date"),
        ({"events": []}, "^events: no file was given"),
        ({"events": "nowhere.csv"}, "^events, file nowhere.csv: no such file"),
        ({"taxonomy": TAXONOMY}, "^taxonomy: a table was given, but the spec has no"),
        ({"threads": 0}, "^threads: must be at least 1"),
        ({"block_customers": 0}, "^block_customers: must be at least 1"),
        ({"memory_limit": "much"}, "^memory_limit: "),
        ({"temp_directory": Path("nowhere")}, "^temp_directory: no such folder"),
    ],
)
def test_a_bad_argument_is_refused(options: dict[str, Any], reason: str) -> None:
    arguments = {"events": BY_HAND, "spec": spec_of(SPEND), "as_of": AS_OF} | options
    with pytest.raises(InputError, match=reason):
        compute(**arguments)


def test_any_name_is_a_column_and_any_value_a_value() -> None:
    nasty = """x" FROM customers; DROP TABLE events; --'\\\n🙈"""
    events = BY_HAND.rename_columns([f"{name} {nasty}" for name in BY_HAND.column_names])
    tills = pa.array(["north", nasty, "north", "north", "north", "north"])
    events = events.set_column(5, f"till {nasty}", tills)
    name = {key: f"{key} {nasty}" for key in ("who", "when", "bag", "paid", "product", "till")}
    spec = IndicatorSpec.model_validate(
        {
            "events": {
                "customer": name["who"],
                "time": name["when"],
                "basket": name["bag"],
                "amount": name["paid"],
                "exclude": {name["product"]: [nasty, "x9"]},
            },
            "indicator": [
                KINDS["basket_size"].parameters(kind="basket_size"),
                KINDS["share"].parameters.model_validate(
                    {"kind": "share", "level": name["till"], "values": [nasty]}
                ),
            ],
        }
    )
    result = compute(events, spec, AS_OF)
    assert result.matrix.tolist() == [[9.0, 0.5], [5.0, 0.0]]


# ---- spec --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[events", "^spec: is no TOML"),
        ("", "^events: Field required"),
        (EVENTS, "^indicator: "),
        (EVENTS + "indicator = 3", r"^events.indicator: Extra inputs"),
        ("indicator = 3\n" + EVENTS, "^indicator: must be an array of tables"),
        ("indicator = [3]\n" + EVENTS, r"^indicator\[0\]: must be a table"),
        (EVENTS + "curency = 1\n" + SPEND, "^events.curency: Extra inputs"),
        (EVENTS + "minor_units = 0\n" + SPEND, "^events.minor_units: .*got 0"),
        (EVENTS + "amount_min_exclusive = nan\n" + SPEND, "^events.amount_min_exclusive: "),
        (EVENTS + "exclude = { till = [] }\n" + SPEND, "^events.exclude: .*at least one"),
        (EVENTS + "exclude = { till = [1.5] }\n" + SPEND, "^events.exclude: .*texts or integers"),
        (EVENTS.replace("customer", "user") + SPEND, r"^events.customer: .*\(and 1 more\)"),
        (EVENTS.replace("amount", "#") + SPEND, r"^events.amount: must be named, indicator\[0\]"),
        (EVENTS.replace("basket", "#") + SPEND, "^events.basket: must be named"),
        (
            EVENTS.replace("amount", "#")
            + 'amount_min_exclusive = 0\n[[indicator]]\nkind = "recency"',
            "^events.amount: must be named, amount_min_exclusive",
        ),
        (EVENTS + SPEND + '\n[[indicator]]\nkind = "karma"', r"^indicator\[1\].kind: .*'karma'"),
        (EVENTS + "[[indicator]]\nof = 1", r"^indicator\[0\].kind: must be one of basket_size,"),
        (EVENTS + SPEND + '\nof = "joy"', r"^indicator\[0\].of: .*got 'joy'"),
        (EVENTS + SPEND + "\nhalf_life = 9", r"^indicator\[0\].half_life: Extra inputs"),
        (EVENTS + SPEND + "\nhalf_life_days = true", r"^indicator\[0\].half_life_days: .*True"),
        (EVENTS + SPEND + "\nhalf_life_days = 0", r"^indicator\[0\].half_life_days: .*got 0"),
        (EVENTS + SPEND + "\nundefined = inf", r"^indicator\[0\].undefined: .*got inf"),
        (EVENTS + SPEND + '\ntransform = "sqrt"', r"^indicator\[0\].transform: "),
        (
            EVENTS + '[[indicator]]\nkind = "frequency"\nhalf_lives_days = [7, -1]',
            r"^indicator\[0\].half_lives_days\[1\]: .*got -1",
        ),
        (
            EVENTS
            + '[[indicator]]\nkind = "trend"\nshort_half_life_days = 9\nlong_half_life_days = 9',
            r"^indicator\[0\]: .*short_half_life_days must be below",
        ),
        (
            EVENTS + '[[indicator]]\nkind = "share"\nlevel = "till"\nvalues = ["a", "a"]',
            r"^indicator\[0\].values: .*must not repeat a value",
        ),
        (
            EVENTS + '[[indicator]]\nkind = "share"\nlevel = "till"\nvalues = "all"',
            r"^indicator\[0\].values: ",
        ),
    ],
)
def test_a_wrong_spec_names_the_key(text: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason):
        IndicatorSpec.from_toml(text)


def test_a_spec_digest_is_of_its_meaning(tmp_path: Path) -> None:
    spec = IndicatorSpec.from_toml(EVERY_KIND)
    path = tmp_path / "spec.toml"
    path.write_text("# another layout\n" + EVERY_KIND.replace("[7, 30.5]", "[7.0, 30.50]"))
    assert IndicatorSpec.read(path).digest() == spec.digest()
    for old, new in (
        ('"paid"', '"cost"'),
        ("30.5", "30.25"),
        ('"nowhere"', '"there"'),
        ("undefined = 0.25", "undefined = 0"),
        ('key = "product"', 'key = "sku"'),
    ):
        assert IndicatorSpec.from_toml(EVERY_KIND.replace(old, new)).digest() != spec.digest()
    with pytest.raises(InputError, match=r"^spec: cannot be read"):
        IndicatorSpec.read(tmp_path / "none.toml")


def test_a_new_kind_is_one_function() -> None:
    @kind("visit_days", Parameters)
    def visit_days(days: Any, _: Parameters) -> list[Column]:
        return [Column("visit_days", "days", "count", days.total(np.ones(len(days.age))))]

    try:
        spec = spec_of('[[indicator]]\nkind = "visit_days"\ntransform = "log1p"')
        result = compute(BY_HAND, spec, AS_OF)
        with pytest.raises(ValueError, match="registered twice"):
            kind("visit_days", Parameters)(visit_days)
    finally:
        del KINDS["visit_days"]
    assert result.names == ("log1p_visit_days",)
    np.testing.assert_allclose(result.matrix[:, 0], [math.log(4), math.log(2)], rtol=1e-6)
    with pytest.raises(ValueError, match=r"are not those of 'visit_days'"):
        IndicatorSpec.model_validate(spec.model_dump() | {"indicators": spec.indicators})


# ---- the result --------------------------------------------------------------------------


def test_definitions_say_what_is_read() -> None:
    events = EVENTS + 'exclude = { till = ["west"] }\n'
    spec = spec_of(SHARE + SPEND + "\nundefined = 3", events, TAXONOMY_KEY)
    result = compute(BY_HAND, spec, AS_OF, taxonomy=TAXONOMY)
    share, *_, size = result.definitions
    common = ("events.who", "events.when")
    assert share.lineage == (
        *common,
        "events.till",
        "events.product",
        "taxonomy.product",
        "taxonomy.aisle",
    )
    assert size.lineage == (*common, "events.paid", "events.bag", "events.till")
    assert (size.kind, size.unit, size.undefined) == ("basket_size", "amount units", 3.0)
    assert "with aisle = fuel" in share.formula


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    result = compute(BY_HAND, IndicatorSpec.from_toml(EVERY_KIND), AS_OF, taxonomy=TAXONOMY)
    folder = tmp_path / "day=1"
    folder.mkdir()
    result.write(folder / "indicators.parquet")
    again = Indicators.read(folder / "indicators.parquet")
    assert digest(again) == digest(result)
    assert again.matrix.flags.c_contiguous
    assert again.definitions == result.definitions
    assert (again.as_of, again.spec_digest) == (AS_OF, result.spec_digest)
    assert result.to_table().equals(again.to_table(), check_metadata=True)


def test_a_table_that_is_not_of_indicators_is_refused(tmp_path: Path) -> None:
    spec = spec_of('[[indicator]]\nkind = "recency"')
    good = compute(BY_HAND, spec, AS_OF).to_table()
    meaning, metadata = good.schema.field(1).metadata, good.schema.metadata

    def column(values: list[float | None], dtype: pa.DataType) -> pa.Table:
        changed = pa.field("recency", dtype, metadata=meaning)
        return good.set_column(1, changed, pa.array(values, dtype))

    renamed = good.rename_columns(["customer_id", "other"]).replace_schema_metadata(metadata)
    ids = [pa.array(["b", "a"]), pa.array(["a", "a"]), pa.array(["a", None])]
    wrong = [
        (good.replace_schema_metadata(), "^visavis.as_of: no such metadata"),
        (good.drop_columns(["customer_id"]), "^customer_id: must be the first column"),
        (renamed, "^other: must be float32 and named"),
        (column([1.0, 2.0], pa.float64()), "^recency: must be float32"),
        (column([1.0, math.inf], pa.float32()), "^recency, row 1: must be finite"),
        (column([None, 1.0], pa.float32()), "^recency, row 0: must be finite"),
        (
            good.append_column("x", pa.array([1.0, 2.0], pa.float32())),
            "^x: has no definition",
        ),
        *((good.set_column(0, "customer_id", each), "^customer_id: must ascend") for each in ids),
    ]
    for table_given, reason in wrong:
        with pytest.raises(InputError, match=reason):
            Indicators.from_table(table_given)
    with pytest.raises(InputError, match=r"^indicators: cannot be read"):
        Indicators.read(tmp_path / "none.parquet")
    assert Indicators.from_table(good.slice(0, 0)).matrix.shape == (0, 1)


def test_import_needs_neither_duckdb_nor_pandas() -> None:
    code = "import sys, visavis.indicators; print({'duckdb', 'pandas'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
