"""What the opportunities captured in the window after the cut; nothing was sent.

Each figure is over its own contacts: the match under the policy, without the customers of the
control group; and the plain setting that isolates the ranking of products (no rule, no consent, no
cost). Campaigns stand beside them where contacts are equal: in visavis.demo.comparison.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.demo.dataset import CHANNELS, Purchases
from visavis.demo.declared import declare_catalog, plain_catalog
from visavis.domain import CUSTOMER_ID
from visavis.engine import Engine
from visavis.policy import Policy

__all__ = ["held_out_figures", "plain_engine"]

CONTACTS_PER_CUSTOMER: Final = 5

_Pairs = list[tuple[str, str]]


def plain_engine(
    engine: Engine, catalog: Catalog, *, by: str = "propensity", base: Base | None = None
) -> Engine:
    """The setting that isolates the ranking: one capability per product, five each, no rule.

    Parameters
    ----------
    engine : Engine
        Gives base, threads and variant.
    catalog : Catalog
    by : str
        ``propensity``, or ``expected_value``: the expected purchases times their value.
    base : Base, optional
        Default: the engine's.
    """
    plain = plain_catalog(catalog)
    if by == "propensity":
        plain = plain.with_columns(value=1.0)
    policy = Policy(
        k=CONTACTS_PER_CUSTOMER, ev_min=None, product_limit=1, consent_not_needed=(CHANNELS[0][0],)
    )
    base = engine.base if base is None else base
    return Engine(base, plain, policy, threads=engine.threads, variant=engine.variant)


def held_out_figures(
    purchases: Purchases, base: Base, table: pa.Table, engine: Engine
) -> dict[str, Any]:
    """Contacts, hits and captured spend of each figure, by name."""
    outcomes = purchases.outcomes(base.as_of)
    amount_of = dict(
        zip(
            zip(outcomes[CUSTOMER_ID].to_pylist(), outcomes["product"].to_pylist(), strict=True),
            outcomes["amount"].to_pylist(),
            strict=True,
        )
    )
    products = set(engine.catalog.products)
    customers = set(base.customer_ids.to_pylist())
    spend = sum(
        amount for (who, what), amount in amount_of.items() if who in customers and what in products
    )
    declared = declare_catalog(purchases.products(base.as_of), base.indicator_names)
    return {
        name: _figures(pairs, amount_of, spend)
        for name, pairs in (
            ("match", _pairs_of(table.filter(_uncontrolled(table)), engine.catalog)),
            ("own_five_by_value", _own_five(engine, engine.catalog, "expected_value")),
            ("own_five", _own_five(engine, engine.catalog, "propensity")),
            ("own_five_declared", _own_five(engine, declared, "propensity")),
        )
    }


def _figures(
    pairs: _Pairs, amount_of: dict[tuple[str, str], float], spend: float
) -> dict[str, Any]:
    hits = [pair for pair in pairs if pair in amount_of]
    captured = sum(amount_of[pair] for pair in dict.fromkeys(hits))
    return {
        "contact_count": len(pairs),
        "hit_count": len(hits),
        "hit_rate": len(hits) / max(1, len(pairs)),
        "captured_spend": captured,
        "spend_share": captured / spend if spend else 0.0,
        "customer_count": len({who for who, _ in pairs}),
    }


def _uncontrolled(table: pa.Table) -> pa.Array:
    return pa.array(~table["control"].to_numpy())


def _pairs_of(table: pa.Table, catalog: Catalog) -> _Pairs:
    product_of = dict(zip(catalog.ids, catalog.products, strict=True))
    chosen = table["capability_id"].to_pylist()
    return [
        (who, product_of[what])
        for who, what in zip(table[CUSTOMER_ID].to_pylist(), chosen, strict=True)
    ]


def _own_five(engine: Engine, catalog: Catalog, by: str) -> _Pairs:
    plain = plain_engine(engine, catalog, by=by)
    return _pairs_of(plain.match().to_table(reasons=0), plain.catalog)
