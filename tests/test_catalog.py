"""The catalog: one schema in every format, and one order."""

import math
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.catalog import Catalog, HistoryTerm
from visavis.domain import MAGNITUDE_MAX, FactKind, Link
from visavis.errors import InputError, NotFoundError, SchemaError

TERM = {"kind": "bought", "feature": "days", "half_life_days": 60, "scale": 2, "weight": 0.5}

TEA = {
    "id": "tea-email",
    "name": "Tea by mail",
    "product": "tea",
    "variant": "green",
    "message": 'Dear {name},\r\n"tea", é𝄞\r',
    "channel": "email",
    "family": "drinks",
    "weights": {"spend": 0.1, "age": -2},
    "bias": -1.5,
    "history_weights": [TERM, {"kind": "refused", "feature": "ever", "weight": -3}],
    "value": 12.5,
    "cost": 0.25,
    "link": "count",
    "rule": "age >= 18 and country in ('FR', 'BE')",
    "valid_from": "2017-01-01",
    "valid_to": date(2017, 12, 31),
}
PLAIN = {"id": "milk-phone", "product": "milk", "channel": "phone", "weights": {}}

ROWS = [TEA, PLAIN]

TOML = """
[[capability]]
id = "milk-phone"
product = "milk"
channel = "phone"
weights = {}

[[capability]]
id = "tea-email"
name = "Tea by mail"
product = "tea"
variant = "green"
message = "Dear {name},\\r\\n\\"tea\\", é𝄞\\r"
channel = "email"
family = "drinks"
bias = -1.5
value = 12.5
cost = 0.25
link = "count"
rule = "age >= 18 and country in ('FR', 'BE')"
valid_from = 2017-01-01
valid_to = "2017-12-31"
[capability.weights]
spend = 0.1
age = -2
[[capability.history_weights]]
kind = "bought"
feature = "days"
half_life_days = 60
scale = 2
weight = 0.5
[[capability.history_weights]]
kind = "refused"
feature = "ever"
weight = -3
"""


def row(**changed):
    return {**PLAIN, **changed}


def test_every_column_arrives():
    catalog = Catalog.from_rows(ROWS)
    assert catalog.capability_count == 2
    assert catalog.ids == ("milk-phone", "tea-email")
    assert catalog.names[1] == "Tea by mail"
    assert (catalog.products[1], catalog.variants[1]) == ("tea", "green")
    assert catalog.messages[1] == TEA["message"]
    assert (catalog.channels[1], catalog.families[1]) == ("email", "drinks")
    assert catalog.indicator_names == ("age", "spend")
    np.testing.assert_array_equal(catalog.weights[1], np.array([-2, 0.1], np.float32))
    assert catalog.weights.dtype == catalog.bias.dtype == np.float32
    assert catalog.value.dtype == catalog.cost.dtype == np.float64
    assert (catalog.bias[1], catalog.value[1], catalog.cost[1]) == (-1.5, 12.5, 0.25)
    assert Link(catalog.link[1]) is Link.COUNT
    assert catalog.rules[1] == TEA["rule"]
    assert (catalog.valid_from[1], catalog.valid_to[1]) == (date(2017, 1, 1), date(2017, 12, 31))
    assert catalog.history_weights[1] == (
        HistoryTerm(FactKind.BOUGHT, "days", 60.0, 2.0, 0.5),
        HistoryTerm(FactKind.REFUSED, "ever", None, 1.0, -3.0),
    )
    assert repr(catalog) == "Catalog(2 capabilities, 2 indicators)"


def test_what_is_absent_has_its_documented_default():
    catalog = Catalog.from_rows(ROWS)
    assert (catalog.names[0], catalog.families[0]) == ("milk-phone", "milk")
    assert (catalog.variants[0], catalog.messages[0]) == ("", "")
    assert (catalog.bias[0], catalog.value[0], catalog.cost[0]) == (0, 1, 0)
    assert Link(catalog.link[0]) is Link.LOGISTIC
    assert (catalog.rules[0], catalog.valid_from[0], catalog.valid_to[0]) == (None, None, None)
    assert catalog.history_weights[0] == ()
    assert not catalog.weights[0].any()


def test_an_absent_column_an_empty_text_and_a_null_are_the_same():
    blank = dict.fromkeys([name for name in TEA if name not in PLAIN])
    empty = {**blank, **dict.fromkeys(("name", "variant", "family", "link", "rule"), "")}
    digests = {Catalog.from_rows([row(**each)]).digest() for each in ({}, blank, empty)}
    assert len(digests) == 1


