"""History adjustments against a slow oracle that reads like the definition."""

import itertools
import math
from collections import defaultdict
from datetime import date, timedelta
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis import kernel
from visavis.catalog import Catalog
from visavis.errors import InputError, SchemaError
from visavis.features import FEATURES
from visavis.history import adjust, adjustments, last_contact_days, term_contributions

AS_OF = date(2017, 10, 20)

SCHEMA = pa.schema(
    [
        pa.field("customer_index", pa.int64()),
        pa.field("product", pa.string()),
        pa.field("capability_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("date", pa.date32()),
        pa.field("count", pa.int64()),
    ]
)


def ago(days):
    return AS_OF - timedelta(days=days)


def fact(customer=0, product=None, capability=None, kind="bought", age=0, count=1):
    return {
        "customer_index": customer,
        "product": product,
        "capability_id": capability,
        "kind": kind,
        "date": ago(age),
        "count": count,
    }


def table(*facts):
    return pa.Table.from_pylist(list(facts), SCHEMA)


def term(feature="days", kind="bought", weight=1.0, half_life=None, scale=1.0):
    return {
        "kind": kind,
        "feature": feature,
        "half_life_days": half_life,
        "scale": scale,
        "weight": weight,
    }


def capability(name, product, *terms, channel="email"):
    return {
        "id": name,
        "product": product,
        "channel": channel,
        "weights": {},
        "history_weights": list(terms),
    }


def catalog_of(*capabilities):
    return Catalog.from_rows(capabilities)


def dense(found, capability_count):
    """The CSR as a matrix, after checking that it is one."""
    indptr, index, adjustment = found
    assert (indptr.dtype, index.dtype, adjustment.dtype) == (np.int64, np.int32, np.float32)
    assert indptr[0] == 0
    assert indptr[-1] == len(index) == len(adjustment)
    assert adjustment.all(), "a pair without an adjustment is absent"
    matrix = np.zeros((len(indptr) - 1, capability_count), dtype=np.float32)
    for customer in range(len(matrix)):
        entries = slice(indptr[customer], indptr[customer + 1])
        assert (np.diff(index[entries]) > 0).all()
        matrix[customer, index[entries]] = adjustment[entries]
    return matrix


def oracle(facts, catalog, customer_count, exp, log1p):
    """h of every pair in float64, by loops over the definition."""
    days = defaultdict(lambda: defaultdict(int))
    for each in facts:
        if each["date"] <= AS_OF:
            level = "product" if each["capability_id"] is None else "capability_id"
            key = (each["customer_index"], level, each[level], each["kind"])
            days[key][each["date"]] += each["count"]
    matrix = np.zeros((customer_count, catalog.capability_count))
    for customer in range(customer_count):
        for j, terms in enumerate(catalog.history_weights):
            subjects = (("product", catalog.products[j]), ("capability_id", catalog.ids[j]))

            def history_of(kind, customer=customer, subjects=subjects):
                return [days.get((customer, *subject, kind), {}) for subject in subjects]

            for each in terms:
                matrix[customer, j] += each.weight * feature_of(
                    each, history_of(str(each.kind)), exp, log1p
                )
            if any(history_of("excluded")):
                matrix[customer, j] = -math.inf
    return matrix


def feature_of(each, levels, exp, log1p):
    if not any(levels):
        return 0.0
    half_life = math.inf if each.half_life_days is None else each.half_life_days

    def decay(day):
        return exp(-math.log(2) * (AS_OF - day).days / half_life)

    if each.feature == "ever":
        return 1.0
    if each.feature == "recency":
        return max(decay(max(level)) for level in levels if level)
    if each.feature in ("log_since", "due", "regularity"):
        return gap_feature_of(each, [sorted(level) for level in levels if level], log1p)
    sums = []
    for level in levels:
        total = 0.0
        for day in sorted(level):
            total += (level[day] if each.feature == "log_count" else 1) * decay(day)
        sums.append(total)
    total = sums[0] + sums[1]
    return total if each.feature == "days" else log1p(total / each.scale)


def gap_feature_of(each, levels, log1p):
    if each.feature == "log_since":
        closeness = max(1.0 / (1.0 + (AS_OF - level[-1]).days) for level in levels)
        return log1p((1.0 / closeness - 1.0) / each.scale)
    said = [0.0]
    for level in levels:
        gaps = [(after - before).days for before, after in itertools.pairwise(level)]
        mean = sum(gaps) / max(len(gaps), 1)
        if each.feature == "due" and gaps:
            said.append(log1p((AS_OF - level[-1]).days / mean))
        if each.feature == "regularity" and len(gaps) > 1:
            deviation = 0.0
            for gap in gaps:
                deviation += abs(gap - mean)
            said.append(mean / (mean + deviation / len(gaps)))
    return max(said)


def own_exp(y):
    return float(kernel.exp(np.array([y]))[0])


def own_log1p(x):
    return float(kernel.log1p(np.array([x]))[0])


CUSTOMER_COUNT = 4
PRODUCTS = ("p", "q", "é", "retired")
CAPABILITIES = ("a", "b", "c", "d", "e", "retired")
KINDS = ("bought", "refused", "contacted", "excluded")

terms = st.builds(
    term,
    feature=st.sampled_from(sorted(FEATURES)),
    kind=st.sampled_from(KINDS[:3]),
    weight=st.sampled_from([0.0, 1.0, -0.3, 1e-30, 7.25]),
    half_life=st.sampled_from([None, 0.5, 7.0, 60.0, 1e300, 1e-300]),
    scale=st.sampled_from([1.0, 0.1, 30.0]),
)
catalogs = st.lists(
    st.tuples(st.sampled_from(PRODUCTS[:3]), st.lists(terms, max_size=3)), min_size=1, max_size=5
).map(
    lambda drawn: catalog_of(
        *(
            capability(name, product, *listed)
            for name, (product, listed) in zip(CAPABILITIES, drawn, strict=False)
        )
    )
)
#: Common cases often; exclusions seldom, as they hide the sums.
facts_of_base = st.lists(
    st.builds(
        lambda subject, customer, kind, age, count: fact(customer, *subject, kind, age, count),
        st.tuples(st.sampled_from(PRODUCTS), st.none())
        | st.tuples(st.none(), st.sampled_from(CAPABILITIES))
        | st.tuples(st.sampled_from(PRODUCTS), st.sampled_from(CAPABILITIES)),
        st.integers(0, CUSTOMER_COUNT - 2),
        st.sampled_from(KINDS[:3] * 4 + KINDS[3:]),
        st.sampled_from([-1, 0, 1, 2, 30, 400, 40_000]),
        st.integers(1, 3),
    ),
    max_size=25,
)


@settings(max_examples=100)
@given(facts_of_base, catalogs, st.randoms(use_true_random=False), st.sampled_from([1, 3, 2**18]))
def test_adjustments_are_the_definition(facts, catalog, random, block_pairs):
    with mock.patch.object(adjust, "_BLOCK_PAIRS", block_pairs):
        found = adjustments(table(*facts), catalog, AS_OF, customer_count=CUSTOMER_COUNT)
    matrix = dense(found, catalog.capability_count)
    exact = oracle(facts, catalog, CUSTOMER_COUNT, own_exp, own_log1p)
    assert matrix.tobytes() == (exact.astype(np.float32) + np.float32(0)).tobytes()
    near = oracle(facts, catalog, CUSTOMER_COUNT, math.exp, math.log1p)
    np.testing.assert_allclose(matrix, near, rtol=1e-6, atol=1e-36)

    shuffled = random.sample(facts, len(facts))
    again = adjustments(table(*shuffled), catalog, AS_OF, customer_count=CUSTOMER_COUNT)
    for one, other in zip(found, again, strict=True):
        assert one.tobytes() == other.tobytes()


@settings(max_examples=40)
@given(facts_of_base, catalogs)
def test_contributions_add_up_to_the_adjustment(facts, catalog):
    found = adjustments(table(*facts), catalog, AS_OF, customer_count=CUSTOMER_COUNT)
    matrix = dense(found, catalog.capability_count)
    for customer in range(CUSTOMER_COUNT):
        own = table(*(each for each in facts if each["customer_index"] == customer))
        for j in range(catalog.capability_count):
            total = 0.0
            contributions = term_contributions(own, catalog, j, AS_OF)
            for _, contribution in contributions:
                total += contribution
            assert np.float32(total) == matrix[customer, j]
            if total != -math.inf:
                assert len(contributions) == len(catalog.history_weights[j])


@settings(max_examples=40)
@given(facts_of_base, facts_of_base, catalogs)
def test_other_customers_change_nothing_of_mine(facts, others, catalog):
    mine = [each for each in facts if each["customer_index"] == 0]
    theirs = [each for each in others if each["customer_index"] != 0]
    alone = adjustments(table(*mine), catalog, AS_OF, customer_count=CUSTOMER_COUNT)
    among = adjustments(table(*theirs, *mine), catalog, AS_OF, customer_count=CUSTOMER_COUNT)
    count = alone.indptr[1]
    assert among.indptr[1] == count
    assert among.capability_index[:count].tobytes() == alone.capability_index.tobytes()
    assert among.adjustment[:count].tobytes() == alone.adjustment.tobytes()


def one_adjustment(*facts, terms=(), as_of=AS_OF):
    catalog = catalog_of(capability("a", "p", *terms))
    return float(dense(adjustments(table(*facts), catalog, as_of, customer_count=1), 1)[0, 0])


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("days", 0.5 + 0.25),
        ("log_days", math.log1p(0.75 / 3)),
        ("recency", 0.5),
        ("ever", 1.0),
        ("log_count", math.log1p((5 * 0.5 + 2 * 0.25) / 3)),
        ("log_since", math.log1p(10 / 3)),
        ("due", math.log1p(10 / 10)),
        ("regularity", 0.0),
    ],
)
def test_each_feature_is_its_formula(feature, expected):
    facts = [fact(0, "p", age=10, count=4), fact(0, "p", age=10), fact(0, "p", age=20, count=2)]
    found = one_adjustment(*facts, terms=[term(feature, weight=2, half_life=10, scale=3)])
    assert found == pytest.approx(2 * expected, rel=1e-7)


