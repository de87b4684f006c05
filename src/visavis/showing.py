"""What the terminal shows people at the end of a command: tables, opportunities, explanations."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.text import Text

from visavis.domain import CUSTOMER_ID
from visavis.engine import Contribution, Engine, Explanation
from visavis.terminal import add_row, new_table, plain
from visavis.words import reason_in_words

if TYPE_CHECKING:
    from visavis.demo import DemoRun

__all__ = ["show_demo", "show_explanation", "show_notice", "show_opportunities"]

#: Customers whose opportunities the demo spells out.
SHOWN_CUSTOMERS: Final = 3

#: Contributions listed in an explanation: those of the largest magnitude.
SHOWN_CONTRIBUTIONS: Final = 8

#: What the demo wrote, first what people read.
SHOWN_FILES: Final = (
    *("report.html", "report.json", "opportunities.parquet", "run.json", "model.md"),
    *("catalog.parquet", "base"),
)

#: What the demo's figures are of, by their names in run.json.
HELD_OUT_WORDS: Final = {
    "match": "the match: rules, consent, ranked by expected value",
    "own_five_by_value": "every customer's own five, by expected value alone",
    "own_five": "every customer's own five, by propensity alone",
    "own_five_declared": "the same with declared weights, nothing learned",
}


def show_demo(done: DemoRun, console: Console) -> None:
    """Print the summary of a demo run, three customers in plain words, and the paths."""
    engine = done.matches.engine
    for customer_id in _shown_customers(done):
        rows = [row for row in done.table.to_pylist() if row[CUSTOMER_ID] == customer_id]
        show_opportunities(engine, customer_id, rows, console)
    _show_work(done.summary, console)
    _show_captured(done.summary, console)
    _show_arms(done.comparison.under_policy, console)
    console.print()
    show_notice(done.summary["notice"], console)
    console.print()
    for name in SHOWN_FILES:
        if (done.folder / name).exists():
            console.print(Text("  ") + plain(done.folder / name), soft_wrap=True)
    chosen = done.table.slice(0, 1).to_pylist()
    if chosen:
        asked = {
            "base": done.folder / "base",
            "catalog": done.folder / "catalog.parquet",
            "policy": done.folder / "policy.toml",
            "customer": chosen[0][CUSTOMER_ID],
            "capability": chosen[0]["capability_id"],
        }
        options = [part for name, given in asked.items() for part in (f"--{name}", str(given))]
        console.print("\nAsk why, of any customer and capability:")
        command = shlex.join([".venv/bin/visavis", "explain", *options])
        console.print(Text("  ") + plain(command), soft_wrap=True)


def show_notice(notice: str | None, console: Console) -> None:
    """Print what must stand wherever results of a data set are shown."""
    if notice is not None:
        console.print(plain(notice, "dim"), soft_wrap=True)


def show_explanation(engine: Engine, explanation: Explanation, console: Console) -> None:
    """Print an explanation: verdict, gates, terms of the score, what would change it."""
    console.print(
        plain(f"{explanation.customer_id} × {explanation.capability_id}", "bold")
        + plain(f" as of {explanation.as_of}: {explanation.verdict}")
    )
    gates = new_table("gate", "", "")
    for gate in explanation.gates:
        state = plain("open") if gate.is_open else plain("closed", "bold")
        add_row(gates, gate.name, state, gate.detail)
    console.print(gates)
    if explanation.linear_predictor is not None:
        _show_terms(engine, explanation, console)
        console.print(
            f"z = {explanation.linear_predictor:.4f}, propensity {explanation.propensity:.1%}, "
            f"expected value {explanation.expected_value:.4f}"
        )
    for remedy in explanation.remedies:
        console.print(plain(f"would change it: {remedy}"))


def _show_terms(engine: Engine, explanation: Explanation, console: Console) -> None:
    terms = new_table("contribution to z", "", "why")
    i = engine.base.index_of(explanation.customer_id)
    j = engine.catalog.index_of(explanation.capability_id)
    add_row(terms, f"{explanation.bias:+.4f}", "bias", "the same for every customer")
    listed = _largest(explanation.contributions)
    for term in listed:
        words = reason_in_words(engine.base, engine.catalog, i, j, term.name, as_of=engine.as_of)
        add_row(terms, f"{term.contribution:+.4f}", term.name, words)
    rest = [term for term in explanation.contributions if term not in listed]
    if rest:
        total = sum(term.contribution for term in rest)
        add_row(terms, f"{total:+.4f}", f"{len(rest)} smaller", "")
    console.print(terms)


def _largest(terms: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
    """The terms that weigh most, for or against, in the order of all."""
    weightiest = sorted(terms, key=lambda term: -abs(term.contribution))[:SHOWN_CONTRIBUTIONS]
    return tuple(term for term in terms if term in weightiest)


def show_opportunities(
    engine: Engine, customer_id: str, rows: Iterable[Mapping[str, Any]], console: Console
) -> None:
    """Print the opportunities of one customer, each with its reasons in plain words.

    Parameters
    ----------
    engine : Engine
    customer_id : str
    rows : iterable of mapping
        The customer's rows of `Matches.to_table`.
    console : Console
    """
    i = engine.base.index_of(customer_id)
    held = list(rows)
    if not held:
        console.print(plain(f"customer {customer_id}: no opportunity as of {engine.as_of}"))
        return
    mark = " (control group: not to be contacted)" if held[0]["control"] else ""
    table = new_table(
        *("", "product", "by", "chance", "worth", "because"), title=f"customer {customer_id}{mark}"
    )
    for row in held:
        j = engine.catalog.index_of(row["capability_id"])
        why = [
            reason_in_words(
                engine.base, engine.catalog, i, j, reason["indicator"], as_of=engine.as_of
            )
            for reason in row["reasons"]
        ]
        add_row(
            table,
            row["rank"],
            engine.catalog.products[j],
            engine.catalog.channels[j],
            f"{row['propensity']:.0%}",
            f"{row['expected_value']:.2f}",
            "; ".join(why) or "it is popular with everybody",
        )
    console.print(table)


def _shown_customers(done: DemoRun) -> list[str]:
    """Customers spread over the base who have as many opportunities as the policy allows."""
    full = np.flatnonzero(done.matches.result.opportunity_count == done.matches.engine.policy.k)
    # A base in which nobody gets k opportunities still has customers to show.
    rows = full if len(full) else np.flatnonzero(done.matches.result.opportunity_count > 0)
    chosen = rows[np.linspace(0, len(rows) - 1, min(SHOWN_CUSTOMERS, len(rows))).astype(int)]
    ids = done.matches.engine.base.customer_ids
    return [ids[int(i)].as_py() for i in done.matches.customer_index[chosen]]


def _show_work(summary: Mapping[str, Any], console: Console) -> None:
    seconds, stats = summary["seconds"], summary["stats"]
    match_rate = summary["pairs_scored_per_second"] / 1e6
    campaign_rate = summary["campaign_pairs_per_second"] / 1e6
    pairs = f"{summary['matched_customer_count']:,} × {summary['capability_count']:,}"
    customers = f"{summary['customers_with_opportunities']:,} customers"
    with_what = f"{summary['variant']}, {summary['threads']} threads"
    rows = {
        "customers × capabilities": f"{pairs} = {summary['pair_count']:,} pairs",
        "indicators, facts": f"{summary['indicator_count']}, {summary['fact_count']:,}",
        "closed by a rule or consent": f"{stats['skipped_by_rule']:,} pairs",
        "opportunities": f"{summary['opportunity_count']:,} for {customers}",
        "match": f"{seconds['match']:.2f} s = {match_rate:.1f} M pairs scored/s ({with_what})",
        "campaign loop": f"{seconds['campaigns']:.2f} s = {campaign_rate:.1f} M pairs/s (numpy)",
        "campaign loop ÷ match": f"{summary['campaigns_over_match']:.2f}",
    }
    table = new_table("", "", title="the work", show_header=False)
    for name, said in rows.items():
        add_row(table, name, said)
    console.print(table)


def _show_captured(summary: Mapping[str, Any], console: Console) -> None:
    table = new_table(
        *("", "contacts", "hits", "hit rate", "of all spend"),
        title=f"bought in the {summary['window_days']} days after {summary['as_of']} "
        "(captured, not caused: nothing was sent)",
    )
    for name, figures in summary["held_out"].items():
        add_row(
            table,
            HELD_OUT_WORDS.get(name, name.replace("_", " ")),
            f"{figures['contact_count']:,}",
            f"{figures['hit_count']:,}",
            f"{figures['hit_rate']:.3f}",
            f"{figures['spend_share']:.1%}",
        )
    console.print(table)


def _show_arms(evaluation: Mapping[str, Any], console: Console) -> None:
    """One-to-one beside campaigns with equal contacts, arm by arm of B's contact policy."""
    from visavis.report.arms import with_k

    arms = evaluation["arms"]
    own = next(arm for arm in arms if arm["name"] == "B")
    policy = own["contact_policy"]
    table = new_table(
        *("", "contacts", "hit rate", "of all spend"),
        title=f"the same rules and as many contacts, {with_k(evaluation, policy)} (95 % intervals)",
    )
    alike = [arm for arm in arms if arm["contact_policy"] == policy and arm["name"] != "B"]
    for arm in (own, *alike):
        rate, share = arm["hit_rate"], arm["spend_share"]
        add_row(
            table,
            f"{arm['name']}: {with_k(evaluation, arm['label'])}",
            f"{arm['contact_count']:,}",
            f"{rate['value']:.3f} ({rate['low']:.3f}–{rate['high']:.3f})",
            f"{share['value']:.1%} ({share['low']:.1%}–{share['high']:.1%})",
        )
    console.print(table)
