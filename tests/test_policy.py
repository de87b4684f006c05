"""The policy: what it allows by default, what it refuses by name, who is in the control group."""

from __future__ import annotations

import copy
import hashlib
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from visavis.errors import InputError, SchemaError, StorageError
from visavis.kernel import Limits
from visavis.policy import Exclusions, Policy, control_marks

TOML = """
k = 3
ev_min = 1
product_limit = 1
channel_limit = 2
family_limit = 1000
consent_not_needed = ["shop", "letter"]
control_share = 0.25
control_salt = "é"

[cool_down_days]
email = 7
"e mail" = 1

[exclusions]
customers = ["c1"]
products = ["tea", "thé"]
"""


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_allow_five_opportunities_that_are_worth_their_cost() -> None:
    policy = Policy()
    assert (policy.k, policy.ev_min) == (5, 0.0)
    assert policy.limits == Limits(None, None, None)
    assert policy.cool_down_days == {}
    assert policy.consent_not_needed == ()
    assert policy.exclusions == Exclusions()
    assert (policy.control_share, policy.control_salt) == (0.0, "visavis")


def test_limits_are_those_of_the_kernel() -> None:
    policy = Policy(product_limit=1, channel_limit=2, family_limit=3)
    assert policy.limits == Limits(product=1, channel=2, family=3)


def test_every_key_can_be_read_from_toml(tmp_path: Path) -> None:
    policy = Policy.read(toml(tmp_path, TOML))
    assert policy == Policy(
        k=3,
        ev_min=1.0,
        product_limit=1,
        channel_limit=2,
        family_limit=1000,
        consent_not_needed=("shop", "letter"),
        control_share=0.25,
        control_salt="é",
        cool_down_days={"email": 7, "e mail": 1},
        exclusions=Exclusions(customers=("c1",), products=("tea", "thé")),
    )
    assert policy.digest() == Policy.read(str(toml(tmp_path, TOML))).digest()
    assert Policy.read(toml(tmp_path, "")) == Policy()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [('"none"', None), ("inf", np.inf), ("-inf", -np.inf), ("2", 2.0), ("-1.5", -1.5)],
)
def test_the_minimum_can_be_any_number_or_none(
    tmp_path: Path, text: str, wanted: float | None
) -> None:
    assert Policy.read(toml(tmp_path, f"ev_min = {text}")).ev_min == wanted


#: What is given, the field named, a part of the reason
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"k": 0}, "k", "got 0"),
    ({"k": 1001}, "k", "got 1001"),
    ({"k": True}, "k", "got True"),
    ({"k": 2.0}, "k", "got 2.0"),
    ({"k": "5"}, "k", "got '5'"),
    ({"k": None}, "k", "got None"),
    ({"product_limit": 0}, "product_limit", "got 0"),
    ({"channel_limit": -1}, "channel_limit", "got -1"),
    ({"family_limit": True}, "family_limit", "got True"),
    ({"family_limit": 1.5}, "family_limit", "got 1.5"),
    ({"ev_min": float("nan")}, "ev_min", "NaN"),
    ({"ev_min": True}, "ev_min", "got True"),
    ({"ev_min": "0"}, "ev_min", "got '0'"),
    ({"cool_down_days": {"email": 0}}, "cool_down_days.email", "got 0"),
    ({"cool_down_days": {"email": 3661}}, "cool_down_days.email", "got 3661"),
    ({"cool_down_days": {"phone": 1, "email": True}}, "cool_down_days.email", "got True"),
    ({"cool_down_days": {"email": 1.0}}, "cool_down_days.email", "got 1.0"),
    ({"cool_down_days": 7}, "cool_down_days", "got 7"),
    ({"cool_down_days": {1: 7}}, "cool_down_days.1", "got 1"),
    ({"consent_not_needed": "email"}, "consent_not_needed", "got 'email'"),
    ({"consent_not_needed": ["email", 1]}, "consent_not_needed.1", "got 1"),
    ({"control_share": 1.0}, "control_share", "got 1.0"),
    ({"control_share": -0.1}, "control_share", "got -0.1"),
    ({"control_share": float("nan")}, "control_share", "got nan"),
    ({"control_share": float("inf")}, "control_share", "got inf"),
    ({"control_share": "0.1"}, "control_share", "got '0.1'"),
    ({"control_share": True}, "control_share", "got True"),
    ({"control_salt": 3}, "control_salt", "got 3"),
    ({"exclusions": {"products": "tea"}}, "exclusions.products", "got 'tea'"),
    ({"exclusions": {"channels": [1]}}, "exclusions.channels.0", "got 1"),
    ({"exclusions": ["tea"]}, "exclusions", "tea"),
    ({"exclusions": None}, "exclusions", "got None"),
]


