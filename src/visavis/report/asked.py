"""The policy in words, for people who never see its file."""

from __future__ import annotations

from visavis.policy import Policy

__all__ = ["policy_in_words"]


def policy_in_words(policy: Policy) -> list[str]:
    """One sentence per thing that the policy allows or forbids."""
    said = [f"At most {_plural(policy.k, 'opportunity', 'opportunities')} per customer."]
    limits = [
        f"{limit:,} per {group}"
        for group, limit in (
            ("product", policy.product_limit),
            ("channel", policy.channel_limit),
            ("family", policy.family_limit),
        )
        if limit is not None
    ]
    if limits:
        said.append(f"Among them at most {', '.join(limits)}.")
    if policy.ev_min is None:
        said.append("No minimum of expected value.")
    else:
        said.append(
            f"Each worth at least {policy.ev_min:g} after the cost of the contact "
            "(expected value, in the unit of the catalog)."
        )
    free = sorted(policy.consent_not_needed)
    but = f", except {', '.join(free)}" if free else ""
    said.append(f"Every channel needs the customer's consent{but}; unknown counts as refused.")
    said += [
        f"After a contact by {channel}, {_plural(days, 'day')} of rest for that channel."
        for channel, days in sorted(policy.cool_down_days.items())
    ]
    said += [
        f"Left out: {_plural(len(names), one, many)}."
        for one, many, names in (
            ("customer", None, policy.exclusions.customers),
            ("capability", "capabilities", policy.exclusions.capabilities),
            ("product", None, policy.exclusions.products),
            ("channel", None, policy.exclusions.channels),
            ("family", "families", policy.exclusions.families),
        )
        if names
    ]
    if policy.control_share:
        said.append(
            f"{100 * policy.control_share:g} % of customers form a control group: they are matched "
            "and marked, and must not be contacted."
        )
    return said


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
