"""Nothing wrong gets into a catalog, and every refusal says where it is."""

import json
from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visavis.catalog import Catalog, nested
from visavis.errors import InputError, LimitError, SchemaError, StorageError

INF, NAN = float("inf"), float("nan")

TERM = {"kind": "bought", "feature": "days", "half_life_days": 60, "scale": 2, "weight": 0.5}
PLAIN = {"id": "milk-phone", "product": "milk", "channel": "phone", "weights": {}}
FULL = {
    **PLAIN,
    "weights": {"spend": 0.1, "age": -2},
    "history_weights": [TERM],
    "valid_from": "2017-01-01",
    "valid_to": date(2017, 12, 31),
}


def row(**changed):
    return {**PLAIN, **changed}


def refusal(rows, kind=InputError):
    with pytest.raises(kind) as caught:
        Catalog.from_rows(rows)
    return caught.value


SUBJECT = "capability 'oil-email'"
WEIGHT, TERM0 = "weights['spend']", "history_weights[0]"

#: column, cell, the field named, a part of the reason
REFUSED = [
    ("weights", {"spend": NAN}, WEIGHT, "finite"),
    ("weights", {"spend": INF}, WEIGHT, "finite"),
    ("weights", {"a": 1, "spend": -INF}, WEIGHT, "finite"),
    ("weights", {"spend": 1e39}, WEIGHT, "fit float32"),
    ("weights", {"spend": -3.5e38}, WEIGHT, "fit float32"),
    ("weights", {"spend": None}, WEIGHT, "got null"),
    ("weights", {"history": 1}, "weights['history']", "reserved"),
    ("weights", {"": 1}, "weights['']", "name"),
    ("weights", None, "weights", "required"),
    ("bias", NAN, "bias", "finite"),
    ("bias", 1e39, "bias", "fit float32"),
    ("value", NAN, "value", "finite"),
    ("value", INF, "value", "finite"),
    ("value", -0.5, "value", "negative"),
    ("value", 2.0**101, "value", "2^100"),
    ("cost", -INF, "cost", "finite"),
    ("cost", 2.0**101, "cost", "2^100"),
    ("cost", -(2.0**101), "cost", "2^100"),
    ("id", "", "id", "empty"),
    ("id", None, "id", "required"),
    ("product", "", "product", "empty"),
    ("product", None, "product", "required"),
    ("channel", None, "channel", "required"),
    ("channel", "", "channel", "empty"),
    ("link", "logistik", "link", "did you mean 'logistic'"),
    ("valid_from", date(2018, 1, 1), "valid_from", "2018-01-01 lies after valid_to 2017-12-31"),
    ("history_weights", [{**TERM, "kind": "eaten"}], f"{TERM0}.kind", "must be one of bought"),
    ("history_weights", [{**TERM, "kind": "excluded"}], f"{TERM0}.kind", "ineligible"),
    ("history_weights", [TERM, {**TERM, "feature": "dayz"}], "history_weights[1].feature", "days"),
    ("history_weights", [{**TERM, "scale": 0}], f"{TERM0}.scale", "positive"),
    ("history_weights", [{**TERM, "scale": INF}], f"{TERM0}.scale", "finite"),
    ("history_weights", [{**TERM, "half_life_days": -1}], f"{TERM0}.half_life_days", "positive"),
    ("history_weights", [{**TERM, "half_life_days": NAN}], f"{TERM0}.half_life_days", "finite"),
    ("history_weights", [{**TERM, "half_life_days": INF}], f"{TERM0}.half_life_days", "finite"),
    ("history_weights", [{**TERM, "weight": NAN}], f"{TERM0}.weight", "finite"),
    ("history_weights", [{**TERM, "weight": None}], f"{TERM0}.weight", "required"),
]

#: Cells that no typed column could hold.
MISTYPED = [
    ("value", "1", "value", "must be a number, got str"),
    ("value", True, "value", "must be a number, got bool"),
    ("value", 10**400, "value", "finite"),
    ("name", 5, "name", "must be text, got int"),
    ("name", "\ud800", "name", "UTF-8"),
    ("weights", [1], "weights", "must map"),
    ("weights", {"spend": "1"}, WEIGHT, "must be a number"),
    ("weights", {5: 1}, "weights[5]", "text"),
    ("history_weights", {}, "history_weights", "must be a list"),
    ("history_weights", "days", "history_weights", "must be a list"),
    ("history_weights", [5], TERM0, "must be an object"),
    ("history_weights", [{**TERM, "kind": 5}], f"{TERM0}.kind", "must be text"),
    ("history_weights", [{**TERM, "kindd": 5}], f"{TERM0}.kindd", "did you mean 'kind'"),
    ("history_weights", [{**TERM, "scale": "2"}], f"{TERM0}.scale", "must be a number"),
    ("valid_from", "2017-13-01", "valid_from", "ISO date"),
    ("valid_from", 20170101, "valid_from", "must be a date"),
    ("valid_from", datetime(2017, 1, 1), "valid_from", "time of day"),
    ("capacity", 5, "capacity", "a capacity is refused until something plans with it"),
    ("chanel", "email", "chanel", "did you mean 'channel'"),
]


