"""Which compiled form of the kernel runs: chosen once per call, by name or the best there is."""

from __future__ import annotations

import os
from typing import Final

from visavis import _kernel
from visavis.errors import InputError, VariantError

__all__ = [
    "choose_variant",
    "is_screened",
    "missing_feature",
    "processor_features",
    "variant_index",
    "variants",
]

#: Names the variant to use when the caller names none.
VARIANT_ENVIRONMENT: Final = "VISAVIS_VARIANT"


def variants() -> dict[str, bool]:
    """Every variant in this build, slowest first, and whether this processor can run it."""
    return {name: lacks is None for name, lacks, _ in _kernel.variants()}


def processor_features() -> str:
    """What this processor has of the features that variants ask for, separated by spaces."""
    return _kernel.processor_features()


def missing_feature(variant: str) -> str | None:
    """The first thing that a variant asks for and this machine lacks; None = it can run."""
    return {name: lacks for name, lacks, _ in _kernel.variants()}[variant]


def is_screened(variant: str) -> bool:
    """Whether a variant screens pairs before it scores them, and so needs `Panel.prepare`."""
    return {name: screened for name, _, screened in _kernel.variants()}[variant]


def choose_variant(variant: str | None = None) -> str:
    """The variant that a call would use.

    Parameters
    ----------
    variant : str, optional
        A name from `variants`. Default: the environment's ``VISAVIS_VARIANT``, else the best one
        that this processor can run.

    Raises
    ------
    InputError
        If the name is unknown.
    VariantError
        If this processor cannot run it: forcing a variant never falls back to another.
    """
    known = variants()
    name: object = variant if variant is not None else os.environ.get(VARIANT_ENVIRONMENT) or None
    if name is None:
        return [candidate for candidate, supported in known.items() if supported][-1]
    if not isinstance(name, str) or name not in known:
        source = "variant" if variant is not None else VARIANT_ENVIRONMENT
        raise InputError(
            f"unknown variant {name!r}; this build has {', '.join(known)}", field=source
        )
    if not known[name]:
        raise VariantError(
            f"variant {name!r} cannot run on this machine: it lacks {missing_feature(name)}"
        )
    return name


def variant_index(variant: str | None) -> int:
    """The position of the chosen variant in the build's table; errors as of `choose_variant`."""
    return list(variants()).index(choose_variant(variant))
