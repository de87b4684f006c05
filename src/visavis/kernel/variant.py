"""Which compiled form of the kernel runs: chosen once per call, by name or the best there is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from visavis import _kernel
from visavis.errors import InputError, VariantError

__all__ = [
    "Variant",
    "built_variants",
    "choose_variant",
    "chosen_variant",
    "processor_features",
    "variants",
]

#: Names the variant to use when the caller names none.
VARIANT_ENVIRONMENT: Final = "VISAVIS_VARIANT"


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled form of the kernel in this build.

    Attributes
    ----------
    index : int
        Its place in the build's table, best last.
    name : str
    lacks : str or None
        The first thing that it asks for and this machine lacks; None = it can run.
    is_screened : bool
        It screens pairs before it scores them, and so needs `Panel.prepare`.
    """

    index: int
    name: str
    lacks: str | None
    is_screened: bool


def built_variants() -> dict[str, Variant]:
    """Every variant in this build by name, best last."""
    return {
        name: Variant(index, name, lacks, is_screened)
        for index, (name, lacks, is_screened) in enumerate(_kernel.variants())
    }


def variants() -> dict[str, bool]:
    """Every variant in this build, slowest first, and whether this processor can run it."""
    return {each.name: each.lacks is None for each in built_variants().values()}


def processor_features() -> str:
    """What this processor has of the features that variants ask for, separated by spaces."""
    return _kernel.processor_features()


def choose_variant(variant: str | None = None) -> str:
    """The name of the variant that a call would use; see `chosen_variant`."""
    return chosen_variant(variant).name


def chosen_variant(variant: str | None = None) -> Variant:
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
    known = built_variants()
    name: object = variant if variant is not None else os.environ.get(VARIANT_ENVIRONMENT) or None
    if name is None:
        return [candidate for candidate in known.values() if candidate.lacks is None][-1]
    if not isinstance(name, str) or name not in known:
        source = "variant" if variant is not None else VARIANT_ENVIRONMENT
        raise InputError(
            f"unknown variant {name!r}; this build has {', '.join(known)}", field=source
        )
    if (lacks := known[name].lacks) is not None:
        raise VariantError(f"variant {name!r} cannot run on this machine: it lacks {lacks}")
    return known[name]