@pytest.mark.parametrize(("given", "field", "reason"), REFUSED)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    given: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        Policy(**given)
    assert (caught.value.field, caught.value.row) == (f"policy.{field}", None)
    assert reason in str(caught.value)
    assert "ValidationError" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({"kk": 1}, "kk", "is not a key of a policy; did you mean 'k'?"),
        ({"capacity": 3}, "capacity", "is not a key of a policy"),
        ({"self": 1}, "self", "is not a key of a policy"),
        ({"values": 1}, "values", "is not a key of a policy"),
        ({"{k_}": 1}, "{k_}", "is not a key of a policy"),
        (
            {"exclusions": {"product": ["tea"]}},
            "exclusions.product",
            "is not a key of the exclusions of a policy; did you mean 'products'?",
        ),
        (
            {"exclusions": {"self": ["a"]}},
            "exclusions.self",
            "is not a key of the exclusions of a policy",
        ),
        ({"exclusions": {1: ["a"]}}, "exclusions.1", "is not a key of the exclusions of a policy"),
    ],
)
def test_a_key_that_no_policy_has_is_refused(
    given: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        Policy(**given)
    assert caught.value.field == f"policy.{field}"
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"k": 0}, "policy.k: must be at least 1, got 0"),
        ({"k": 1001}, "policy.k: must be at most 1000, got 1001"),
        ({"k": "5"}, "policy.k: must be an integer, got '5'"),
        ({"ev_min": "0"}, "policy.ev_min: must be a number, got '0'"),
        ({"control_share": 1.0}, "policy.control_share: must be below 1, got 1.0"),
        ({"control_salt": 3}, "policy.control_salt: must be text, got 3"),
        ({"consent_not_needed": "email"}, "policy.consent_not_needed: must be a list, got 'email'"),
        ({"cool_down_days": 7}, "policy.cool_down_days: must be a table, got 7"),
        ({"exclusions": 7}, "policy.exclusions: must be a table, got 7"),
        ({"k": 10**5_000}, "policy.k: must be at most 1000, got int"),
    ],
)
def test_a_refusal_is_in_words_of_ours(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        Policy(**given)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "given",
    [
        {"control_salt": "\ud800"},
        {"consent_not_needed": ["\ud800"]},
        {"cool_down_days": {"\ud800": 1}},
        {"exclusions": {"customers": ["\ud800"]}},
    ],
)
def test_text_that_has_no_bytes_is_refused_before_a_digest_needs_them(given: Any) -> None:
    with pytest.raises(InputError, match=r"UTF-8 can hold, got '\\ud800'"):
        Policy(**given)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("k = true", "policy.k"),
        ("k = 1979-05-27", "policy.k"),
        ("ev_min = nan", "policy.ev_min"),
        ('ev_min = "None"', "policy.ev_min"),
        ("[exclusions]\nproducts = 'tea'", "policy.exclusions.products"),
        ("[cool_down_days]\nemail = 0", "policy.cool_down_days.email"),
        ("k = ", "policy"),
        ("k = 1\nk = 2", "policy"),
        ("self = 1", "policy.self"),
        ("[exclusions]\nself = ['a']", "policy.exclusions.self"),
        ("k = " + "1" * 5_000, "policy"),
        ("k = " + "[" * 100_000, "policy"),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_its_key(
    tmp_path: Path, text: str, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        Policy.read(toml(tmp_path, text))
    assert caught.value.field == field


def test_what_is_no_policy_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"control_salt = '\xe9'")
    for path, reason in (
        (tmp_path / "none.toml", "does not exist"),
        (tmp_path / "latin" / "none.toml", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "latin", "is no TOML"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            Policy.read(path)
        assert caught.value.field == "policy"
    wrong: Any
    for wrong in (5, None, b"policy.toml"):
        with pytest.raises(InputError, match="must be a path") as caught:
            Policy.read(wrong)
        assert caught.value.field == "policy"
    with pytest.raises(StorageError, match="cannot be read: File name too long"):
        Policy.read(tmp_path / ("x" * 300))


def test_a_policy_does_not_change() -> None:
    days = {"email": 7}
    policy = Policy(cool_down_days=days)
    with pytest.raises(ValidationError, match="frozen"):
        policy.k = 3
    days["email"] = 1
    assert policy.cool_down_days == {"email": 7}, "the caller's dict is not the policy's"
    held: Any = policy.cool_down_days
    for change in (
        lambda: held.update(email=1),
        lambda: held.pop("email"),
        lambda: held.popitem(),
        lambda: held.clear(),
        lambda: held.setdefault("phone", 1),
        lambda: held.__setitem__("email", 1),
        lambda: held.__delitem__("email"),
        lambda: held.__ior__({"email": 1}),
    ):
        with pytest.raises(TypeError, match="does not change"):
            change()
    assert policy.cool_down_days == {"email": 7}


def test_a_policy_survives_copies_and_other_processes(tmp_path: Path) -> None:
    policy = Policy.read(toml(tmp_path, TOML))
    for again in (
        pickle.loads(pickle.dumps(policy)),  # noqa: S301 - our own bytes
        copy.deepcopy(policy),
        policy.model_copy(),
        Policy(**policy.model_dump()),
    ):
        assert again == policy
        assert hash(again) == hash(policy)
        assert again.digest() == policy.digest()
        with pytest.raises(TypeError, match="does not change"):
            again.cool_down_days["email"] = 1


def test_policies_that_say_the_same_have_the_same_digest() -> None:
    one = Policy(
        ev_min=0,
        cool_down_days={"a": 1, "b": 2},
        consent_not_needed={"x", "y", "z"},
        exclusions={"products": ["tea", "milk", "tea"]},
    )
    other = Policy(
        ev_min=-0.0,
        cool_down_days={"b": 2, "a": 1},
        consent_not_needed=["z", "y", "x"],
        exclusions=Exclusions(products=("milk", "tea")),
    )
    assert one.digest() == other.digest()
    assert Policy().digest() == Policy(k=5).digest()
    assert len(Policy().digest()) == 64


def test_policies_that_say_something_else_have_another_digest() -> None:
    policies = [
        Policy(),
        Policy(k=4),
        *(Policy(ev_min=least) for least in (None, np.inf, -np.inf, 1.0, 5e-324)),
        *(Policy(**{f"{group}_limit": 1}) for group in ("product", "channel", "family")),
        Policy(cool_down_days={"email": 1}),
        Policy(cool_down_days={"email": 2}),
        Policy(consent_not_needed=("email",)),
        *(Policy(exclusions={name: ["x"]}) for name in Exclusions.model_fields),
        Policy(control_share=0.1),
        Policy(control_share=np.nextafter(0.1, 1)),
        Policy(control_salt="other"),
    ]
    assert len({policy.digest() for policy in policies}) == len(policies)


CUSTOMERS = pa.array([f"c{number}" for number in range(4000)])


def marks(share: float, salt: str = "visavis", ids: pa.Array = CUSTOMERS) -> np.ndarray:
    return control_marks(ids, Policy(control_share=share, control_salt=salt))


@settings(max_examples=60)
@given(
    st.lists(st.text(max_size=4), min_size=1, max_size=6),
    st.floats(0, 1, exclude_max=True),
    st.text(max_size=3),
)
def test_control_is_the_hash_that_the_documentation_says(
    ids: list[str], share: float, salt: str
) -> None:
    found = marks(share, salt, pa.array(ids))
    assert found.dtype == np.bool_
    for name, mark in zip(ids, found.tolist(), strict=True):
        digest = hashlib.sha256(f"{salt}\0{name}".encode()).digest()
        assert mark == (int.from_bytes(digest[:8], "big") < share * 2**64)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.9])