def wrong_rows(column, cell):
    return [PLAIN, {**FULL, "id": "oil-email", column: cell}, row(id="x")]


@pytest.mark.parametrize(("column", "cell", "field", "reason"), REFUSED + MISTYPED)
def test_a_refusal_names_field_row_and_capability(column, cell, field, reason):
    error = refusal(wrong_rows(column, cell))
    assert (error.field, error.row) == (field, 1)
    assert error.subject == (None if column == "id" else SUBJECT)
    assert reason in str(error)


@pytest.mark.parametrize(("column", "cell", "field", "reason"), REFUSED)
def test_a_parquet_file_is_refused_alike(column, cell, field, reason, tmp_path):
    table = Catalog.from_rows([PLAIN, {**FULL, "id": "oil-email"}, row(id="x")]).to_table()
    rows = table.to_pylist()
    rows[1][column] = list(cell.items()) if isinstance(cell, dict) else cell
    wide = pa.map_(pa.string(), pa.float64())
    types = {**dict(zip(table.schema.names, table.schema.types, strict=True)), "weights": wide}
    types["bias"] = pa.float64()
    path = tmp_path / "catalog.parquet"
    schema = pa.schema(types.items())
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=2)
    with pytest.raises(InputError) as caught:
        Catalog.read(path)
    assert (caught.value.field, caught.value.row) == (field, 1)
    assert caught.value.subject == (None if column == "id" else SUBJECT)
    assert reason in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("column", "cell", "field", "reason"),
    [
        ("value", "much", "value", "must be a number"),
        ("weights", '{"a": 1, "a": 2}', "weights", "'a' appears more than once"),
        ("weights", '{"a": NaN}', "weights['a']", "finite"),
        ("weights", "[" * 100_000, "weights", ""),
        ("valid_to", "soon", "valid_to", "ISO date"),
    ],
)
def test_a_text_file_is_refused_alike(suffix, column, cell, field, reason, tmp_path):
    path = tmp_path / f"catalog.{suffix}"
    cells = {"id": "oil-email", "product": "p", "channel": "c", "weights": "{}", column: cell}
    if suffix == "csv":
        quoted = ['"' + text.replace('"', '""') + '"' for text in cells.values()]
        path.write_text(
            f"{','.join(cells)}\na,b,c,{{}}{',' * (len(cells) - 4)}\n" + ",".join(quoted)
        )
    else:
        parts = [
            f'"{name}": {text if name == "weights" else json.dumps(text)}'
            for name, text in cells.items()
        ]
        path.write_text(json.dumps({**PLAIN, "id": "a"}) + "\n\n{" + ", ".join(parts) + "}\n")
    with pytest.raises(InputError) as caught:
        Catalog.read(path)
    assert caught.value.row == 1
    assert reason in str(caught.value)
    # A line that is no JSON has no columns yet.
    if suffix == "csv" or column != "weights" or field != "weights":
        assert (caught.value.field, caught.value.subject) == (field, SUBJECT)


def test_a_repeated_id_names_both_rows():
    error = refusal([row(id="b"), row(id="a"), row(id="c"), row(id="a")])
    assert (error.field, error.row, error.subject) == ("id", 3, "capability 'a'")
    assert "row 1 has the same" in str(error)


def test_a_repeated_indicator_in_a_map_is_refused(monkeypatch):
    monkeypatch.setattr(nested, "_BLOCK_CELLS", 4)
    pairs = [[("b", 1), ("a", 1)], [("a", 1)], [("a", 1), ("b", 0), ("a", 1)]]
    maps = pa.array(pairs, pa.map_(pa.string(), pa.float32()))
    table = pa.table({"id": ["z", "y", "x"], "product": ["p"] * 3, "channel": ["c"] * 3})
    with pytest.raises(InputError, match="more than once") as caught:
        Catalog.from_table(table.append_column("weights", maps))
    assert (caught.value.field, caught.value.row) == ("weights['a']", 2)
    assert caught.value.subject == "capability 'x'"


def test_the_weight_matrix_is_bounded(monkeypatch):
    monkeypatch.setattr(nested, "WEIGHT_CELLS_MAX", 3)
    with pytest.raises(LimitError, match="2 capabilities × 2 indicators exceed 3"):
        Catalog.from_rows([FULL, row(id="a")])