def test_regularity_is_one_for_equal_gaps_and_falls_with_their_spread():
    def regularity(*ages):
        facts = [fact(0, "p", age=age) for age in ages]
        return one_adjustment(*facts, terms=[term("regularity")])

    assert regularity(1, 8, 15, 22) == 1
    # Gaps 2 and 12: mean 7, mean absolute deviation 5.
    assert regularity(1, 3, 15) == pytest.approx(7 / 12, rel=1e-7)


def test_every_feature_is_tried_and_documented():
    import visavis.features

    assert list(FEATURES) == sorted(FEATURES)
    for name in FEATURES:
        assert f"``{name}``" in visavis.features.__doc__


def test_without_a_half_life_facts_do_not_fade():
    facts = [fact(0, "p", age=age) for age in (0, 1000, 30_000)]
    assert one_adjustment(*facts, terms=[term("days")]) == 3
    assert one_adjustment(*facts[2:], terms=[term("recency")]) == 1


def test_facts_up_to_and_including_as_of_count():
    facts = [fact(0, "p", age=age) for age in (-1, 0, 1)]
    assert one_adjustment(*facts, terms=[term()]) == 2
    assert one_adjustment(*facts, terms=[term()], as_of=ago(1)) == 1
    assert one_adjustment(*facts, terms=[term()], as_of=ago(2)) == 0
    excluded = fact(0, "p", kind="excluded")
    assert one_adjustment(excluded) == -math.inf
    assert one_adjustment(excluded, as_of=ago(1)) == 0


