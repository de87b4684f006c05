"""CSV for a base is text until a type is declared, and every wrong cell is named."""

from __future__ import annotations

import gzip
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visavis.cli.tables import COLUMN_TYPES, read_attributes, read_facts, read_profiles
from visavis.errors import InputError, SchemaError, StorageError


def csv_file(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def types_file(folder: Path, text: str) -> Path:
    path = folder / "types.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_attributes_stay_the_text_that_they_are(tmp_path: Path) -> None:
    text = (
        "customer_id,country,postcode,flag,size\n"
        '007,NA,01000,true,1e3\n7,"",1_000,NULL,\n"a\nb",null, x ,nan,-0\n'
    )
    table = read_attributes(csv_file(tmp_path, text), None)
    assert set(table.schema.types) == {pa.string()}
    assert table.to_pydict() == {
        "customer_id": ["007", "7", "a\nb"],
        "country": ["NA", "", "null"],
        "postcode": ["01000", "1_000", " x "],
        "flag": ["true", "NULL", "nan"],
        "size": ["1e3", None, "-0"],
    }


def test_a_row_means_the_same_whatever_the_others_are(tmp_path: Path) -> None:
    own = "007,01000,NA,2026-01-02"
    others = ["a,x,y,z", "b,1,2,3", "c,,,", 'd,"q, ""r""",0x1F,true']
    header = "customer_id,zip,country,since\n"
    found = []
    for count in range(len(others) + 1):
        text = header + "\n".join([*others[:count], own]) + "\n"
        found.append(read_attributes(csv_file(tmp_path, text), None).slice(count).to_pylist())
    assert all(each == found[0] for each in found)


def test_declared_types_are_parsed(tmp_path: Path) -> None:
    text = (
        "customer_id,age,income,member,since,zip,objected,consent_email\n"
        "a,+40,1.5e3,TRUE,2026-01-31,01000,false,1\nb,-7,.5,0,0001-01-01,,1,\nc,,,,,NA,0,False\n"
    )
    declared = (
        'age = "int64"\nincome = "float64"\nmember = "bool"\nsince = "date"\nzip = "string"\n'
    )
    table = read_attributes(csv_file(tmp_path, text), types_file(tmp_path, declared))
    assert table.to_pydict() == {
        "customer_id": ["a", "b", "c"],
        "age": [40, -7, None],
        "income": [1500.0, 0.5, None],
        "member": [True, False, None],
        "since": [date(2026, 1, 31), date(1, 1, 1), None],
        "zip": ["01000", None, "NA"],
        "objected": [False, True, False],
        "consent_email": [True, None, False],
    }


@pytest.mark.parametrize(
    ("kind", "cell", "reason"),
    [
        ("bool", "yes", "must be true or false, got 'yes'"),
        ("bool", '""', "must be true or false, got ''"),
        ("int64", "1.0", "must be a whole number of 64 bits, got '1.0'"),
        ("int64", "0x1F", "got '0x1F'"),
        ("int64", "1_0", "got '1_0'"),
        ("int64", " 1", "got ' 1'"),
        ("int64", "9223372036854775808", "got '9223372036854775808'"),
        ("int64", "NA", "got 'NA'"),
        ("float64", "1 000", "must be a number, got '1 000'"),
        ("float64", "nan", "got 'nan'"),
        ("float64", "inf", "got 'inf'"),
        ("float64", "1,5", "line 5"),
        ("float64", '"1,5"', "got '1,5'"),
        ("float64", ".", "got '.'"),
        ("date", "2026-02-30", "must be a date such as 2026-01-31, got '2026-02-30'"),
        ("date", "31.01.2026", "got '31.01.2026'"),
        ("date", "0000-01-01", "got '0000-01-01'"),
        ("date", "2026-01-31T00:00", "got '2026-01-31T00:00'"),
        ("date", "20260131", "got '20260131'"),
    ],
)
def test_a_cell_that_is_not_of_its_type_is_named(
    tmp_path: Path, kind: str, cell: str, reason: str
) -> None:
    right = {"bool": "true", "int64": "5", "float64": "5", "date": "2026-01-31"}[kind]
    lines = ["customer_id,x", f"a,{right}", "b,", f"c,{right}", f"d,{cell}", "e,", "f,?"]
    path = csv_file(tmp_path, "\n".join(lines))
    with pytest.raises(InputError) as caught:
        read_attributes(path, types_file(tmp_path, f'x = "{kind}"'))
    assert reason in str(caught.value)
    if "line" not in reason:
        assert (caught.value.field, caught.value.row) == ("attributes.x", 3)


def test_columns_without_a_value_are_fine(tmp_path: Path) -> None:
    declared = "\n".join(f'{name} = "{name}"' for name in COLUMN_TYPES)
    text = f"customer_id,{','.join(COLUMN_TYPES)}\na,,,,,\nb,,,,,\n"
    table = read_attributes(csv_file(tmp_path, text), types_file(tmp_path, declared))
    assert [str(dtype) for dtype in table.schema.types[1:]] == [
        *("bool", "int64", "double", "string", "date32[day]")
    ]
    assert table["date"].null_count == 2
    assert read_facts(csv_file(tmp_path, "customer_id,product,kind,date,count\n")).num_rows == 0


def test_profiles_are_numbers(tmp_path: Path) -> None:
    text = "customer_id,visits,spend\n007,1,2.5\n7,-3,1e-3\n"
    table = read_profiles(csv_file(tmp_path, text))
    assert table.to_pydict() == {
        "customer_id": ["007", "7"],
        "visits": [1.0, -3.0],
        "spend": [2.5, 0.001],
    }
    with pytest.raises(InputError, match="must be a number, got 'many'") as caught:
        read_profiles(csv_file(tmp_path, "customer_id,visits,spend\n007,1,2.5\n7,2,many\n"))
    assert (caught.value.field, caught.value.row) == ("profiles.spend", 1)


def test_facts_have_fixed_types(tmp_path: Path) -> None:
    text = "customer_id,product,capability_id,kind,date,count\n7,01,,bought,2026-01-31,2\n"
    table = read_facts(csv_file(tmp_path, text))
    assert table.to_pylist() == [
        {
            "customer_id": "7",
            "product": "01",
            "capability_id": None,
            "kind": "bought",
            "date": date(2026, 1, 31),
            "count": 2,
        }
    ]
    for column, wrong in (("date", "2026-1-31"), ("count", "2.0")):
        cells = {"customer_id": "7", "product": "01", "kind": "bought", column: wrong}
        rows = f"{','.join(cells)}\n{','.join(cells.values())}\n"
        with pytest.raises(InputError) as caught:
            read_facts(csv_file(tmp_path, rows))
        assert (caught.value.field, caught.value.row) == (f"facts.{column}", 0)


@pytest.mark.parametrize(
    ("declared", "field", "reason"),
    [
        ('agee = "int64"', "types.agee", "is no attribute of the table; did you mean 'age'?"),
        ('customer_id = "int64"', "types.customer_id", "is no attribute"),
        ('age = "int"', "types.age", "must be one of bool, int64, float64, string, date"),
        ("age = 5", "types.age", "must be one of"),
        ("[age]\nkind = 'int64'", "types.age", "must be one of"),
        ("age = ", "types", "is no TOML"),
        ("age = " + "[" * 10_000, "types", "is no TOML"),
        ("age = " + "1" * 5_000, "types", "is no TOML"),
    ],
)
def test_a_wrong_file_of_types_is_refused(
    tmp_path: Path, declared: str, field: str, reason: str
) -> None:
    path = csv_file(tmp_path, "customer_id,age\na,40\n")
    with pytest.raises(InputError) as caught:
        read_attributes(path, types_file(tmp_path, declared))
    assert caught.value.field == field
    assert reason in str(caught.value)


def test_parquet_keeps_its_own_types(tmp_path: Path) -> None:
    folder = tmp_path / "age=7"
    folder.mkdir()
    path = folder / "attributes.parquet"
    table = pa.table({"customer_id": ["a"], "zip": ["01"]})
    pq.write_table(table, path)
    for read in (read_profiles, read_facts, lambda file: read_attributes(file, None)):
        assert read(path).equals(table)
    with pytest.raises(InputError, match="has types of its own") as caught:
        read_attributes(path, types_file(tmp_path, 'zip = "int64"'))
    assert caught.value.field == "types"


def test_packed_csv_and_a_mark_of_its_encoding_are_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfcustomer_id,visits\r\n1,2\r\n"
    path = tmp_path / "profiles.csv.gz"
    path.write_bytes(gzip.compress(content))
    plain = csv_file(tmp_path, content)
    assert read_profiles(path).to_pydict() == read_profiles(plain).to_pydict()
    assert read_profiles(plain).to_pydict() == {"customer_id": ["1"], "visits": [2.0]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must name every column once"),
        (b"customer_id,customer_id\n", "must name every column once"),
        (b"customer_id,\n", "must name every column once"),
        (b"customer_id,x\na,1,2\n", "line 2: "),
        (b"customer_id,x\na,1\nb\n", "line 3: "),
        (b'customer_id,x\na,"1\n', "unterminated quote"),
        (b'customer_id,x\na,"1"2\n', "line 2: "),
        (b"customer_id,x\na,\xff\n", "utf-8"),
        (b"customer_id,x\n" + b"a,1\n" * 5_000 + b"a,\xff\n", "line 5002: "),
    ],
)
def test_what_is_no_csv_is_refused_with_its_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = csv_file(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_facts(path)
    assert caught.value.field == "facts"
    assert reason in str(caught.value)


@pytest.mark.parametrize("read", [read_profiles, read_facts])
def test_a_path_that_is_no_table_is_refused(tmp_path: Path, read: Any) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    for name, reason in (
        ("none.csv", "does not exist"),
        ("none.parquet", "does not exist"),
        ("folder.csv", "is a folder"),
        ("folder.parquet", "is a folder"),
        ("x.xlsx", "must end in one of"),
    ):
        with pytest.raises(InputError, match=reason):
            read(tmp_path / name)
    for suffix in (".csv", ".parquet"):
        with pytest.raises(StorageError, match="too long"):
            read(tmp_path / ("x" * 300 + suffix))


def test_an_empty_name_of_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        read_profiles(csv_file(tmp_path, "customer_id,,x\na,1,2\n"))
