"""What the terminal shows people at the end of a command: tables, opportunities, explanations."""

from __future__ import annotations

from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from visavis.demo import DemoRun
from visavis.domain import CUSTOMER_ID
from visavis.engine import Engine, Explanation
from visavis.words import reason_in_words

__all__ = ["show_demo", "show_explanation"]

#: Customers whose opportunities the demo spells out.
SHOWN_CUSTOMERS: Final = 3

#: Contributions listed in an explanation.
SHOWN_CONTRIBUTIONS: Final = 8


def show_demo(done: DemoRun, console: Console) -> None:
    """Print the summary of a demo run, three customers in plain words, and the paths."""
    for customer_id in _shown_customers(done):
        _show_customer(done, customer_id, console)
    _show_work(done, console)
    _show_captured(done, console)
    console.print(f"\n[dim]{done.summary['notice']}[/dim]\n")
    for name in ("opportunities.parquet", "run.json", "catalog.parquet", "base"):
        console.print(f"  {done.folder / name}")
    chosen = done.table.slice(0, 1).to_pylist()[0]
    console.print(
        "\nAsk why, of any customer and capability:\n"
        f"  .venv/bin/visavis explain --base {done.folder / 'base'} "
        f"--catalog {done.folder / 'catalog.parquet'} --policy {done.folder / 'policy.toml'} "
        f"--customer {chosen[CUSTOMER_ID]} --capability {chosen['capability_id']!r}",
        soft_wrap=True,
        highlight=False,
    )


def show_explanation(engine: Engine, explanation: Explanation, console: Console) -> None:
    """Print an explanation: verdict, gates, terms of the score, what would change it."""
    console.print(
        f"[bold]{explanation.customer_id} × {explanation.capability_id}[/bold] "
        f"as of {explanation.as_of}: {explanation.verdict}"
    )
    gates = Table("gate", "", "")
    for gate in explanation.gates:
        gates.add_row(gate.name, "open" if gate.is_open else "[bold]closed[/bold]", gate.detail)
    console.print(gates)
    if explanation.linear_predictor is not None:
        terms = Table("contribution to z", "", "why")
        i = engine.base.index_of(explanation.customer_id)
        j = engine.catalog.index_of(explanation.capability_id)
        terms.add_row(f"{explanation.bias:+.4f}", "bias", "the same for every customer")
        for term in explanation.contributions[:SHOWN_CONTRIBUTIONS]:
            words = reason_in_words(engine.base, engine.catalog, i, j, term.name)
            terms.add_row(f"{term.contribution:+.4f}", term.name, words)
        rest = explanation.contributions[SHOWN_CONTRIBUTIONS:]
        if rest:
            total = sum(term.contribution for term in rest)
            terms.add_row(f"{total:+.4f}", f"{len(rest)} more", "")
        console.print(terms)
        console.print(
            f"z = {explanation.linear_predictor:.4f}, propensity {explanation.propensity:.1%}, "
            f"expected value {explanation.expected_value:.4f}"
        )
    for remedy in explanation.remedies:
        console.print(f"would change it: {remedy}")


def _shown_customers(done: DemoRun) -> list[str]:
    """Customers spread over the base who have as many opportunities as the policy allows."""
    full = np.flatnonzero(done.matches.result.opportunity_count == done.matches.engine.policy.k)
    # A base in which nobody gets k opportunities still has customers to show.
    rows = full if len(full) else np.flatnonzero(done.matches.result.opportunity_count > 0)
    chosen = rows[np.linspace(0, len(rows) - 1, min(SHOWN_CUSTOMERS, len(rows))).astype(int)]
    ids = done.matches.engine.base.customer_ids
    return [ids[int(i)].as_py() for i in done.matches.customer_index[chosen]]


def _show_customer(done: DemoRun, customer_id: str, console: Console) -> None:
    engine = done.matches.engine
    i = engine.base.index_of(customer_id)
    rows = [row for row in done.table.to_pylist() if row[CUSTOMER_ID] == customer_id]
    mark = " (control group: not to be contacted)" if rows[0]["control"] else ""
    table = Table(
        "", "product", "by", "chance", "worth", "because", title=f"customer {customer_id}{mark}"
    )
    for row in rows:
        j = engine.catalog.index_of(row["capability_id"])
        why = [
            reason_in_words(engine.base, engine.catalog, i, j, reason["indicator"])
            for reason in row["reasons"]
        ]
        table.add_row(
            str(row["rank"]),
            engine.catalog.products[j],
            engine.catalog.channels[j],
            f"{row['propensity']:.0%}",
            f"{row['expected_value']:.2f}",
            "; ".join(why) or "it is popular with everybody",
        )
    console.print(table)


def _show_work(done: DemoRun, console: Console) -> None:
    summary = done.summary
    seconds, stats = summary["seconds"], summary["stats"]
    match_rate = summary["match_pairs_per_second"] / 1e6
    campaign_rate = summary["campaign_pairs_per_second"] / 1e6
    pairs = f"{summary['customer_count']:,} × {summary['capability_count']:,}"
    customers = f"{summary['customers_with_opportunities']:,} customers"
    with_what = f"{summary['variant']}, {summary['threads']} threads"
    rows = {
        "customers × capabilities": f"{pairs} = {summary['pair_count']:,} pairs",
        "indicators, facts": f"{summary['indicator_count']}, {summary['fact_count']:,}",
        "closed by a rule or consent": f"{stats['skipped_by_rule']:,} pairs",
        "opportunities": f"{summary['opportunity_count']:,} for {customers}",
        "match": f"{seconds['match']:.2f} s = {match_rate:.1f} M pairs/s ({with_what})",
        "campaign loop": f"{seconds['campaigns']:.2f} s = {campaign_rate:.1f} M pairs/s (numpy)",
        "campaign loop ÷ match": f"{summary['match_over_campaigns']:.2f}",
    }
    table = Table(title="the work", show_header=False)
    for name, shown in rows.items():
        table.add_row(name, shown)
    console.print(table)


def _show_captured(done: DemoRun, console: Console) -> None:
    summary = done.summary
    said = {
        "match": "the match: rules, consent, ranked by expected value",
        "campaigns": "campaigns: the same rules and scores, most bought product first",
        "own_five": "every customer's own five, by propensity alone",
        "same_five": "the same five products to everyone",
    }
    table = Table(
        "",
        "contacts",
        "hits",
        "hit rate",
        title=f"bought in the {summary['held_out_days']} days after {summary['as_of']} "
        "(captured, not caused: nothing was sent)",
    )
    for name, words in said.items():
        figures = summary["held_out"][name]
        table.add_row(
            words,
            f"{figures['contact_count']:,}",
            f"{figures['hit_count']:,}",
            f"{figures['hit_rate']:.3f}",
        )
    console.print(table)
