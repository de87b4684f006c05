"""`Context`: what a request may say about now; `Terms`: what that means to one version.

A context can only narrow what the server allows: fewer channels, fewer capabilities, a smaller k, a
higher minimum, tighter limits. What it says of the customer (indicators, attributes, the day) holds
for this request alone and is written nowhere. Consent cannot be given here, nor an objection
lifted: both are recorded, or they do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.catalog.schema import did_you_mean
from visavis.domain import CONSENT_PREFIX, OBJECTED, parse_date
from visavis.errors import InputError, SchemaError
from visavis.kernel import Limits
from visavis.kernel.arguments import require
from visavis.policy import Policy
from visavis.serving.version import Version

__all__ = ["Context", "Selection", "Terms"]

_LIMITS: Final = ("product_limit", "channel_limit", "family_limit")


class Selection(NamedTuple):
    """Some capabilities, by what they are.

    Attributes
    ----------
    capabilities, products, families, channels : sequence of str, optional
        Ids and names; None = not looked at.
    """

    capabilities: Sequence[str] | None = None
    products: Sequence[str] | None = None
    families: Sequence[str] | None = None
    channels: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a request says about now.

    Attributes
    ----------
    as_of : date or str, optional
        Another day than the server's, not before the base's.
    available_channels : sequence of str, optional
        Only these can be used now. Channels that no capability uses may be among them.
    only : Selection
        Only capabilities that are in every list that is given.
    without : Selection
        Left out is what is in any list.
    indicators : mapping of str to float
        What is known better than the base knows it: for this request these replace the base's.
    attributes : mapping of str to value
        The same for attributes, of the base's types; None = unknown. ``objected`` is refused, and
        a consent can be withdrawn here but not given.
    k, ev_min, product_limit, channel_limit, family_limit : optional
        As of `Policy`, none of them looser than the server's.
    """

    as_of: date | str | None = None
    available_channels: Sequence[str] | None = None
    only: Selection = field(default_factory=Selection)
    without: Selection = field(default_factory=Selection)
    indicators: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    k: int | None = None
    ev_min: float | None = None
    product_limit: int | None = None
    channel_limit: int | None = None
    family_limit: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """A context, checked against a version and in the form that a match takes.

    Attributes
    ----------
    as_of : date
    k : int
    ev_min : float or None
    limits : Limits
    closed : ndarray of shape (m,), bool, or None
        Capabilities that the context leaves out.
    plane_index : ndarray of shape (m,), int32
        Into the version's planes; of what is closed, the plane that nobody is in.
    columns : ndarray of shape (c,), int64
        Indicators that are replaced,
    values : ndarray of shape (c,), float32
        and by what.
    attributes : dict of str to pyarrow.Scalar
        Attributes that are replaced.
    is_evaluated : bool
        Eligibility has to be computed for this request.
    """

    as_of: date
    k: int
    ev_min: float | None
    limits: Limits
    closed: npt.NDArray[np.bool_] | None
    plane_index: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    attributes: dict[str, Any]
    is_evaluated: bool

    @classmethod
    def of(cls, version: Version, context: Context) -> Terms:
        """Check a context.

        Raises
        ------
        InputError
            Naming its field.
        """
        require(context, Context, "context", "a Context")
        policy, day = version.policy, _day(version, context.as_of)
        closed = _closed(version, context)
        columns, values = _indicators(version, context.indicators)
        attributes = _attributes(version, context.attributes)
        plane_index = version.eligible.plane_index
        if closed is not None:
            nobody = np.int32(plane_index.max(initial=-1) + 1)
            plane_index = np.where(closed, nobody, plane_index)
        limits = Limits(*(_limit(name, context, policy) for name in _LIMITS))
        return cls(
            day,
            _limit("k", context, policy) or policy.k,
            _least(context.ev_min, policy.ev_min),
            limits,
            closed,
            plane_index,
            columns,
            values,
            attributes,
            bool(attributes) or day != version.as_of,
        )

    def policy(self, policy: Policy) -> Policy:
        """A policy of these limits."""
        names = dict(zip(_LIMITS, self.limits, strict=True))
        return policy.model_copy(update={"k": self.k, "ev_min": self.ev_min, **names})


def _day(version: Version, given: date | str | None) -> date:
    if given is None:
        return version.as_of
    day, first = parse_date(given, field="context.as_of"), version.customers.stored.as_of
    if day < first:
        # The indicators know the days up to the base's.
        raise InputError(f"{day} lies before the base's as_of, {first}", field="context.as_of")
    return day


def _closed(version: Version, context: Context) -> npt.NDArray[np.bool_] | None:
    """What the context leaves out; None if nothing."""
    for name in ("only", "without"):
        require(getattr(context, name), Selection, f"context.{name}", "a Selection")
    if (
        context.available_channels is None
        and not any(each is not None for each in context.only)
        and not any(each is not None for each in context.without)
    ):
        return None
    catalog = version.catalog
    closed = np.zeros(catalog.capability_count, dtype=np.bool_)
    if context.available_channels is not None:
        codes, labels = catalog.codes("channel")
        given = set(_texts(context.available_channels, "context.available_channels"))
        closed |= np.array([label not in given for label in labels])[codes]
    for said, name in ((context.only, "only"), (context.without, "without")):
        for kind, names in said._asdict().items():
            if names is not None:
                chosen = _chosen(version, kind, names, f"context.{name}.{kind}")
                closed |= ~chosen if name == "only" else chosen
    return closed