def test_arrays_cannot_be_written():
    catalog = Catalog.from_rows(ROWS)
    terms = catalog.history_terms
    for array in (catalog.weights, catalog.bias, catalog.value, catalog.cost, catalog.link):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        terms.weight[0] = 0
    with pytest.raises(AttributeError):
        catalog.columns = None


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "JSONL"])
def test_a_written_catalog_reads_back_the_same(suffix, tmp_path):
    catalog = Catalog.from_rows(ROWS)
    path = tmp_path / f"catalog.{suffix}"
    catalog.write(path)
    back = Catalog.read(str(path))
    assert back.digest() == catalog.digest()
    assert back.to_table().equals(catalog.to_table())
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_toml_reads_the_same(tmp_path):
    path = tmp_path / "catalog.toml"
    path.write_text(TOML, encoding="utf-8")
    assert Catalog.read(path).digest() == Catalog.from_rows(ROWS).digest()
    with pytest.raises(InputError, match="must end in"):
        Catalog.from_rows(ROWS).write(path)


def test_the_order_of_rows_and_of_columns_never_matters():
    expected = Catalog.from_rows(ROWS).digest()
    assert Catalog.from_rows(ROWS[::-1]).digest() == expected
    table = Catalog.from_rows(ROWS).to_table()
    shuffled = table.select(table.column_names[::-1]).take(pa.array([1, 0]))
    assert Catalog.from_table(shuffled).digest() == expected
    parts = pa.concat_tables([table.slice(1, 1), table.slice(0, 0), table.slice(0, 1)])
    assert Catalog.from_table(parts).digest() == expected


def test_other_layouts_of_the_same_columns_are_accepted():
    table = Catalog.from_rows(ROWS).to_table()
    wide = [
        pa.field("weights", pa.map_(pa.large_string(), pa.float64())),
        pa.field("value", pa.float32()),
        pa.field("message", pa.large_string()),
        pa.field("valid_to", pa.string()),
        pa.field(
            "history_weights", pa.large_list(table.schema.field("history_weights").type.value_type)
        ),
    ]
    other = table
    for field in wide:
        at = other.schema.get_field_index(field.name)
        other = other.set_column(at, field, other[field.name].cast(field.type))
    for name in ("product", "channel", "link", "rule"):
        at = other.schema.get_field_index(name)
        other = other.set_column(at, name, other[name].dictionary_encode())
    assert Catalog.from_table(other).digest() == Catalog.from_table(table).digest()


def test_numbers_may_be_integers_and_nulls_are_defaults():
    table = pa.table(
        {
            "id": ["b", "a"],
            "product": ["p", "p"],
            "channel": ["c", "c"],
            "weights": pa.array([[("x", 2)], []], pa.map_(pa.string(), pa.int64())),
            "bias": pa.array([1, None], pa.int8()),
            "value": pa.array([2**60 + 1, None], pa.uint64()),
            "rule": pa.nulls(2),
        }
    )
    catalog = Catalog.from_table(table)
    assert catalog.value.tolist() == [1, float(2**60)]
    assert catalog.bias.tolist() == [0, 1]
    assert catalog.weights.tolist() == [[0], [2]]


def test_ids_are_ordered_by_their_utf8_bytes():
    ids = ["z", "é", "a", "\U0001d11e", "\uffff", "Z", "a\0", "ab"]
    catalog = Catalog.from_rows([row(id=each) for each in ids])
    assert list(catalog.ids) == sorted(ids, key=str.encode)
    assert [catalog.index_of(each) for each in catalog.ids] == list(range(len(ids)))
    for unknown in ("", "b", "zz", "\U0010ffff"):
        with pytest.raises(NotFoundError, match="no capability"):
            catalog.index_of(unknown)


def test_a_weight_of_zero_says_nothing():
    catalog = Catalog.from_rows([row(weights={"a": 0, "b": -0.0, "c": 1, "d": 1e-300}, bias=-0.0)])
    assert catalog.indicator_names == ("c",)
    assert not np.signbit(catalog.bias).any()
    assert catalog.digest() == Catalog.from_rows([row(weights={"c": 1})]).digest()


def test_codes_are_sorted_labels():
    rows = [row(id=str(at), family=name) for at, name in enumerate(["é", "z", "a", "z", "𝄞"])]
    codes, labels = Catalog.from_rows(rows).codes("family")
    assert labels == ("a", "z", "é", "𝄞")
    assert codes.tolist() == [2, 1, 0, 1, 3]
    assert codes.dtype == np.int32
    with pytest.raises(SchemaError, match="did you mean 'product'"):
        Catalog.from_rows(rows).codes("produkt")


