"""The model card: what was learned, from what, how well it held, and where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from visavis.learning.learn import Learned

__all__ = ["model_card"]

#: Coefficients listed, largest first.
SHOWN_COEFFICIENTS: Final = 25


def model_card(learned: Learned, *, notice: str | None = None) -> str:
    """Write the card in Markdown.

    Parameters
    ----------
    learned : Learned
    notice : str, optional
        What must be said of the data wherever results are shown.

    Returns
    -------
    str
    """
    provenance = learned.provenance
    count = f"{learned.catalog.capability_count:,}"
    return "\n".join(
        [
            f"# Model card: {count} capabilities as of {provenance['as_of']}",
            "",
            *([f"> {notice}", ""] if notice else []),
            *_meaning(provenance),
            *_sources(provenance),
            *_validation(learned.validation),
            *_coefficients(learned),
            *_LIMITS,
        ]
    )


_LIMITS: Final = (
    "## Limits",
    "",
    "- Learned from what customers bought, not from what contacts changed.",
    "- A product that few customers bought leans on the pooled model.",
    "- Demand moves with the season; learn again when the calibration on recent weeks drifts.",
    "",
    "## How it was tuned",
    "",
    "How strongly products are pulled toward the pooled model is chosen in every run, on its last",
    "window. The constants of the method (the pulls of a product's level and of interactions, the",
    "columns) were chosen the same way, on windows that end before the one that judges.",
    "",
)


def _meaning(provenance: dict[str, Any]) -> list[str]:
    days = provenance["spec"]["window_days"]
    return [
        "## What it says",
        "",
        f"The propensity that a customer buys a product within {days} days, and the expected",
        "number of purchases, from the customer's own history with the product and the customer's",
        "own indicators. It describes what customers do by themselves: it says nothing about what",
        "a contact would cause.",
        "",
    ]


def _sources(provenance: dict[str, Any]) -> list[str]:
    short = {name: f"`{provenance[name + '_digest'][:12]}`" for name in ("catalog", "spec", "base")}
    return [
        "## What it was learned from",
        "",
        "| cut | days after it | purchases | base | outcomes |",
        "|---|---|---|---|---|",
        *(_window_row(window) for window in provenance["windows"]),
        "",
        f"Declared catalog {short['catalog']}, spec {short['spec']}, base {short['base']}, score",
        f"contract {provenance['kernel_contract']}. Features end at each cut, labels begin after.",
        "",
    ]


def _window_row(window: dict[str, Any]) -> str:
    return (
        f"| {window['as_of']} | {window['window_days']} | {window['outcome_count']:,} | "
        f"`{window['base_digest'][:12]}` | `{window['outcomes_digest'][:12]}` |"
    )


def _coefficients(learned: Learned) -> list[str]:
    largest = sorted(learned.pooled, key=lambda each: -abs(each[1]))[:SHOWN_COEFFICIENTS]
    return [
        "## What it looks at",
        "",
        "Pooled coefficients per standard deviation of the column, largest first. Each product",
        f"deviates from them under a ridge of {learned.provenance['ridge']}.",
        "",
        "| column | coefficient |",
        "|---|---|",
        *(f"| {name} | {value:+.3f} |" for name, value in largest),
        "",
    ]


def _validation(validation: dict[str, Any]) -> list[str]:
    if not validation:
        return ["## How well it held", "", "One window only: nothing was held out.", ""]
    held = validation["reliability"]
    return [
        "## How well it held",
        "",
        f"On the window after {validation['as_of']}, from a model of the windows before it, over",
        f"{validation['product_count']} products: log-loss {held['log_loss']:.5f} and Brier score",
        f"{held['brier']:.5f} per pair, {held['observed']:,.0f} purchases observed,",
        f"{held['expected']:,.0f} expected.",
        "",
        "| propensity | pairs | expected | observed | observed ÷ expected |",
        "|---|---|---|---|---|",
        *(_bin_row(each) for each in held["bins"]),
        "",
        "| pull toward the pooled model | log-loss |",
        "|---|---|",
        *(_ridge_row(each) for each in validation["log_loss_by_ridge"]),
        "",
    ]


def _ridge_row(each: dict[str, Any]) -> str:
    return f"| {each['ridge']} | {each['log_loss']:.6f} |"


def _bin_row(each: dict[str, Any]) -> str:
    ratio = "–" if each["ratio"] is None else f"{each['ratio']:.3f}"
    return (
        f"| {each['low']:.4f} – {each['high']:.4f} | {each['pair_count']:,.0f} | "
        f"{each['expected']:,.0f} | {each['observed']:,.0f} | {ratio} |"
    )
