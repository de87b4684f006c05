"""What to learn from, and how carefully.

The ridge is chosen in every run anew: the last window validates. Half-lives, numbers of rows and
the prior's share are round numbers, not fitted.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from visavis.errors import InputError, SchemaError

__all__ = ["LearnSpec"]

_Count = Annotated[int, Field(strict=True, ge=1)]
_HalfLife = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

#: Validation chooses among these; the last stands for "the pooled model alone".
RIDGES: Final = (100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, float("inf"))


class LearnSpec(BaseModel):
    """How to learn.

    Attributes
    ----------
    window_days : int
        "Buys within so many days" is what is learned.
    indicators : "all" or tuple of str
        The indicators that every capability may weigh; what only some weigh comes from the
        declared weights of the catalog, whose direction is kept and whose length is learned.
    half_lives_days : tuple of float
        Of the customer's own purchase-days with the product.
    recency_half_lives_days : tuple of float
    prior_share : float
        The prior purchase-days of a product, as a share of the mean customer's own.
    ridges : tuple of float
        Strengths of the pull toward the pooled model to choose from; inf = the pooled model alone.
    ridge_default : float
        Used where there is only one window, and so nothing to validate on.
    history_rows, fresh_rows : int
        At most so many sampled pairs per product, window and kind: with history, and without.
    pooled_cells : int
        At most so many cells (sampled pairs × columns) for the pooled model; 15 million take about
        half a gigabyte while it is fitted.
    block_products : int
        Products per block: the unit of work and of resumption.
    seed : int
    """

    # Infinity has no number in JSON: it stands there as text, which is read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    window_days: _Count = 28
    indicators: Literal["all"] | tuple[str, ...] = "all"
    half_lives_days: tuple[_HalfLife, ...] = (14.0, 30.0, 60.0, 120.0)
    recency_half_lives_days: tuple[_HalfLife, ...] = (7.0, 30.0)
    prior_share: Annotated[float, Field(gt=0.0, le=10.0)] = 0.1
    ridges: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)] = RIDGES
    ridge_default: Annotated[float, Field(gt=0.0)] = 1_000.0
    history_rows: _Count = 1_000
    fresh_rows: _Count = 300
    pooled_cells: _Count = 15_000_000
    block_products: _Count = 100
    seed: Annotated[int, Field(strict=True, ge=0)] = 0

    @field_validator("indicators")
    @classmethod
    def _distinct(cls, names: Any) -> Any:
        if names != "all" and len(set(names)) < len(names):
            raise ValueError("each indicator may be named once")
        return names

    @classmethod
    def read(cls, path: str | Path) -> LearnSpec:
        """Read a spec from TOML, one key per attribute.

        Raises
        ------
        InputError
            Naming the key.
        """
        file = Path(path)
        try:
            return cls.from_dict(tomllib.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise InputError(f"{file} does not exist", field="learn") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file} is no TOML: {error}", field="learn") from None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LearnSpec:
        """Check a spec given as a mapping; errors as of `read`."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = "learn." + ".".join(str(part) for part in first["loc"])
            kind = SchemaError if first["type"] == "extra_forbidden" else InputError
            raise kind(f"{first['msg']}, got {first['input']!r}", field=field) from None

    def digest(self) -> str:
        """The sha256 of the spec's canonical form, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