def test_weights_are_aligned_with_the_indicators_of_a_base():
    catalog = Catalog.from_rows(ROWS)
    aligned = catalog.aligned_weights(["x", "spend", "y", "age"])
    assert aligned.flags.c_contiguous
    assert aligned.dtype == np.float32
    np.testing.assert_array_equal(aligned[1], np.array([0, 0.1, 0, -2], np.float32))
    assert not aligned[0].any()
    with pytest.raises(SchemaError, match="did you mean 'spent'") as caught:
        catalog.aligned_weights(["age", "spent"])
    assert caught.value.field == "weights['spend']"
    assert caught.value.subject == "capability 'tea-email'"
    with pytest.raises(SchemaError, match="repeat"):
        catalog.aligned_weights(["age", "spend", "age"])


def test_replaced_columns_are_checked_again():
    catalog = Catalog.from_rows(ROWS)
    plain = catalog.with_columns(value=1, cost=0)
    assert (plain.value.tolist(), plain.cost.tolist()) == ([1, 1], [0, 0])
    assert plain.bias is catalog.bias
    assert catalog.with_columns(bias=[1, 2]).bias.tolist() == [1, 2]
    for name, value, reason in (
        ("value", [1, -1], "negative"),
        ("cost", [0, 2.0**101], "2\\^100"),
        ("bias", [0, 1e39], "float32"),
        ("bias", [0, math.nan], "finite"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            catalog.with_columns(**{name: value})
        assert (caught.value.field, caught.value.row) == (name, 1)
        assert caught.value.subject == "capability 'tea-email'"
    for wrong in ([1, 2, 3], "much", [[1, 2]]):
        with pytest.raises(SchemaError, match="must be a number, or 2 of them"):
            catalog.with_columns(value=wrong)


def test_a_part_of_a_catalog_is_the_catalog_of_these_capabilities():
    rows = [TEA, PLAIN, row(id="x", weights={"z": 1}, history_weights=[TERM])]
    catalog = Catalog.from_rows(rows)
    part = catalog.take([2, 1])
    assert part.digest() == Catalog.from_rows([TEA, rows[2]]).digest()
    for wrong in ([], [0, 0], [3], [-1], [0.5], 1):
        with pytest.raises(InputError) as caught:
            catalog.take(wrong)
        assert caught.value.field == "capability_index"


texts = st.text(st.characters(codec="utf-8"), max_size=6)
names = texts.filter(lambda text: text not in ("", "history"))
narrow = st.floats(width=32, allow_nan=False, allow_infinity=False)
money = st.floats(-MAGNITUDE_MAX, MAGNITUDE_MAX)
positive = st.floats(5e-324, 1e300)
terms = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["bought", "refused", "contacted"]),
        "feature": st.sampled_from(["days", "log_days", "recency", "ever", "log_count"]),
        "weight": st.floats(allow_nan=False, allow_infinity=False),
    },
    optional={"half_life_days": st.none() | positive, "scale": positive},
)
capabilities = st.fixed_dictionaries(
    {
        "id": texts.filter(bool),
        "product": texts.filter(bool),
        "channel": texts.filter(bool),
        "weights": st.dictionaries(names, narrow, max_size=4),
    },
    optional={
        "name": texts,
        "variant": texts,
        "message": texts,
        "family": texts,
        "rule": texts,
        "bias": narrow,
        "value": money.map(abs),
        "cost": money,
        "link": st.sampled_from(["logistic", "count", "identity"]),
        "history_weights": st.lists(terms, max_size=3),
        "valid_from": st.none() | st.dates(max_value=date(2000, 1, 1)),
        "valid_to": st.none() | st.dates(min_value=date(2000, 1, 1)),
    },
)


@settings(max_examples=30)
@given(st.lists(capabilities, min_size=1, max_size=6, unique_by=lambda each: each["id"]), st.data())
def test_any_catalog_survives_every_format_and_order(tmp_path_factory, rows, data):
    catalog = Catalog.from_rows(rows)
    expected = catalog.digest()
    assert Catalog.from_rows(data.draw(st.permutations(rows))).digest() == expected
    assert list(catalog.ids) == sorted((each["id"] for each in rows), key=str.encode)
    folder = tmp_path_factory.mktemp("catalog")
    for suffix in ("parquet", "csv", "jsonl"):
        path = folder / f"catalog.{suffix}"
        catalog.write(path)
        assert Catalog.read(path).digest() == expected, suffix
    for each in rows:
        at = catalog.index_of(each["id"])
        held = dict(zip(catalog.indicator_names, catalog.weights[at].tolist(), strict=True))
        assert {name: weight for name, weight in held.items() if weight} == {
            name: weight for name, weight in each["weights"].items() if weight
        }