def test_a_product_fact_reaches_all_its_capabilities_and_a_capability_fact_one():
    catalog = catalog_of(*(capability(name, "pq"[name > "b"], term()) for name in "abc"))
    facts = table(
        fact(0, "p"),
        fact(0, "p", age=1),
        fact(0, None, "b"),
        fact(1, "q", "a"),
        fact(2, "q", kind="excluded"),
        fact(2, None, "a", kind="excluded"),
        fact(2, None, "a"),
        fact(3, "r"),
        fact(3, "p", "r"),
        fact(3, "p", kind="refused"),
    )
    found = dense(adjustments(facts, catalog, AS_OF, customer_count=5), 3)
    none = -math.inf
    assert found.tolist() == [[2, 3, 0], [1, 0, 0], [none, 0, none], [0, 0, 0], [0, 0, 0]]


def test_terms_that_cancel_leave_no_entry():
    assert one_adjustment(fact(0, "p"), terms=[term("ever"), term("days", weight=-1)]) == 0
    assert one_adjustment(fact(0, "p"), terms=[term("ever", weight=1e-60)]) == 0


@pytest.mark.parametrize("customer_count", [0, 3])
def test_no_facts_make_an_empty_history(customer_count):
    catalog = catalog_of(capability("a", "p", term()))
    found = adjustments(table(), catalog, AS_OF, customer_count=customer_count)
    assert not dense(found, 1).any()
    assert len(found.indptr) == customer_count + 1
    assert term_contributions(table(), catalog, 0, AS_OF) == [("bought days", 0.0)]
    assert len(last_contact_days(table(), catalog, AS_OF, customer_count=customer_count)[0]) == 0


