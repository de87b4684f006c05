"""The policy: what people allow per customer, apart from what a rule says about a capability."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from visavis.catalog.schema import did_you_mean
from visavis.errors import InputError, SchemaError
from visavis.kernel import Limits
from visavis.store import json_bytes, read_bytes

__all__ = ["Exclusions", "Policy", "control_marks"]

K_MAX: Final = 1_000

#: What pydantic found, in words of ours; the bounds come with the error.
_REASONS: Final = {
    "dict_type": "must be a table",
    "float_type": "must be a number",
    "greater_than_equal": "must be at least {ge:g}",
    "int_type": "must be an integer",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "model_type": "must be a table",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}


def _encodable(text: str) -> str:
    # Names end in digests, and those are of UTF-8 bytes.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be text that UTF-8 can hold") from None
    return text


_Count = Annotated[int, Field(strict=True, ge=1, le=K_MAX)]
_Days = Annotated[int, Field(strict=True, ge=1, le=3_660)]
_Text = Annotated[str, AfterValidator(_encodable)]


class _FrozenDict(dict[str, int]):
    """A dict that stays as it is: an engine has compiled what a policy said when it was made."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a policy does not change: make another one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class _Checked(BaseModel):
    """A frozen model whose errors are visavis's own and name the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    field_prefix: ClassVar[str] = "policy"
    called: ClassVar[str] = "a policy"

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**_tuples(values))
        except ValidationError as error:
            raise self._refusal(error.errors(include_url=False)[0]) from None

    @classmethod
    def _refusal(cls, found: Mapping[str, Any]) -> InputError:
        """The error of ours for the first that pydantic found."""
        where = [str(part) for part in found["loc"] if part != "[key]"]
        field = ".".join([cls.field_prefix, *where])
        if found["type"] == "extra_forbidden":
            return cls._no_such_key(where[-1])
        context = found.get("ctx", {})
        # What a validator of ours raised comes with its own words.
        reason = str(context.get("error", found["msg"]))
        if found["type"] in _REASONS:
            reason = _REASONS[found["type"]].format(**context)
        return InputError(f"{reason}, got {_shown(found['input'])}", field=field)

    @classmethod
    def _no_such_key(cls, name: object) -> SchemaError:
        reason = f"is not a key of {cls.called}{did_you_mean(str(name), cls.model_fields)}"
        return SchemaError(reason, field=f"{cls.field_prefix}.{name}")


def _shown(given: object) -> str:
    try:
        return f"{given!a:.60}"
    except ValueError:
        # Python writes no integer of thousands of digits.
        return type(given).__name__


class Exclusions(_Checked):
    """What never meets, whatever its score.

    Attributes
    ----------
    customers, capabilities, products, channels, families : tuple of str
        Ids and names that are left out.
    """

    field_prefix: ClassVar[str] = "policy.exclusions"
    called: ClassVar[str] = "the exclusions of a policy"

    customers: tuple[_Text, ...] = ()
    capabilities: tuple[_Text, ...] = ()
    products: tuple[_Text, ...] = ()
    channels: tuple[_Text, ...] = ()
    families: tuple[_Text, ...] = ()


class Policy(_Checked):
    """Limits per customer.

    Attributes
    ----------
    k : int
        At most so many opportunities per customer, 1 … 1,000.
    ev_min : float or None
        Least expected value, in the unit of the catalog's values; None = no minimum.
    product_limit, channel_limit, family_limit : int or None
        At most so many opportunities per customer and product, channel, family; None = no limit.
    cool_down_days : dict of str to int
        By channel: a customer contacted through it on day t may be contacted through it again on
        day t + cool_down_days. Channels not named have no cool-down.
    consent_not_needed : tuple of str
        Channels that may be used without a ``consent_<channel>`` attribute. Every other channel
        needs one, and unknown consent is no consent.
    exclusions : Exclusions
    control_share : float
        Share of customers, in [0, 1), kept out of contact so that what was caused can one day be
        told from what was captured. They are matched and marked, and must not be contacted.
    control_salt : str
        Another salt draws another control group.
    """

    k: _Count = 5
    ev_min: Annotated[float, Field(allow_inf_nan=True)] | None = 0.0
    product_limit: _Count | None = None
    channel_limit: _Count | None = None
    family_limit: _Count | None = None
    cool_down_days: Annotated[dict[_Text, _Days], AfterValidator(_FrozenDict)] = Field(
        default_factory=_FrozenDict
    )
    consent_not_needed: tuple[_Text, ...] = ()
    exclusions: Exclusions = Field(default_factory=Exclusions)
    control_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    control_salt: _Text = "visavis"

    def __init__(self, /, **values: Any) -> None:
        exclusions = values.get("exclusions")
        if isinstance(exclusions, dict):
            for name in exclusions:
                if not isinstance(name, str):
                    raise Exclusions._no_such_key(name)
            values["exclusions"] = Exclusions(**exclusions)
        super().__init__(**values)
        if self.ev_min is not None and np.isnan(self.ev_min):
            raise InputError("must not be NaN", field="policy.ev_min")

    @property
    def limits(self) -> Limits:
        """The limits in the form that the kernel takes."""
        return Limits(self.product_limit, self.channel_limit, self.family_limit)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Policy:
        """Read a policy from TOML, one key per attribute; ``ev_min = "none"`` means no minimum.

        Raises
        ------
        InputError
            Naming the key.
        StorageError
            If the system refuses to read the file.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"must be a path, got {path!r:.60}", field="policy")
        file = Path(path)
        content = read_bytes(file, field="policy")
        try:
            values = tomllib.loads(content.decode())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is no TOML: {error}", field="policy") from None
        if values.get("ev_min") == "none":
            values["ev_min"] = None
        return cls(**values)

    def digest(self) -> str:
        """The sha256 of the canonical form, in hex: equal for policies that say the same."""
        content = self.model_dump()
        # JSON knows no infinity, and −0.0 is no other minimum than 0.0.
        content["ev_min"] = None if self.ev_min is None else (self.ev_min + 0.0).hex()
        content["control_share"] = self.control_share.hex()
        content["consent_not_needed"] = sorted(set(self.consent_not_needed))
        content["exclusions"] = {
            name: sorted(set(left_out)) for name, left_out in self.exclusions.model_dump().items()
        }
        return hashlib.sha256(json_bytes(content)).hexdigest()


def control_marks(customer_ids: pa.StringArray, policy: Policy) -> npt.NDArray[np.bool_]:
    """Who is in the control group: a fixed hash of the customer id, the same in every run.

    The first eight bytes (big-endian) of ``sha256(control_salt + NUL + customer_id)``, read as a
    fraction of 2^64, lie below ``control_share``.

    Parameters
    ----------
    customer_ids : pyarrow.StringArray of length n
    policy : Policy

    Returns
    -------
    ndarray of shape (n,), bool
    """
    if policy.control_share == 0.0:
        return np.zeros(len(customer_ids), dtype=np.bool_)
    bound = int(policy.control_share * 2**64)
    salt = policy.control_salt.encode() + b"\0"
    return np.fromiter(
        (
            int.from_bytes(hashlib.sha256(salt + customer_id.encode()).digest()[:8]) < bound
            for customer_id in customer_ids.to_pylist()
        ),
        dtype=np.bool_,
        count=len(customer_ids),
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """TOML and JSON know lists only; the policy is frozen and holds tuples."""
    return {
        key: tuple(value) if isinstance(value, (list, set, frozenset)) else value
        for key, value in values.items()
    }