def _chosen(
    version: Version, kind: str, names: Sequence[str], field_name: str
) -> npt.NDArray[np.bool_]:
    """Which capabilities are of one of some names."""
    given = _texts(names, field_name)
    if kind == "capabilities":
        known = version.capability_index
        chosen = np.zeros(len(known), dtype=np.bool_)
        chosen[[_known(name, known, field_name) for name in given]] = True
        return chosen
    singular = {"products": "product", "families": "family", "channels": "channel"}[kind]
    codes, labels = version.catalog.codes(singular)  # type: ignore[arg-type]
    place = {label: code for code, label in enumerate(labels)}
    wanted = np.zeros(len(labels), dtype=np.bool_)
    wanted[[_known(name, place, field_name) for name in given]] = True
    picked: npt.NDArray[np.bool_] = wanted[codes]
    return picked


def _known(name: str, known: Mapping[str, int], field_name: str) -> int:
    # A misspelt name would silently leave in what it means to leave out.
    if name not in known:
        raise InputError(f"{name!r} is not in the catalog", field=field_name)
    return known[name]


def _texts(names: Sequence[str], field_name: str) -> list[str]:
    if isinstance(names, (str, bytes)):
        raise SchemaError("must be a list of text, got one text", field=field_name)
    require(names, (Sequence, set, frozenset), field_name, "a list of text")
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise SchemaError(f"must be text, got {name!r:.60}", field=field_name, row=row)
    return list(names)


def _indicators(
    version: Version, given: Mapping[str, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    known = version.indicator_index
    columns, values = [], []
    for name, value in _mapping(given, "context.indicators").items():
        where = f"context.indicators.{name}"
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise SchemaError(f"the base has no such indicator{hint}", field=where)
        values.append(_float32(value, where))
        columns.append(known[name])
    return np.array(columns, dtype=np.int64), np.array(values, dtype=np.float32)


def _float32(value: object, where: str) -> np.float32:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise SchemaError(f"must be a number, got {value!r:.60}", field=where)
    try:
        with np.errstate(over="ignore"):
            number = np.float32(value)
    except OverflowError:
        number = np.float32(math.inf)
    if not np.isfinite(number):
        raise InputError("must be finite as float32", field=where)
    return number


def _attributes(version: Version, given: Mapping[str, Any]) -> dict[str, Any]:
    schema = version.engine.base.attributes.schema
    replaced = {}
    for name, value in _mapping(given, "context.attributes").items():
        where = f"context.attributes.{name}"
        if name not in schema.names:
            hint = did_you_mean(str(name), schema.names)
            raise SchemaError(f"the base has no such attribute{hint}", field=where)
        if name == OBJECTED:
            raise InputError("cannot be said by a request: record it", field=where)
        if name.startswith(CONSENT_PREFIX) and value:
            reason = "can be withdrawn by a request but not given: record it"
            raise InputError(reason, field=where)
        replaced[name] = _scalar(value, schema.field(name).type, where)
    return replaced


def _mapping(given: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    require(given, Mapping, where, "a mapping")
    return given


def _scalar(value: Any, kind: pa.DataType, where: str) -> pa.Scalar:
    """A value as a cell of an attribute's type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if value is None:
        return pa.scalar(None, kind)
    if not _is_of(value, kind):
        raise SchemaError(f"must be {kind}, got {value!r:.60}", field=where)
    try:
        cell = pa.scalar(value, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError) as error:
        raise InputError(f"does not fit {kind}: {error}", field=where) from None
    if pa.types.is_floating(kind) and not math.isfinite(cell.as_py()):
        raise InputError("must be finite or unknown", field=where)
    return cell


def _is_of(value: object, kind: pa.DataType) -> bool:
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    if pa.types.is_integer(kind):
        return isinstance(value, int) and not isinstance(value, bool)
    if pa.types.is_floating(kind):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if pa.types.is_date(kind):
        return isinstance(value, date) and not isinstance(value, datetime)
    return isinstance(value, str)


def _limit(name: str, context: Context, policy: Policy) -> int | None:
    given, most = getattr(context, name), getattr(policy, name)
    if given is None:
        return most  # type: ignore[no-any-return]
    where = f"context.{name}"
    if isinstance(given, bool) or not isinstance(given, int):
        raise SchemaError(f"must be an integer, got {given!r:.60}", field=where)
    if given < 1:
        raise InputError("must be at least 1", field=where)
    if most is not None and given > most:
        raise InputError(f"must be at most {most}, the server's", field=where)
    if most is None and given >= 2**31:
        return None
    return given


def _least(given: float | None, least: float | None) -> float | None:
    if given is None:
        return least
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise SchemaError(f"must be a number, got {given!r:.60}", field="context.ev_min")
    try:
        number = float(given)
    except OverflowError:
        raise InputError("does not fit float64", field="context.ev_min") from None
    if math.isnan(number):
        raise InputError("must not be NaN", field="context.ev_min")
    if least is not None and number < least:
        raise InputError(f"must be at least {least:g}, the server's", field="context.ev_min")
    return number
