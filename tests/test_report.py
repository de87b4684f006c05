"""The report: a page that holds together, hides nothing, and says only what was measured."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import date, timedelta
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.engine import Engine, Matches
from visavis.errors import InputError
from visavis.policy import Policy
from visavis.report import (
    LIMITATIONS,
    ReportContent,
    coverage,
    customer_stories,
    divergent_customers,
    policy_in_words,
    write_report,
)
from visavis.report.arms import arms_by_policy, best_pair, verdict_of, with_k
from visavis.report.charts.axes import Scale, fitted, spread, ticks, wrapped
from visavis.report.markup import element, fragment
from visavis.report.numbers import (
    Interval,
    amount,
    bounds,
    count,
    decimal,
    interval,
    percent,
    points,
    ratio,
    seconds,
)
from visavis.report.page import render

AS_OF = date(2026, 3, 1)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title></svg><b>",
    'Tom & Jerry\'s <tea> "for two" &amp; &#x27;',
    "\u202eevil\u0000\ufffe 日本語 é",
    "' onload='alert(1)",
)
VOID = {"br", "col", "hr", "link", "meta"}


def band(value: float, half: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def arm(name: str, policy: str, rate: float, histogram: list[int]) -> dict[str, Any]:
    return {
        "name": name,
        "label": f"what {name} does",
        "contact_policy": policy,
        "contact_count": 1_000,
        "hit_count": round(1_000 * rate),
        "hit_rate": band(rate),
        "spend": band(4_000 * rate, 20),
        "spend_share": band(rate / 3),
        "never_bought_hit_count": 17,
        "never_bought_hit_rate": band(0.017, 0.004),
        "coverage": 0.25,
        "contacts_per_customer": {"mean": 5.0, "max": 7, "gini": 0.31, "histogram": histogram},
        "redundancy": 0.125,
        "curve": [
            {"contacts": n, "hits": n * rate, "spend": n * rate * 4} for n in range(0, 1_001, 50)
        ],
    }


def evaluation() -> dict[str, Any]:
    capped, free = "at most 5 per customer", "no cap"
    return {
        "setting": {
            "as_of": "2026-03-01",
            "window_days": 28,
            "contacts_per_customer": 5,
            "customer_count": 200,
            "capability_count": 141,
            "budget": 1_000,
            "by": "propensity",
            "confidence": 0.95,
        },
        "arms": [
            arm("A0", capped, 0.311, [0, 0, 0, 0, 0, 200]),
            arm("B", capped, 0.477, [0, 0, 0, 0, 0, 200]),
            arm("A2", capped, 0.312, [5, 5, 5, 5, 20, 160]),
            arm("G_cap", capped, 0.481, [20, 5, 5, 5, 5, 160]),
            arm("G", free, 0.717, [90, 30, 20, *[1] * 60]),
            arm("A1", free, 0.522, [100, 40, 30, 30]),
        ],
        "differences": [
            {
                "arm": own,
                "against": other,
                "contact_policy": policy,
                "hit_rate": band(0.165),
                "spend_share": band(0.05),
            }
            for own, other, policy in (("B", "A0", capped), ("B", "A2", capped), ("G", "A1", free))
        ],
        "seconds": {"B": 0.4321},
    }


def full() -> dict[str, Any]:
    """Every part of a report, as JSON would hold it."""
    told = {
        "capability_id": "milk|email",
        "name": "Milk by email",
        "product": "milk",
        "channel": "email",
        "family": "dairy",
    }
    return {
        "title": "A title",
        "run": {
            "as_of": "2026-03-01",
            "customer_count": 200,
            "capability_count": 282,
            "indicator_count": 12,
            "fact_count": 3_456,
            "pair_count": 56_400,
            "opportunity_count": 900,
            "customers_with_opportunities": 187,
            "stats": {"screened": 40_000, "skipped_by_rule": 16_400},
            "seconds": {"match": 0.71, "campaigns": 5.15, "held_out": 0.0123},
            "digests": {"base": "0fbe9d", "catalog": "9fa1e6"},
            "files": {"base/v0001/manifest.json": "452b27"},
            "inputs": {"transactions.parquet": "76623b"},
            "versions": {"visavis": "0.1.0", "numpy": "2.4.6"},
            "command": "visavis demo --out 'my folder'",
            "variant": "portable",
            "threads": 2,
            "notice": "Simulated data; no real customers.",
            "written_at": "2026-03-02T10:11:12+00:00",
        },
        "evaluations": [evaluation()],
        "sensitivity": [
            {
                "as_of": day,
                "window_days": 28,
                "contacts_per_customer": 5,
                "arm": name,
                "hit_rate": band(rate),
                "spend_share": rate / 3,
            }
            for day in ("2026-02-01", "2026-03-01")
            for name, rate in (("B", 0.46), ("A0", 0.30), ("A2", 0.33), ("G", 0.7), ("A1", 0.5))
        ],
        "calibration": {
            "bins": [
                {
                    "low": low,
                    "high": high,
                    "pair_count": 10_000.0,
                    "expected": 10_000 * (low + high) / 2,
                    "observed": 9_700 * (low + high) / 2,
                    "ratio": 0.97,
                }
                for low, high in ((0.0, 0.002), (0.002, 0.05), (0.05, 0.4), (0.4, 1.0))
            ],
            "brier": 0.01283,
            "log_loss": 0.04821,
            "untuned_log_loss": 0.05107,
            "outliers": [
                {"capability_id": "tea", "observed": 30.0, "expected": 12.5, "ratio": 2.4}
            ],
        },
        "timing": {
            "rounds": 5,
            "pairs": 56_400,
            "seconds": {"match": 0.71, "campaigns_numpy": 5.11, "batched_blas": 0.5},
            "ratio_to_match": {"campaigns_numpy": band(7.2, 0.2), "batched_blas": 0.7},
            "note": "Two threads.",
        },
        "stories": [
            {
                "customer_id": "c1",
                "is_control": True,
                "opportunities": [
                    {
                        "rank": 1,
                        **told,
                        "propensity": 0.68,
                        "expected_value": 3.35,
                        "reasons": ["bought on 23 days, last on 2026-02-11", "recent"],
                    }
                ],
                "not_chosen": [
                    {
                        "kind": "next_best",
                        **told,
                        "propensity": 0.5,
                        "expected_value": 2.72,
                        "verdict": "the limit of 1 per product is used up by milk|letter",
                        "remedies": ["a limit per product above 1"],
                    }
                ],
            }
        ],
        "divergence": {
            "measure": "mean bits",
            "customer_count": 187,
            "median_bits": 4.7,
            "distribution": [
                {"low": 0.5 * n, "high": 0.5 * (n + 1), "customer_count": n} for n in range(12)
            ],
            "popular": [{"product": "milk", "customer_count": 88, "share": 0.47}],
            "customers": [
                {
                    "customer_id": "c7",
                    "bits": 7.5,
                    "opportunities": [
                        {"rank": 1, "product": "tea", "channel": "email", "customer_count": 3}
                    ],
                }
            ],
        },
        "coverage": {
            "capability_count": 282,
            "given_count": 100,
            "half_count": 7,
            "reasons": [
                {
                    "reason": "worth",
                    "label": "worth less than the minimum",
                    "count": 182,
                    "examples": [{"product": "tea", "channel": "letter"}],
                }
            ],
            "most_given": [
                {"product": "milk", "channel": "email", "customer_count": 88, "share": 0.47}
            ],
            "by_channel": [
                {
                    "channel": "email",
                    "capability_count": 141,
                    "given_count": 60,
                    "opportunity_count": 700,
                }
            ],
        },
        "policy": ["At most 5 opportunities per customer."],
        "notice": None,
        "limitations": ["One year of one shop."],
    }


def slim() -> dict[str, Any]:
    """The same with as little as has all fields: what is left of a list is its first element."""
    content = full()
    held = content["evaluations"][0]
    held["arms"] = held["arms"][:2]
    held["differences"] = held["differences"][:1]
    for each in held["arms"]:
        each["curve"] = each["curve"][:2]
    content["sensitivity"] = content["sensitivity"][:2]
    content["calibration"]["bins"] = content["calibration"]["bins"][:1]
    return content


def page_of(content: dict[str, Any]) -> str:
    return render(ReportContent(**content).canonical())


class Walk(HTMLParser):
    """Checks the structure of a page as it reads it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.within_svg: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute: {names}"
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag == "svg":
            self.within_svg.append([])
        elif "svg" in self.open:
            self.within_svg[-1].append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def check(page: str) -> Walk:
    """Everything that must hold for each page, whatever is in it."""
    walk = Walk(page)
    assert len(walk.ids) == len(set(walk.ids)), "an id is used twice"
    assert not {"script", "img", "iframe", "object", "link", "form", "base"} & set(walk.tags)
    for inside in walk.within_svg:
        assert inside[:2] == ["title", "desc"]
    for tag, name, value in walk.attributes:
        assert not name.startswith("on"), f"{tag} has {name}"
        if name in ("aria-labelledby", "aria-describedby"):
            assert set((value or "").split()) <= set(walk.ids)
        if name in ("href", "src", "xlink:href"):
            assert value is not None
            assert value.startswith("#")
            assert value[1:] in walk.ids
    headings = [int(tag[1]) for tag in walk.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    return walk


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy with every leaf changed."""
    if isinstance(value, dict):
        return {key: changed(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [changed(each, change) for each in value]
    return change(value)


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be taken away: every key of every mapping, once per kind of place."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*here, key)
            yield from paths(each, (*here, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*here, 0))


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


def test_the_page_holds_together_and_loads_nothing() -> None:
    page = page_of(full())
    walk = check(page)
    assert "http://" not in page
    assert "https://" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert "@import" not in page
    assert 'lang="en"' in page
    assert walk.tags.count("svg") > 20
    assert "Simulated data; no real customers." in walk.text


def test_every_table_names_its_rows_and_columns() -> None:
    walk = Walk(page_of(full()))
    scopes = [value for tag, name, value in walk.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == walk.tags.count("th")
    assert set(scopes) == {"row", "col"}
    assert walk.tags.count("caption") == walk.tags.count("table")


def test_charts_with_long_labels_are_drawn_for_both_widths() -> None:
    walk = Walk(page_of(full()))
    classes = [value for tag, name, value in walk.attributes if tag == "svg" and name == "class"]
    # The one chart of the first screen is narrow on every screen.
    assert classes.count("chart narrow") == classes.count("chart wide") + 1


def test_what_is_drawn_lies_inside_its_picture() -> None:
    page = page_of(full())
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', picture)[0])
        for name, most in (("x", width), ("x1", width), ("cx", width), ("y", height)):
            for value in re.findall(rf' {name}="(-?[\d.]+)"', picture):
                assert -1 <= float(value) <= most + 1
        for cx, cy in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', picture):
            assert 0 <= float(cx) <= width
            assert 0 <= float(cy) <= height


def test_every_number_of_the_input_is_in_the_json(tmp_path: Path) -> None:
    content = full()
    page, numbers = write_report(tmp_path / "new", ReportContent(**content))
    told = json.loads(numbers.read_bytes())
    assert page.name == "report.html"
    assert told["limitations"] == [*LIMITATIONS, *content["limitations"]]
    assert told["notice"] == content["run"]["notice"]
    for name, held in content.items():
        if name not in ("limitations", "notice"):
            assert told[name] == held
    assert set(told) == {"format"} | {each.name for each in fields(ReportContent)}


def test_the_page_shows_the_numbers_that_matter() -> None:
    text = Walk(page_of(full())).text.replace("\u202f", " ")
    for said in ("47.7 % (46.7–48.7)", "31.2 % (30.2–32.2)", "0.01283", "0.04821", "7.2×", "0.70×"):
        assert said in text
    for said in ("56,400", "0fbe9d", "visavis demo --out 'my folder'", "2.4.6", "71.7 %"):
        assert said in text


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    content = full()
    first = write_report(tmp_path / "a", ReportContent(**content))
    as_others_write = changed(
        content, lambda leaf: np.float64(leaf) if type(leaf) is float else leaf
    )
    as_others_write["stories"] = tuple(as_others_write["stories"])
    again = write_report(tmp_path / "b", ReportContent(**as_others_write))
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_from_outside_stay_names(hostile: str) -> None:
    content = changed(full(), lambda leaf: hostile if isinstance(leaf, str) else leaf)
    # What is compared must still find its way into the comparison.
    for each in content["evaluations"]:
        for place, one in enumerate(each["arms"]):
            one["name"] = ("B", "A0", "A2", "G", "G_cap", hostile)[place]
            one["contact_policy"] = hostile
    walk = check(page_of(content))
    assert set(walk.tags) <= set(Walk(page_of(full())).tags) | {"time"}
    shown = re.sub("[\x00-\x08\ufffe]", "\ufffd", hostile)
    assert " ".join(shown.split()) in walk.text


def test_hostile_keys_stay_names() -> None:
    content = full()
    for name in ("seconds", "digests", "files", "versions", "stats", "inputs"):
        content["run"][name] = dict.fromkeys(HOSTILE, 1.5)
    content["timing"]["ratio_to_match"] = dict.fromkeys(HOSTILE, 3.0)
    content["timing"]["seconds"] = dict.fromkeys(HOSTILE, 3.0)
    check(page_of(content))


def test_markup_escapes_text_and_attributes() -> None:
    assert element("p", "<&>", title='"') == '<p title="&quot;">&lt;&amp;&gt;</p>\n'
    assert element("i", element("b", 1), None, ["x", 2.5]) == "<i><b>1</b>x2.5</i>"
    assert (
        element("rect", x=-0.0, y=1.239, z=None, tabindex=0)
        == '<rect x="0" y="1.24" tabindex="0"></rect>'
    )
    assert fragment("a\x00b") == "a\ufffdb"


def test_an_empty_report_says_what_it_lacks() -> None:
    walk = check(page_of({}))
    assert "was not compared with campaigns" in walk.text
    assert walk.tags.count("section") == 13
    assert not walk.within_svg
    only_run = check(page_of({"run": full()["run"]}))
    assert "Each of 200 customers was weighed against each of 282 capabilities" in only_run.text
    assert "nothing is claimed" in only_run.text


@pytest.mark.parametrize("name", sorted(full()))
def test_any_part_may_be_missing(name: str) -> None:
    content = full()
    del content[name]
    check(page_of(content))


def test_any_field_of_any_part_may_be_missing() -> None:
    content = slim()
    # Parts do not know each other, so one field of each is taken away at a time.
    by_part = [[(part, *rest) for rest in paths(held)] for part, held in content.items() if held]
    for taken in zip_longest(*by_part):
        less = copy.deepcopy(content)
        for path in filter(None, taken):
            holder: Any = less
            for key in path[:-1]:
                holder = holder[key]
            del holder[path[-1]]
        check(page_of(less))


@pytest.mark.parametrize("number", [0, 0.0, 1, -1.5, 1e-12, 1e12])
def test_any_number_can_be_drawn(number: float) -> None:
    def change(leaf: Any) -> Any:
        return number if isinstance(leaf, (int, float)) and not isinstance(leaf, bool) else leaf

    check(page_of(changed(full(), change)))


def test_several_evaluations_stand_one_after_the_other() -> None:
    by_value = evaluation()
    by_value["setting"]["by"] = "expected_value"
    walk = check(page_of({**full(), "evaluations": [evaluation(), by_value]}))
    assert "Ranked by propensity" in walk.text
    assert "Ranked by expected value" in walk.text


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"run": {"seconds": {"match": math.nan}}}, "run.seconds.match"),
        ({"stories": [{"opportunities": [{"propensity": math.inf}]}]}, "propensity"),
        ({"notice": "\ud800"}, "notice"),
        ({"timing": {"note": object()}}, "timing.note"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_place(
    content: dict[str, Any], place: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=place):
        write_report(tmp_path, ReportContent(**content))
    assert not list(tmp_path.iterdir())


# ── what it claims ───────────────────────────────────────────────────────────────────────────────


def test_contact_policies_are_never_mixed() -> None:
    groups = arms_by_policy(evaluation())
    assert [(policy, [each.name for each in arms]) for policy, arms in groups] == [
        ("at most 5 per customer", ["B", "G_cap", "A0", "A2"]),
        ("no cap", ["G", "A1"]),
    ]
    page = page_of(full())
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        names = set(re.findall(r'class="name[^"]*">(\w+)<', picture))
        assert not (names & {"B", "G_cap", "A0", "A2"} and names & {"G", "A1"})


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.02, 0.05, "B captured more than A2"),
        (-0.05, -0.02, "B captured less than A2"),
        (-0.01, 0.02, "B and A2, its best campaign with as many contacts, cannot be told apart"),
    ],
)
def test_the_finding_goes_whichever_way_the_numbers_go(low: float, high: float, said: str) -> None:
    content = full()
    for each in content["evaluations"][0]["differences"]:
        each["hit_rate"] = {"value": (low + high) / 2, "low": low, "high": high}
    text = Walk(page_of(content)).text
    assert said in text
    assert ("cannot be told apart" in text) == (low < 0 < high)


def test_a_verdict_needs_an_interval() -> None:
    assert verdict_of(Interval(0.3)) is None
    assert verdict_of(None) is None
    held = verdict_of(Interval(0.0, 0.0, 0.1))
    assert held is not None
    assert not held.is_known


def test_the_claim_compares_one_to_one_with_a_campaign() -> None:
    pair = best_pair(evaluation())
    assert pair is not None
    assert [each.name for each in pair] == ["B", "A2"]
    alone = {"arms": [arm("B", "at most k per customer", 0.4, []), arm("A1", "no cap", 0.5, [])]}
    assert best_pair(alone) is None
    assert "No campaign was measured" in Walk(page_of({"evaluations": [alone]})).text


def test_the_finding_is_in_the_measure_that_was_ranked_for() -> None:
    content = full()
    content["evaluations"][0]["setting"]["by"] = "expected_value"
    arms = content["evaluations"][0]["arms"]
    next(each for each in arms if each["name"] == "A0")["spend_share"] = band(0.15)
    text = Walk(page_of(content)).text.replace("\u202f", " ")
    assert "B captured more than A0, its best campaign: 15.9 % (14.9–16.9) of all spend" in text


def test_a_campaign_that_meets_more_first_purchases_is_named() -> None:
    content = full()
    assert "On first purchases" not in Walk(page_of(content)).text
    arms = {each["name"]: each for each in content["evaluations"][0]["arms"]}
    arms["A0"]["never_bought_hit_rate"] = band(0.0213, 0.001)
    text = Walk(page_of(content)).text.replace("\u202f", " ")
    assert "On first purchases A0 captured more: 2.13 % of its contacts against 1.70 % of B" in text
    for each in arms.values():
        each["never_bought_hit_rate"] = band(0.0, 0.0)
    assert "No contact of these arms met a purchase" in Walk(page_of(content)).text


def test_an_arm_alone_under_its_policy_is_not_compared() -> None:
    content = full()
    content["evaluations"][0]["arms"].append(
        arm("G_cap", "at most 10 per customer", 0.6, [50, 20, 20])
    )
    text = Walk(page_of(content)).text
    assert text.count("Only one arm has this contact policy: shown, not compared.") == 1
    assert "Cumulative hits and spend, at most 10 per customer" not in text


def test_a_long_tail_of_contacts_is_folded_and_said() -> None:
    content = full()
    arms = {each["name"]: each for each in content["evaluations"][0]["arms"]}
    arms["G"]["contacts_per_customer"]["histogram"] = [90, 60, 30, 18, *[0] * 96, 1, 1]
    arms["A1"]["contacts_per_customer"]["histogram"] = [100, 100]
    assert "The last bar: 3 or more." in Walk(page_of(content)).text


def test_k_is_said_as_the_number_it_stands_for() -> None:
    held = evaluation()
    assert with_k(held, "at most k per customer") == "at most 5 per customer"
    assert with_k(held, "k-means, the same k for all") == "k-means, the same 5 for all"
    assert with_k({}, "at most k per customer") == "at most k per customer"


def test_nothing_is_said_to_be_caused() -> None:
    text = Walk(page_of(full())).text
    assert "Captured, not caused" in text
    assert not re.findall(r"(?<!not )\bcause[sd]?\b", text)


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({"campaigns_numpy": 7.2}, "lies below that band"),
        ({"campaigns_numpy": 500.0, "batched_blas": 2.0}, "numpy lies within its numbers"),
        ({"campaigns_numpy": 900.0, "batched_blas": 2.0}, "on both sides"),
        ({"campaigns_numpy": 900.0}, "above that band, on its own task"),
    ],
)
def test_the_band_is_never_claimed_without_being_measured(
    ratios: dict[str, float], said: str
) -> None:
    content = full()
    content["timing"]["ratio_to_match"] = ratios
    text = Walk(page_of(content)).text
    assert said in text
    assert "432–576 times in 24-hour days, 144–192 times in 8-hour days" in text
    assert "on another task" in text


# ── the style sheet ──────────────────────────────────────────────────────────────────────────────


@cache
def palettes() -> list[dict[str, str]]:
    style = (resources.files("visavis.report") / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root\s*\{(.*?)\}", style, flags=re.DOTALL)
    found: list[dict[str, str]] = []
    for block in blocks:
        named = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{3,6});", block))
        # Dark and print change some colours of the first scheme.
        found.append({**(found[0] if found else {}), **named})
    return found


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_every_scheme() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21.0)
    assert len(palettes()) == 3
    for palette in palettes():
        for ground in ("paper", "soft"):
            for ink in ("ink", "muted", "one", "campaign", "band"):
                assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)


def test_the_style_sheet_is_self_contained() -> None:
    style = (resources.files("visavis.report") / "style.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style
    assert "<" not in style
    assert style.count("{") == style.count("}")


# ── numbers and axes ─────────────────────────────────────────────────────────────────────────────


def test_numbers_are_written_one_way() -> None:
    thin = "\u202f"
    assert (count(12_240), count(None), count(-0.2)) == ("12,240", "–", "0")
    assert (decimal(3.346), decimal(-3.0, 1), decimal(-0.001)) == ("3.35", "−3.0", "0.00")
    assert (amount(3.352), amount(46_213.4)) == ("3.35", "46,213")
    assert percent(0.4771) == f"47.7{thin}%"
    assert (points(0.165), points(-0.03), points(0.0)) == ("+16.5", "−3.0", "0.0")
    assert (ratio(7.18), ratio(520.4), ratio(0.42)) == ("7.2×", "520×", "0.42×")
    assert seconds(0.0042) == f"4.2{thin}ms"
    assert seconds(200) == f"3{thin}min 20{thin}s"
    assert bounds(Interval(0.5, 0.469, 0.485), 100) == "46.9–48.5"
    assert bounds(Interval(0.0, -0.004, 0.012), 100) == "−0.4 to 1.2"
    assert bounds(Interval(0.5)) == ""
    assert interval({"value": 1, "low": None, "high": 2}) == Interval(1.0)
    assert interval(True) is None
    assert interval("7") is None


def test_ticks_are_round_and_cover() -> None:
    assert ticks(0.0, 0.477, 4) == [0.0, 0.2, 0.4, 0.6]
    assert ticks(-0.02, 0.05, 4)[0] <= -0.02
    assert ticks(0.0, 0.0) == [0.0, 0.2]
    for high in (1e-9, 0.3, 7.0, 12_240.0, 1e15):
        marks = ticks(0.0, high)
        assert marks[0] == 0.0
        assert marks[-1] >= high
        assert 2 <= len(marks) <= 12


def test_scales_keep_values_inside() -> None:
    scale = Scale(1.0, 1_000.0, 0.0, 300.0, is_log=True)
    assert [scale(value) for value in (0.5, 1, 10, 1_000, 9_999)] == pytest.approx(
        [0, 0, 100, 300, 300]
    )


def test_text_is_cut_and_wrapped_to_fit() -> None:
    assert fitted("short", 200) == "short"
    assert fitted("a long label " * 9, 100).endswith("…")
    lines = wrapped("campaigns in popularity order, each to its best 20 %", 150, count=2)
    assert len(lines) == 2
    assert wrapped("", 100) == [""]
    assert "\u202f%" in "".join(wrapped("best 20 %", 900))


def test_labels_are_spread_without_changing_their_order() -> None:
    placed = spread([10.0, 11.0, 50.0], 8.0, 0.0, 60.0)
    assert placed == [10.0, 18.0, 50.0]
    assert spread([59.0, 58.0], 8.0, 0.0, 60.0) == [60.0, 52.0]


# ── what is derived from a match ─────────────────────────────────────────────────────────────────

CHANNELS = ("email", "letter")
RULES = (None, None, None, "age >= 18", "age > 200", "age < 30")


def world(seed: int) -> tuple[Engine, Matches]:
    """A small random engine in which every reason to reach nobody occurs now and then."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 9)), int(rng.integers(2, 16))
    customers = [f"c{place:02}" for place in range(n)]
    products = [f"p{place}" for place in range(5)]
    attributes = {
        "customer_id": customers,
        "age": [None if rng.random() < 0.2 else int(rng.integers(10, 60)) for _ in customers],
        "objected": [bool(rng.random() < 0.15) for _ in customers],
        "consent_email": [bool(rng.random() < 0.7) for _ in customers],
        "consent_letter": [bool(rng.random() < 0.3) for _ in customers],
    }
    kinds = ("bought", "excluded", "excluded")
    facts = [
        (
            customers[int(rng.integers(n))],
            products[int(rng.integers(5))],
            kinds[int(rng.integers(3))],
        )
        for _ in range(int(rng.integers(0, 30)))
    ]
    if rng.random() < 0.3:
        facts += [(customer, "p0", "excluded") for customer in customers]
    base = Base.from_tables(
        pa.table({"customer_id": customers, "x": rng.normal(size=n), "y": rng.normal(size=n)}),
        as_of=AS_OF,
        attributes=pa.table(attributes),
        facts=pa.table(
            {
                "customer_id": pa.array([who for who, _, _ in facts], pa.string()),
                "product": pa.array([what for _, what, _ in facts], pa.string()),
                "kind": pa.array([kind for _, _, kind in facts], pa.string()),
                "date": pa.array([AS_OF - timedelta(days=3)] * len(facts), pa.date32()),
            }
        ),
    )
    catalog = Catalog.from_rows(
        [
            {
                "id": f"k{place:02}",
                "product": products[int(rng.integers(5))],
                "family": f"f{int(rng.integers(2))}",
                "channel": CHANNELS[int(rng.integers(2))],
                "weights": {"x": float(rng.normal()), "y": float(rng.normal())},
                "bias": float(rng.normal()),
                "value": float(rng.choice([0.05, 1.0, 2.0])),
                "cost": float(rng.choice([0.0, 0.1, 0.9])),
                "rule": RULES[int(rng.integers(len(RULES)))],
                "valid_to": AS_OF - timedelta(days=1) if rng.random() < 0.1 else None,
            }
            for place in range(m)
        ]
    )
    policy = Policy(
        k=int(rng.integers(1, 5)),
        ev_min=0.05,
        product_limit=1 if rng.random() < 0.6 else None,
        family_limit=2 if rng.random() < 0.4 else None,
        exclusions={"capabilities": ["k01"]} if rng.random() < 0.3 else {},
    )
    engine = Engine(base, catalog, policy, threads=1)
    return engine, engine.match()


def expected_reason(engine: Engine, matches: Matches, j: int) -> str:
    """Why capability `j` reaches nobody, asked of every customer one by one."""
    ids = [engine.base.customer_ids[int(i)].as_py() for i in matches.customer_index]
    if not ids:
        return "objection"
    told = [engine.explain(customer, engine.catalog.ids[j]) for customer in ids]
    closed = [[gate.name for gate in each.gates if not gate.is_open] for each in told]
    outside = [[name for name in names if name != "history"] for names in closed]
    if all(outside):
        for name in ("exclusion", "validity"):
            if all(name in names for names in outside):
                return name
        return "rule" if all("rule" in names for names in outside) else "consent"
    scored = [each for each, names in zip(told, closed, strict=True) if not names]
    if not scored:
        return "fact"
    least = engine.policy.ev_min
    assert least is not None
    worth = [each for each in scored if (each.expected_value or 0.0) >= least]
    return "outranked" if worth else "worth"


def test_coverage_says_why_nobody_gets_it() -> None:
    seen: set[str] = set()
    for seed in range(14):
        engine, matches = world(seed)
        held = coverage(engine, matches, example_count=100)
        table = matches.to_table()["capability_id"].to_pylist()
        never = [j for j, name in enumerate(engine.catalog.ids) if name not in table]
        expected: dict[str, list[str]] = {}
        for j in never:
            reason = expected_reason(engine, matches, j)
            expected.setdefault(reason, []).append(engine.catalog.ids[j])
        found = {
            each["reason"]: [one["capability_id"] for one in each["examples"]]
            for each in held["reasons"]
        }
        assert found == expected, seed
        assert held["given_count"] == len(set(table))
        assert held["given_count"] + sum(e["count"] for e in held["reasons"]) == len(
            engine.catalog.ids
        )
        for each in held["by_channel"]:
            of = [j for j, c in enumerate(engine.catalog.channels) if c == each["channel"]]
            assert each["capability_count"] == len(of)
            assert each["opportunity_count"] == sum(table.count(engine.catalog.ids[j]) for j in of)
        for each in held["most_given"]:
            assert each["customer_count"] == table.count(each["capability_id"])
        if table:
            amounts = sorted((table.count(name) for name in set(table)), reverse=True)
            half = next(n for n in range(len(amounts) + 1) if 2 * sum(amounts[:n]) >= len(table))
            assert held["half_count"] == half
        seen |= set(found)
    assert seen >= {"exclusion", "validity", "rule", "consent", "fact", "worth", "outranked"}


def test_coverage_is_bounded_and_says_so() -> None:
    engine, matches = next(
        (engine, matches)
        for engine, matches in map(world, range(40))
        if {"worth", "outranked"}
        & {each["reason"] for each in coverage(engine, matches)["reasons"]}
    )
    bounded = coverage(engine, matches, pairs_max=0)
    assert "not_examined" in {each["reason"] for each in bounded["reasons"]}
    assert not {"worth", "outranked"} & {each["reason"] for each in bounded["reasons"]}


def test_divergence_is_the_mean_surprise() -> None:
    for seed in range(25):
        engine, matches = world(seed)
        held = divergent_customers(engine, matches, count=100)
        product_of = dict(zip(engine.catalog.ids, engine.catalog.products, strict=True))
        offered: dict[str, list[str]] = {}
        for row in matches.to_table().to_pylist():
            offered.setdefault(row["customer_id"], []).append(product_of[row["capability_id"]])
        holders = {
            product: sum(product in each for each in offered.values())
            for product in set(product_of.values())
        }
        bits = {
            who: sum(-math.log2(holders[p] / len(offered)) for p in what) / len(what)
            for who, what in offered.items()
        }
        most = max(map(len, offered.values()), default=0)
        full_lists = [who for who, what in offered.items() if len(what) == most]
        ranked = sorted(full_lists, key=lambda who: (-round(bits[who], 9), who))
        assert [each["customer_id"] for each in held["customers"]] == ranked
        for each in held["customers"]:
            assert each["bits"] == pytest.approx(bits[each["customer_id"]], abs=1e-9)
            assert [one["product"] for one in each["opportunities"]] == offered[each["customer_id"]]
            for one in each["opportunities"]:
                assert one["customer_count"] == holders[one["product"]]
        assert held["customer_count"] == len(offered)
        assert sum(each["customer_count"] for each in held["distribution"]) == len(offered)
        if bits:
            assert held["median_bits"] == pytest.approx(float(np.median(list(bits.values()))))


def test_stories_tell_what_explain_tells() -> None:
    kinds: set[str] = set()
    for seed in range(16):
        engine, matches = world(seed)
        table = matches.to_table()
        for story in customer_stories(engine, matches, table):
            who = story["customer_id"]
            rows = [row for row in table.to_pylist() if row["customer_id"] == who]
            got = [
                (each["capability_id"], each["expected_value"]) for each in story["opportunities"]
            ]
            assert got == [(row["capability_id"], row["expected_value"]) for row in rows]
            assert all(
                len(each["reasons"]) == len(row["reasons"])
                for each, row in zip(story["opportunities"], rows, strict=True)
            )
            found = {each["kind"]: each for each in story["not_chosen"]}
            assert {kind: each["capability_id"] for kind, each in found.items()} == not_chosen(
                engine, who, [name for name, _ in got]
            )
            for each in found.values():
                why = engine.explain(who, each["capability_id"])
                assert (why.verdict, list(why.remedies)) == (each["verdict"], each["remedies"])
                assert why.rank is None
            kinds |= set(found)
    assert kinds == {"next_best", "next_product", "closed"}


def not_chosen(engine: Engine, who: str, held: list[str]) -> dict[str, str]:
    """The same by asking for every capability one by one."""
    told = [engine.explain(who, name) for name in engine.catalog.ids]
    product_of = dict(zip(engine.catalog.ids, engine.catalog.products, strict=True))
    order = {each.capability_id: j for j, each in enumerate(told)}
    others = sorted(
        (
            each
            for each in told
            if each.capability_id not in held and each.expected_value is not None
        ),
        key=lambda each: (-(each.expected_value or 0.0), order[each.capability_id]),
    )
    found = {}
    is_open = {each.capability_id: all(gate.is_open for gate in each.gates) for each in told}
    best = next((each for each in others if is_open[each.capability_id]), None)
    offered = {product_of[name] for name in held}
    if best is not None:
        found["next_best"] = best.capability_id
        if product_of[best.capability_id] in offered:
            for each in others:
                if is_open[each.capability_id] and product_of[each.capability_id] not in offered:
                    found["next_product"] = each.capability_id
                    break
    shut = next((each for each in others if not is_open[each.capability_id]), None)
    last = told[order[held[-1]]]
    if shut is not None and (-(shut.expected_value or 0.0), order[shut.capability_id]) < (
        -(last.expected_value or 0.0),
        order[held[-1]],
    ):
        found["closed"] = shut.capability_id
    return found


def test_stories_are_spread_over_full_lists() -> None:
    engine, matches = world(3)
    table = matches.to_table()
    told = customer_stories(engine, matches, table, count=2)
    most = int(matches.result.opportunity_count.max())
    assert 1 <= len(told) <= 2
    assert all(len(each["opportunities"]) == most for each in told)
    assert customer_stories(engine, matches, table, count=0) == []


def test_nobody_to_tell_of_is_no_error() -> None:
    base = Base.from_tables(
        pa.table({"customer_id": ["a"], "x": [1.0]}),
        as_of=AS_OF,
        attributes=pa.table({"customer_id": ["a"], "objected": [True]}),
    )
    catalog = Catalog.from_rows([{"id": "k", "product": "p", "channel": "shop", "weights": {}}])
    engine = Engine(base, catalog, Policy(consent_not_needed=["shop"]), threads=1)
    matches = engine.match()
    content = ReportContent(
        stories=customer_stories(engine, matches, matches.to_table()),
        divergence=divergent_customers(engine, matches),
        coverage=coverage(engine, matches),
        policy=policy_in_words(engine.policy),
    )
    assert content.stories == []
    assert content.divergence is not None
    assert content.divergence["customers"] == []
    assert content.coverage is not None
    assert [each["reason"] for each in content.coverage["reasons"]] == ["objection"]
    check(render(content.canonical()))


def test_a_report_of_a_real_match_holds_together(tmp_path: Path) -> None:
    engine, matches = world(5)
    content = ReportContent(
        **{
            **full(),
            "stories": customer_stories(engine, matches, matches.to_table()),
            "divergence": divergent_customers(engine, matches),
            "coverage": coverage(engine, matches),
            "policy": policy_in_words(engine.policy),
        }
    )
    page, _ = write_report(tmp_path, content)
    walk = check(page.read_text(encoding="utf-8"))
    assert "What would change it" in walk.text


def test_the_policy_is_said_in_words() -> None:
    said = policy_in_words(
        Policy(
            k=1,
            ev_min=0.05,
            product_limit=1,
            family_limit=3,
            cool_down_days={"email": 1, "letter": 30},
            consent_not_needed=["shop"],
            exclusions={"products": ["p", "q"], "families": ["f"]},
            control_share=0.05,
        )
    )
    assert said[:2] == [
        "At most 1 opportunity per customer.",
        "Among them at most 1 per product, 3 per family.",
    ]
    assert said[2].startswith("Each worth at least 0.05 after the cost of the contact")
    assert said[3:8] == [
        "Every channel needs the customer's consent, except shop; unknown counts as refused.",
        "After a contact by email, 1 day of rest for that channel.",
        "After a contact by letter, 30 days of rest for that channel.",
        "Left out: 2 products.",
        "Left out: 1 family.",
    ]
    assert said[8].startswith("5 % of customers form a control group")
    assert len(said) == 9
    assert "No minimum of expected value." in policy_in_words(Policy(ev_min=None))


def test_content_is_left_as_it_was() -> None:
    content = ReportContent(**full())
    before = copy.deepcopy(content)
    render(content.canonical())
    assert content == before
    assert replace(content, title="Other").canonical().title == "Other"
    assert set(leaves(content.to_json())) >= {0.477, 0.04821, "0fbe9d"}
