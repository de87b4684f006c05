"""The policy: what people allow per customer, apart from what a rule says about a capability."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visavis.errors import InputError, SchemaError
from visavis.kernel import Limits

__all__ = ["Exclusions", "Policy", "control_marks"]

K_MAX: Final = 1_000

_Count = Annotated[int, Field(strict=True, ge=1, le=K_MAX)]
_Days = Annotated[int, Field(strict=True, ge=1, le=3_660)]


class _Checked(BaseModel):
    """A frozen model whose errors are visavis's own and name the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or type(self).__name__
            kind = SchemaError if first["type"] in ("extra_forbidden", "missing") else InputError
            raise kind(f"{first['msg']}, got {first['input']!r}", field=f"policy.{field}") from None


class Exclusions(_Checked):
    """What never meets, whatever its score.

    Attributes
    ----------
    customers, capabilities, products, channels, families : tuple of str
        Ids and names that are left out.
    """

    customers: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    families: tuple[str, ...] = ()


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
    cool_down_days: dict[str, _Days] = Field(default_factory=dict)
    consent_not_needed: tuple[str, ...] = ()
    exclusions: Exclusions = Field(default_factory=Exclusions)
    control_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    control_salt: str = "visavis"

    def __init__(self, **values: Any) -> None:
        exclusions = values.get("exclusions")
        if isinstance(exclusions, dict):
            values["exclusions"] = Exclusions(**_tuples(exclusions))
        super().__init__(**_tuples(values))
        if self.ev_min is not None and np.isnan(self.ev_min):
            raise InputError("must not be NaN", field="policy.ev_min")

    @property
    def limits(self) -> Limits:
        """The limits in the form that the kernel takes."""
        return Limits(self.product_limit, self.channel_limit, self.family_limit)

    @classmethod
    def read(cls, path: str | Path) -> Policy:
        """Read a policy from TOML, one key per attribute; ``ev_min = "none"`` means no minimum.

        Raises
        ------
        InputError
            Naming the key.
        """
        file = Path(path)
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{file} does not exist", field="policy") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file} is no TOML: {error}", field="policy") from None
        if values.get("ev_min") == "none":
            values["ev_min"] = None
        return cls(**values)

    def digest(self) -> str:
        """The sha256 of the policy's canonical form, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


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
