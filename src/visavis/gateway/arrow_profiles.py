"""`ArrowProfiles` of a request → `Profiles` of the serving core."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from visavis.base import FACT_SCHEMA
from visavis.base.door import check_customer_ids, check_facts, check_indicators, check_text
from visavis.catalog.door import is_text
from visavis.domain import CUSTOMER_ID, OBJECTED
from visavis.errors import InputError, SchemaError, fields_below
from visavis.gateway.arrow import table_of
from visavis.gateway.incoming import cast_attribute, check_complete, check_known
from visavis.gateway.limits import CUSTOMERS_MAX
from visavis.serving import Profiles
from visavis.serving.version import Version
from visavis.v1 import profile_pb2 as v1

__all__ = ["arrow_profiles_of"]

#: As many as a message of columns could hold, 17 bytes a fact.
_FACTS_MAX: Final = 250_000

_FIELD: Final = "arrow_profiles"


def arrow_profiles_of(given: v1.ArrowProfiles, version: Version) -> Profiles:
    """The profiles of many customers, from the columns that a base is made from.

    Raises
    ------
    InputError
        Naming the column by its path, and the row.
    """
    field, schema = f"{_FIELD}.profiles", version.engine.base.attributes.schema
    names = version.indicator_names
    columns_max = 1 + len(names) + len(schema)
    table = table_of(given.profiles, columns_max=columns_max, rows_max=CUSTOMERS_MAX, field=field)
    with fields_below(_FIELD):
        ids = check_customer_ids(table, "profiles")
    named = [name for name in table.column_names if name != CUSTOMER_ID]
    check_known(named, (*names, *schema.names), field)
    check_complete([name for name in named if name in version.indicator_index], names, field)
    try:
        indicators = check_indicators(table, names)
    except InputError as error:
        where = f"{field}.{(error.field or '').removeprefix('indicators.')}"
        raise type(error)(error.reason, field=where, row=error.row) from None
    columns = {
        name: _attribute(table[name], schema.field(name).type, f"{field}.{name}")
        for name in named
        if name not in version.indicator_index
    }
    _check_objections(columns.get(OBJECTED), f"{field}.{OBJECTED}")
    return Profiles(
        indicators=indicators,
        attributes=pa.table(columns) if columns else None,
        facts=_facts(given.facts, ids),
        customer_ids=ids.to_pylist(),
    )


def _attribute(column: pa.ChunkedArray, kind: pa.DataType, field: str) -> pa.Array:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_text(column.type):
        array: pa.Array = check_text(column, field)
    elif pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    else:
        array = column.combine_chunks()
    return cast_attribute(array, kind, field)


def _check_objections(column: pa.Array | None, field: str) -> None:
    if column is not None and column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise InputError("must not be null", field=field, row=row)


def _facts(content: bytes, ids: pa.StringArray) -> pa.Table | None:
    if not content:
        return None
    field = f"{_FIELD}.facts"
    table = table_of(content, columns_max=len(FACT_SCHEMA), rows_max=_FACTS_MAX, field=field)
    if CUSTOMER_ID not in table.column_names:
        raise SchemaError("is missing", field=f"{field}.{CUSTOMER_ID}")
    with fields_below(_FIELD):
        return check_facts(table, ids)
