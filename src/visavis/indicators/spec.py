"""The spec of indicators: what the columns of the events mean, and what to make of them.

A spec::

    [events]
    customer = "household_id"            # integers or text
    time = "transaction_timestamp"       # date, timestamp (UTC) or ISO text
    basket = "basket_id"                 # only for basket_size
    amount = "sales_value"               # only where spend is read
    minor_units = 100                    # amounts are rounded to cents, row by row
    amount_min_exclusive = 0             # rows at or below it are left out
    exclude = { department = ["FUEL"] }  # rows left out: column of the taxonomy, else of the events

    [taxonomy]                           # a table of its own, joined by this column
    key = "product_id"

    [[indicator]]
    kind = "frequency"                   # any of kinds.KINDS, with its parameters
    half_lives_days = [7, 30, 90]
    transform = "log1p"                  # optional, as is `undefined = 0.0`, for every kind

    [[indicator]]
    kind = "share"
    of = "visits"                        # or "spend"
    level = "department"                 # a column of the taxonomy, else of the events
    values = "taxonomy"                  # all that the taxonomy lists, or a list
    half_life_days = 90
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from visavis.errors import InputError, SchemaError
from visavis.indicators.days import Parameters, read_labels
from visavis.indicators.kinds import KINDS

__all__ = ["EventColumns", "IndicatorSpec", "TaxonomyKey"]

#: Changes when the same spec begins to mean other numbers; part of every spec digest.
SPEC_FORM: Final = "visavis indicators 1"

_Name = Annotated[str, Field(min_length=1)]


def _excluded(given: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise ValueError("must be a table of columns and their values to leave out")
    return {str(column): read_labels(labels) for column, labels in sorted(given.items())}


class TaxonomyKey(BaseModel):
    """Section ``[taxonomy]`` of a spec: the column by which events and taxonomy join."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: _Name


class EventColumns(BaseModel):
    """Section ``[events]`` of a spec: which columns mean what, and which rows are left out.

    Attributes
    ----------
    customer, time : str
        Columns of the customer's id (integers or text) and of the date or time of the event.
    basket, amount : str, optional
        Columns of the basket's id and of the amount; read only where an indicator needs them.
    minor_units : int
        Minor units in one unit of the amount; amounts are rounded to them, row by row.
    amount_min_exclusive : float, optional
        Rows with an amount at or below it are left out.
    exclude : mapping of str to tuple of str
        Rows whose column (of the taxonomy, else of the events) has a listed value are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    customer: _Name
    time: _Name
    basket: _Name | None = None
    amount: _Name | None = None
    minor_units: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 100
    amount_min_exclusive: (
        Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e30, le=1e30)] | None
    ) = None
    exclude: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_excluded)] = {}


class IndicatorSpec(BaseModel):
    """What the events mean and which indicators to make of them; the module shows the format.

    Attributes
    ----------
    events : EventColumns
    taxonomy : TaxonomyKey, optional
    indicators : tuple of Parameters
        In the order of the columns they make; the key in TOML is ``[[indicator]]``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    events: EventColumns
    taxonomy: TaxonomyKey | None = None
    indicators: tuple[SerializeAsAny[Parameters], ...] = Field(alias="indicator", min_length=1)

    @classmethod
    def read(cls, path: str | Path) -> IndicatorSpec:
        """Read a spec from a TOML file; errors as of `from_toml`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InputError(f"cannot be read: {error}", field="spec") from error
        return cls.from_toml(text)

    @classmethod
    def from_toml(cls, text: str) -> IndicatorSpec:
        """Parse and check a spec.

        Raises
        ------
        SchemaError
            If it is no TOML, or a key is missing, unknown or wrong; the error names the key, as
            in ``indicator[2].half_life_days`` (0-based).
        """
        try:
            given = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"is no TOML: {error}", field="spec") from error
        listed = given.pop("indicator", [])
        if not isinstance(listed, list):
            raise SchemaError("must be an array of tables: [[indicator]]", field="indicator")
        given["indicator"] = [_parameters(each, f"indicator[{i}]") for i, each in enumerate(listed)]
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise _schema_error(error) from error

    def digest(self) -> str:
        """Return the sha256 of what the spec means: its layout and comments do not count."""
        meaning = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(f"{SPEC_FORM}\n{meaning}".encode()).hexdigest()

    @model_validator(mode="after")
    def _fits(self) -> IndicatorSpec:
        """Refuse unknown kinds, and indicators that read a column that is not named."""
        named = {"amount": self.events.amount, "basket": self.events.basket}
        for i, each in enumerate(self.indicators):
            if each.kind not in KINDS or not isinstance(each, KINDS[each.kind].parameters):
                raise SchemaError(f"are not those of {each.kind!r}", field=f"indicator[{i}]")
            for part in sorted(each.reads()):
                if named[part] is None:
                    reason = f"must be named, indicator[{i}] ({each.kind}) reads it"
                    raise SchemaError(reason, field=f"events.{part}")
        if self.events.amount_min_exclusive is not None and self.events.amount is None:
            raise SchemaError("must be named, amount_min_exclusive reads it", field="events.amount")
        return self


def _parameters(given: Any, name: str) -> Parameters:
    if not isinstance(given, dict):
        raise SchemaError("must be a table", field=name)
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise SchemaError(f"must be one of {known}; got {kind!r}", field=f"{name}.kind")
    try:
        return KINDS[kind].parameters.model_validate(given)
    except ValidationError as error:
        raise _schema_error(error, name) from error


def _schema_error(error: ValidationError, prefix: str = "") -> SchemaError:
    """Name the first key at fault as a path; count the others."""
    first, *others = error.errors(include_url=False)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SchemaError):
        return cause
    path = prefix
    for step in first["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    reason = first["msg"]
    if first["type"] not in {"missing", "extra_forbidden", "value_error"}:
        reason += f", got {first['input']!r}"
    if others:
        reason += f" (and {len(others)} more)"
    return SchemaError(reason, field=path.removeprefix(".") or "spec")
