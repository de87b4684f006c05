"""What people read at the end of a command: nothing cut, nothing obeyed, what weighs most first."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from visavis import Base, Catalog, Engine, Policy
from visavis.demo.dataset import NOTICE
from visavis.showing import SHOWN_CONTRIBUTIONS, show_demo, show_explanation, show_notice

LONG = "share_of_" + "x" * 80


def engine_of(values: dict[str, float], *, customer: str = "ann", product: str = "tea") -> Engine:
    """One customer, one capability that weighs every indicator once."""
    table = pa.table({"customer_id": [customer], **{name: [x] for name, x in values.items()}})
    catalog = Catalog.from_rows(
        [
            {
                "id": f"{product}-mail",
                "product": product,
                "channel": "email",
                "weights": dict.fromkeys(values, 1.0),
            }
        ]
    )
    policy = Policy(consent_not_needed=["email"], k=1, ev_min=None)
    base = Base.from_tables(table, as_of="2026-01-31")
    return Engine(base, catalog, policy, threads=1)


def explained(engine: Engine, width: int = 100) -> str:
    stream = io.StringIO()
    explanation = engine.explain(engine.base.customer_ids[0].as_py(), engine.catalog.ids[0])
    show_explanation(engine, explanation, Console(file=stream, width=width))
    return stream.getvalue()


def test_what_pulls_down_is_seen_among_many() -> None:
    values = {f"up_{number:02}": 1.0 + number / 100 for number in range(20)}
    text = explained(engine_of({**values, "down": -5.0, "slightly_down": -0.25}))
    assert "-5.0000" in text
    assert "slightly_down" not in text
    listed = [name for name in values if f" {name} " in text]
    assert listed == [f"up_{number:02}" for number in range(13, 20)]
    assert len(listed) + 1 == SHOWN_CONTRIBUTIONS
    rest = sum(values[f"up_{number:02}"] for number in range(13)) - 0.25
    assert f"{rest:+.4f}" in text
    assert "14 smaller" in text
    assert text.index("up_19") < text.index("-5.0000"), "in the order of the contributions"


def test_few_terms_are_all_listed() -> None:
    text = explained(engine_of({f"i{number}": float(number - 4) for number in range(9)}))
    assert "smaller" not in text, "a term of zero is none"
    assert all(f"i{number}" in text for number in range(9) if number != 4)


def test_a_long_name_is_folded_and_never_cut() -> None:
    text = explained(engine_of({LONG: 1.0}), width=70)
    assert text.count("x") >= 2 * LONG.count("x"), "as a name and in words"
    assert "…" not in text


def test_no_notice_is_no_line() -> None:
    stream = io.StringIO()
    show_notice(None, Console(file=stream))
    assert stream.getvalue() == ""
    show_notice("said [/so]", Console(file=stream))
    assert stream.getvalue() == "said [/so]\n"


@pytest.mark.parametrize("customer", ["ann", "[/nope]", "it's"])
def test_the_demo_shows_customers_figures_notice_and_the_next_question(
    tmp_path: Path, customer: str
) -> None:
    engine = engine_of({"visits": 1.0}, customer=customer, product="tea [red]")
    matches = engine.match()
    (tmp_path / "run.json").write_text("{}")
    figures = {"contact_count": 1_000, "hit_count": 10, "hit_rate": 0.01, "spend_share": 0.5}
    summary: dict[str, Any] = {
        "notice": NOTICE,
        "seconds": {"match": 1.0, "campaigns": 2.0},
        "stats": matches.stats,
        "pairs_scored_per_second": 1e6,
        "campaign_pairs_per_second": 5e5,
        "campaigns_over_match": 2.0,
        "customer_count": 1,
        "matched_customer_count": 1,
        "capability_count": 1,
        "indicator_count": 1,
        "fact_count": 0,
        "pair_count": 1,
        "opportunity_count": 1,
        "customers_with_opportunities": 1,
        "variant": matches.variant,
        "threads": 1,
        "window_days": 28,
        "as_of": "2026-01-31",
        "held_out": {"match": figures, "new_arm": figures},
    }
    interval = {"value": 0.25, "low": 0.125, "high": 0.375}
    arm = {"contact_policy": "at most k per customer", "contact_count": 7}
    evaluation = {
        "setting": {"contacts_per_customer": 5},
        "arms": [
            {**arm, "name": name, "label": label, "hit_rate": interval, "spend_share": interval}
            for name, label in (("B", "one's own k"), ("A0", "k of [red]all"))
        ],
    }
    done: Any = SimpleNamespace(
        folder=tmp_path,
        matches=matches,
        table=matches.to_table(),
        summary=summary,
        comparison=SimpleNamespace(under_policy=evaluation),
    )
    stream = io.StringIO()
    show_demo(done, Console(file=stream, width=200))
    text = stream.getvalue()
    for said in (f"customer {customer}", "tea [red]", NOTICE, "new arm", "50.0%", "28 days"):
        assert said in text
    for said in ("at most 5 per customer", "B: one's own 5", "A0: 5 of [red]all"):
        assert said in text
    assert "0.250 (0.125–0.375)" in text
    assert str(tmp_path / "run.json") in text
    assert "model.md" not in text, "only what is there"
    quoted = {"ann": "ann", "[/nope]": "'[/nope]'"}.get(customer, "'it'\"'\"'s'")
    assert f"--customer {quoted} --capability 'tea [red]-mail'" in text
