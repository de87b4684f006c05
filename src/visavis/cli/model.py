"""``learn``: from events, facts and a declared catalog to a learned one and its model card."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visavis.cli.options import AsJson, Threads, named
from visavis.cli.output import print_json, print_pairs, stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from visavis.base import Base
    from visavis.catalog import Catalog
    from visavis.indicators import IndicatorSpec
    from visavis.learning import Learned

__all__ = ["learn"]


def learn(
    events: Annotated[list[Path], typer.Option(help="Parquet or CSV; may be given many times.")],
    spec: Annotated[Path, typer.Option(help="TOML: which indicators.")],
    facts: Annotated[Path, typer.Option(help="What happened up to --as-of: see visavis.base.")],
    catalog: Annotated[Path, typer.Option(help="Declared: its weights say what speaks for what.")],
    as_of: Annotated[str, typer.Option("--as-of", help="UTC date; nothing after it is looked at.")],
    out: Annotated[Path, typer.Option(help="The learned catalog, Parquet.")],
    card: Annotated[Path | None, typer.Option(help="The model card, Markdown.")] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="As for `visavis indicators`.")] = None,
    how: Annotated[
        Path | None, typer.Option("--how", help="TOML: see visavis.learning.LearnSpec.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, max=24, help="Cuts to learn from.")] = 3,
    complete_to: Annotated[
        str | None,
        typer.Option(
            help="UTC date up to which the facts are known to be complete; default: that of the "
            "last fact. A window that reaches beyond it is refused.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of finished blocks: a stopped run goes on.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Spread over Ray: 'local', 'auto' or the head's host:port."
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Learn every product's weights from what customers bought after earlier cuts."""
    from visavis.catalog import Catalog
    from visavis.cli.records import check_out
    from visavis.cli.tables import read_facts
    from visavis.domain import parse_date
    from visavis.indicators import IndicatorSpec
    from visavis.learning import model_card
    from visavis.store import write_bytes, write_json

    check_out(
        out,
        (".parquet",),
        {"--facts": facts, "--catalog": catalog, "--spec": spec},
        with_record=False,
    )
    with (
        stages(quiet=as_json) as stage,
        named(
            spec="--spec",
            as_of="--as-of",
            learn="--how",
            windows="--windows",
            address="--ray",
            complete_to="--complete-to",
        ),
    ):
        day = parse_date(as_of, field="as_of")
        known = read_facts(facts)
        make = _Bases(events, IndicatorSpec.read(spec), taxonomy, known, threads)
        learned, notice = _learned(
            make,
            day,
            windows,
            Catalog.read(catalog),
            how,
            checkpoint,
            None if complete_to is None else parse_date(complete_to, field="complete_to"),
            ray,
            stage,
        )
        learned.catalog.write(out)
        write_json(out.with_suffix(".json"), learned.provenance)
        if card is not None:
            write_bytes(card, model_card(learned, notice=notice).encode())
    summary = {
        "out": str(out),
        "card": None if card is None else str(card),
        "capability_count": learned.catalog.capability_count,
        "digest": learned.catalog.digest(),
        "provenance": learned.provenance,
        "validation": learned.validation,
    }
    if as_json:
        print_json(summary)
    else:
        print_pairs({name: summary[name] for name in ("out", "card", "capability_count", "digest")})


def _learned(
    make: _Bases,
    day: date,
    window_count: int,
    catalog: Catalog,
    how: Path | None,
    checkpoint: Path | None,
    complete_to: date | None,
    ray: str | None,
    stage: Any,
) -> tuple[Learned, str | None]:
    """What earlier cuts teach for one day, and the notice of the data."""
    from visavis.learning import LearnSpec, window_of
    from visavis.learning import learn as learn_from

    spec = LearnSpec() if how is None else LearnSpec.read(how)
    windows = []
    with stage("As of earlier cuts") as tick:
        for number in range(window_count):
            tick(number, window_count)
            cut = day - timedelta(days=spec.window_days * (number + 1))
            window = window_of(make(cut), make.facts, spec.window_days, known_to=complete_to)
            windows.append(window)
    with stage("As of the day itself"):
        base = make(day)
    with stage("Learning") as tick, _workers(ray, make.threads) as (threads, hold):
        learned = learn_from(
            windows,
            base,
            catalog,
            spec,
            checkpoint=checkpoint,
            threads=threads,
            hold=hold,
            progress=tick,
        )
    return learned, base.notice


@contextmanager
def _workers(ray: str | None, threads: int | None) -> Iterator[tuple[int | None, Any]]:
    """Where blocks of products are fitted: threads of this process, or Ray's workers."""
    if ray is None:
        yield threads, None
        return
    from visavis.cluster import held_once, joblib_backend

    with joblib_backend(ray) as processors:
        yield processors, held_once


class _Bases:
    """Makes the base as of any day from the same events and facts."""

    def __init__(
        self,
        events: list[Path],
        spec: IndicatorSpec,
        taxonomy: Path | None,
        facts: pa.Table,
        threads: int | None,
    ) -> None:
        self._events, self._spec, self._taxonomy = events, spec, taxonomy
        self.facts, self.threads = facts, threads

    def __call__(self, day: date) -> Base:
        import pyarrow.compute as pc

        from visavis.base import Base
        from visavis.domain import CUSTOMER_ID
        from visavis.indicators import compute

        found: Any = compute(
            self._events, self._spec, day, taxonomy=self._taxonomy, threads=self.threads
        )
        inside = pc.and_(
            pc.less_equal(self.facts["date"], day),
            pc.is_in(self.facts[CUSTOMER_ID], found.customer_ids),
        )
        return Base.from_tables(found.to_table(), as_of=day, facts=self.facts.filter(inside))