@pytest.mark.parametrize("name", ["id", "product", "channel", "weights"])
def test_a_required_column_must_be_there(name):
    error = refusal([{key: cell for key, cell in PLAIN.items() if key != name}], SchemaError)
    assert error.field == name


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("capacity", pa.array([5, 5]), "a capacity is refused until something plans with it"),
        ("bia", pa.array([0.0, 0.0]), "did you mean 'bias'"),
        ("name", pa.array([1, 2]), "must be text"),
        ("value", pa.array(["1", "2"]), "must be a number"),
        ("value", pa.array([True, False]), "must be a number"),
        ("valid_to", pa.array([datetime(2017, 1, 1)] * 2, pa.timestamp("us")), "must be a date"),
        ("weights", pa.array([{"a": 1.0}, {"a": 2.0}]), "must be a map"),
        ("history_weights", pa.array([[1], [2]]), "must be a list of struct"),
        (
            "history_weights",
            pa.array([[{"kind": "bought", "wait": 1}]] * 2),
            "did you mean 'weight'",
        ),
        ("history_weights", pa.array([[{"kind": "bought"}]] * 2), "required in every"),
        ("history_weights", pa.array([[{**TERM, "scale": "x"}]] * 2), "must be a number"),
        ("history_weights", pa.array([[TERM], [None]]), "got null"),
        ("link", pa.array([1, 2]), "must be text"),
    ],
)
def test_a_wrong_column_of_a_table_is_refused(column, values, reason):
    table = Catalog.from_rows([row(id="a"), row(id="b")]).to_table()
    table = table.drop_columns([column]) if column in table.column_names else table
    with pytest.raises(InputError) as caught:
        Catalog.from_table(table.append_column(column, values))
    assert caught.value.field.startswith(column)
    assert reason in str(caught.value)


def test_malformed_arrow_data_is_refused():
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
    )
    table = Catalog.from_rows([PLAIN]).to_table().drop_columns(["name"])
    with pytest.raises(InputError, match="malformed") as caught:
        Catalog.from_table(table.append_column("name", text))
    assert caught.value.field == "name"
    far = pa.array([2**30], pa.int32()).cast(pa.date32())
    with pytest.raises(InputError, match="years 1 to 9999"):
        Catalog.from_table(table.drop_columns(["valid_to"]).append_column("valid_to", far))
    with pytest.raises(SchemaError, match="more than once"):
        Catalog.from_table(table.append_column("id", pa.array(["x"])))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.parquet", None, "does not exist"),
        ("x.xlsx", b"", "must end in .parquet"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("x.csv", b"", "cannot be read"),
        ("x.csv", b"id,product,channel,weights\na,b\n", "cannot be read"),
        ("x.csv", b"id,product,channel,weights,id\na,b,c,{},d\n", "more than once"),
        ("x.csv", b"id,product,channel,weights\n", "at least one capability"),
        ("x.csv", b"id,product,channel,weights,value\na,b,c,{},1_000\n", "must be a number"),
        ("x.csv", b"id,product,channel,weights\n\xff,b,c,{}\n", "cannot be read"),
        ("x.jsonl", b"", "at least one capability|no such column"),
        ("x.jsonl", b"[1]\n", "must be an object"),
        ("x.jsonl", b"\xff\n", "cannot be read"),
        ("x.jsonl", b"{\n", "is no JSON"),
        ("x.toml", b"a = ", "cannot be read"),
        ("x.toml", b"a = " + b"[" * 100_000, "cannot be read"),
        ("x.toml", b"a = " + b"1" * 5_000, "cannot be read"),
        ("x.toml", b"a = '\xff'", "cannot be read"),
        ("x.toml", b"capability = 5", "array of tables"),
        ("x.toml", b"[[capabilities]]\nid = 'a'", r"holds \[\[capability\]\] only"),
        ("x.toml", b"", "at least one capability|no such column"),
    ],
)
def test_a_file_that_is_no_catalog_is_refused(name, content, reason, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        Catalog.read(path)


def test_an_unwritable_path_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Catalog.from_rows([FULL, row(id="a")]).write(tmp_path / "file" / "catalog.jsonl")


def test_a_folder_or_no_path_at_all_is_refused(tmp_path):
    (tmp_path / "catalog.parquet").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        Catalog.read(tmp_path / "catalog.parquet")
    with pytest.raises(InputError, match="must be a path, got int 5"):
        Catalog.read(5)


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"customer_id": ["ann"], "kind": ["bought"]}, "customer_id"),
        ({"id": ["a"], "product": ["p"], "channel": ["c"]}, "weights"),
        ({"id": ["a"], "product": ["p"], "channel": ["c"], "weights": [1.0]}, "weights"),
        ({"id": ["a"], "product": ["p"], "channel": ["c"], "weights": [[1.0]]}, "weights"),
    ],
)
def test_a_parquet_file_of_something_else_is_refused_by_its_column(columns, field, tmp_path):
    path = tmp_path / "facts.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(SchemaError) as caught:
        Catalog.read(path)
    assert caught.value.field == field