def test_the_control_group_has_about_its_share(share: float) -> None:
    # Five standard deviations of a binomial.
    width = 5 * (share * (1 - share) / len(CUSTOMERS)) ** 0.5
    assert abs(marks(share).mean() - share) < width


def test_a_larger_share_contains_the_smaller_one() -> None:
    groups = [marks(share) for share in (0.0, 5e-324, 0.01, 0.3, 0.3000001, 0.999999, 1 - 2**-53)]
    assert not groups[0].any()
    for smaller, larger in pairwise(groups):
        assert not (smaller & ~larger).any()
    assert groups[-1].all()


def test_the_control_group_is_one_whatever_the_order_and_the_others() -> None:
    found = dict(zip(CUSTOMERS.to_pylist(), marks(0.3).tolist(), strict=True))
    order = np.random.default_rng(0).permutation(len(CUSTOMERS))[:500]
    some = CUSTOMERS.take(pa.array(order))
    assert marks(0.3, ids=some).tolist() == [found[name] for name in some.to_pylist()]
    assert marks(0.3, ids=CUSTOMERS.slice(7, 9)).tolist() == marks(0.3)[7:16].tolist()


def test_another_salt_draws_another_group_of_the_same_size() -> None:
    one, other = marks(0.5), marks(0.5, "other")
    # Independent groups share a quarter.
    assert abs((one & other).mean() - 0.25) < 0.05