@pytest.mark.parametrize(
    "listed",
    [
        [term("ever", weight=1e39)],
        [term("ever", weight=-1e39)],
        [term("ever", weight=1e308)] * 2,
        [term("ever", weight=1e308)] * 2 + [term("ever", weight=-1e308)] * 4,
        [term("log_days", scale=1e-320)],
        [term("log_days", scale=1e-320, weight=0.0)],
    ],
)
def test_an_adjustment_that_is_not_finite_names_the_pair(listed):
    catalog = catalog_of(capability("a", "p"), capability("b", "p", *listed))
    facts = table(fact(1, "q"), *(fact(2, "p", age=age) for age in range(9)))
    with pytest.raises(InputError, match="must fit float32") as caught:
        adjustments(facts, catalog, AS_OF, customer_count=3)
    assert caught.value.field == "history_weights"
    assert caught.value.subject == "customer index 2, capability 'b'"
    # Who is excluded has no adjustment that could overflow.
    barred = pa.concat_tables([facts, table(fact(2, "p", kind="excluded"))])
    found = dense(adjustments(barred, catalog, AS_OF, customer_count=3), 2)
    assert (found[2] == -math.inf).all()


def test_contributions_are_labelled_and_an_exclusion_says_so():
    catalog = catalog_of(capability("a", "p", term("days", half_life=7.5), term("ever", "refused")))
    found = term_contributions(table(fact(3, "p", age=0)), catalog, 0, AS_OF)
    assert found == [("bought days, half-life 7.5 d", 1.0), ("refused ever", 0.0)]
    barred = table(fact(3, "p"), fact(3, None, "a", kind="excluded"))
    assert term_contributions(barred, catalog, 0, AS_OF) == [("excluded", -math.inf)]


def test_the_last_contact_on_each_channel():
    catalog = catalog_of(
        capability("a", "p", channel="phone"),
        capability("b", "p", channel="email"),
        capability("c", "q", channel="email"),
    )
    facts = table(
        fact(0, None, "a", "contacted", age=5),
        fact(0, "p", "a", "contacted", age=3),
        fact(0, None, "b", "contacted", age=9),
        fact(0, None, "c", "contacted", age=-1),
        fact(0, None, "c", "bought", age=0),
        fact(2, None, "retired", "contacted", age=4),
        fact(3, "p", None, "contacted", age=7),
        fact(3, None, "b", "contacted", age=2),
        fact(4, None, "a", "contacted", age=0),
    )
    found = last_contact_days(facts, catalog, AS_OF, customer_count=6)
    email, phone = (catalog.codes("channel")[1].index(name) for name in ("email", "phone"))
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        (0, email, 9),
        (0, phone, 3),
        (2, email, 4),
        (2, phone, 4),
        (3, email, 2),
        (3, phone, 7),
        (4, phone, 0),
    ]
    assert [column.dtype for column in found] == [np.int64, np.int32, np.int64]
    assert found.age_days[1] == 3


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"customer_index": -1}, "customer_index", "0 … 1, got -1"),
        ({"customer_index": 2}, "customer_index", "0 … 1, got 2"),
        ({"customer_index": None}, "customer_index", "required"),
        ({"count": 0}, "count", "got 0"),
        ({"count": 2**31}, "count", "got 2147483648"),
        ({"count": None}, "count", "required"),
        ({"date": None}, "date", "required"),
        ({"kind": "baught"}, "kind", "did you mean 'bought'"),
        ({"kind": None}, "kind", "must be one of"),
        ({"product": None}, "product", "a product or a capability"),
    ],
)
def test_a_wrong_fact_names_field_and_row(changed, field, reason):
    facts = table(fact(0, "p"), {**fact(1, "p"), **changed})
    catalog = catalog_of(capability("a", "p", term()))
    for use in (adjustments, last_contact_days):
        with pytest.raises(InputError) as caught:
            use(facts, catalog, AS_OF, customer_count=2)
        assert (caught.value.field, caught.value.row) == (field, 1)
        assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"), [("count", 1.5), ("date", "2017-01-01"), ("product", 5), ("kind", None)]
)
def test_a_wrong_column_is_named(name, wrong):
    facts = table(fact(0, "p")).drop_columns([name])
    if wrong is not None:
        facts = facts.append_column(name, pa.array([wrong]))
    with pytest.raises(SchemaError) as caught:
        adjustments(facts, catalog_of(capability("a", "p", term())), AS_OF, customer_count=1)
    assert caught.value.field == name


def test_other_layouts_of_facts_mean_the_same():
    catalog = catalog_of(capability("a", "p", term()))
    facts = table(fact(0, "p"), fact(1, None, "a"))
    other = facts.set_column(0, "customer_index", facts["customer_index"].cast(pa.uint32()))
    other = other.set_column(5, "count", other["count"].cast(pa.int32()))
    for at, name in ((1, "product"), (2, "capability_id"), (3, "kind")):
        other = other.set_column(at, name, other[name].dictionary_encode())
    found = adjustments(other, catalog, AS_OF, customer_count=2)
    assert dense(found, 1).tolist() == [[1], [1]]
