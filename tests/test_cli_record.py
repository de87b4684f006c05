"""`visavis record` and `base forget`, and what match, audience and explain make of a journal."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from commands import AS_OF, call, done, options, refused, write_base, write_inputs
from visavis import Base
from visavis.journal import Journal


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input files, and a base made from them; nobody writes into it."""
    folder = write_inputs(tmp_path_factory.mktemp("world"))
    write_base(folder)
    return folder


@pytest.fixture
def asked(world: Path) -> list[object]:
    return options(world)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal in which ann refused the tea, bob turned 17 and cid objected."""
    (tmp_path / "facts.csv").write_text(
        f"customer_id,product,kind,date\nann,tea,refused,{AS_OF}\n", encoding="utf-8"
    )
    (tmp_path / "attributes.csv").write_text("customer_id,age\nbob,17\n", encoding="utf-8")
    (tmp_path / "types.toml").write_text('age = "int64"\n', encoding="utf-8")
    done(
        "record", "--create", "--journal", tmp_path / "journal", "--facts",
        tmp_path / "facts.csv", "--attributes", tmp_path / "attributes.csv", "--types",
        tmp_path / "types.toml", "--objection", "cid",
    )  # fmt: skip
    return tmp_path / "journal"


def test_record_says_which_offsets_it_took(journal: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_bytes("dora\r\n\né l\n".encode())
    given = ["--objections", ids, "--objection", "eve", "--request-id", "r1", "--json"]
    first = done("record", "--journal", journal, *given).json()
    assert first == {
        "journal": str(journal),
        "first_offset": 4,
        "last_offset": 6,
        "entry_count": 3,
        "dropped_count": 0,
        "repeated": False,
    }
    again = done("record", "--journal", journal, *given).json()
    assert again == {**first, "repeated": True}
    shown = done("record", "--journal", journal, "--objection", "fay").output
    assert "first offset   7" in shown
    with Journal.open(journal) as opened:
        assert opened.overlay(after=3).objections.to_pylist() == ["dora", "eve", "fay", "é l"]


def test_match_consults_the_journal_and_its_record_names_the_offset(
    world: Path, asked: list[object], journal: Path, tmp_path: Path
) -> None:
    found = {}
    for name, more in (("without", []), ("with", ["--journal", journal])):
        out = tmp_path / f"{name}.parquet"
        done("match", *asked, *more, "--out", out)
        record = json.loads(out.with_suffix(".run.json").read_text(encoding="utf-8"))
        found[name] = pq.read_table(out).to_pylist(), record
    rows, record = found["without"]
    assert {row["customer_id"] for row in rows} >= {"ann", "bob", "cid"}
    assert "journal_offset" not in record
    rows, with_journal = found["with"]
    assert "cid" not in {row["customer_id"] for row in rows}, "who objected is gone"
    pairs = {(row["customer_id"], row["capability_id"]) for row in rows}
    assert ("bob", "wine-mail") not in pairs, "bob is 17 now"
    assert with_journal["journal_offset"] == 3
    assert with_journal["digests"]["base"] == record["digests"]["base"]
    assert with_journal["digests"]["base"] == Base.read(world / "base").digest
    with Journal.open(journal) as opened:
        assert with_journal["digests"]["journal"] == opened.overlay().digest()


def test_audience_and_explain_consult_the_journal(asked: list[object], journal: Path) -> None:
    more = [*asked, "--journal", journal, "--json"]
    audience = done("audience", "--capability", "tea-counter", *more).json()
    assert audience["journal_offset"] == 3
    assert {row["customer_id"] for row in audience["audience"]} == {"ann", "bob"}
    explained = done("explain", "--customer", "cid", "--capability", "tea-counter", *more).json()
    assert explained["journal_offset"] == 3
    assert (explained["linear_predictor"], explained["rank"]) == (None, None)
    assert "objected" in explained["verdict"]
    shown = done("explain", "--customer", "cid", *more).json()
    assert (shown["opportunities"], shown["journal_offset"]) == ([], 3)


def test_forget_prints_a_count_and_the_customer_is_gone(asked: list[object], journal: Path) -> None:
    given = ["base", "forget", "bob", "--journal", journal, "--json"]
    assert done(*given).json() == {"removed": {str(journal): 1}}
    assert done(*given[:-1]).output == f"{journal}: 0 removed\n"
    more = ["--capability", "tea-counter", "--journal", journal, "--json"]
    audience = done("audience", *asked, *more).json()["audience"]
    assert {row["customer_id"] for row in audience} == {"ann"}
    answered = done("record", "--journal", journal, "--objection", "bob", "--json").json()
    assert (answered["entry_count"], answered["dropped_count"]) == (0, 1)


def test_a_wrong_group_is_named_by_option_column_and_row(journal: Path, tmp_path: Path) -> None:
    to = ["record", "--journal", journal]
    facts, attributes = tmp_path / "f.csv", tmp_path / "a.csv"
    facts.write_text(f"customer_id,product,kind,date\nann,tea,eaten,{AS_OF}\n")
    assert refused(*to, "--facts", facts).startswith("--facts kind, row 0: must be one of")
    attributes.write_text("customer_id,objected\nann,true\n")
    message = refused(*to, "--attributes", attributes)
    assert message.startswith("--attributes objected: is no attribute here: give the ids as")
    assert refused(*to, "--objection", "a", "--objection", "") == (
        "--objection, row 1: must not be empty"
    )
    assert refused(*to, "--facts", tmp_path / "no.csv").startswith(f"--facts: {tmp_path}/no.csv")
    assert refused(*to, "--objections", tmp_path / "no.txt").startswith("--objections: ")
    (tmp_path / "odd.txt").write_bytes(b"a\n\xff\n")
    assert "is no UTF-8 text" in refused(*to, "--objections", tmp_path / "odd.txt")
    assert refused(*to).startswith("--journal: give --facts")
    assert refused(*to, "--types", facts, "--objection", "a").startswith("--types: ")
    done(*to, "--objection", "a", "--request-id", "1")
    message = refused(*to, "--objection", "b", "--request-id", "1")
    assert message == "--request-id: was used before, for something else"
    assert refused("base", "forget", "", "--journal", journal) == "CUSTOMER: must not be empty"


def test_attributes_that_no_match_could_be_made_of_are_refused_by_the_base(
    asked: list[object], journal: Path, tmp_path: Path
) -> None:
    base = asked[asked.index("--base") + 1]
    to = ["record", "--journal", journal, "--base", base, "--attributes", tmp_path / "a.csv"]
    (tmp_path / "a.csv").write_text("customer_id,aeg\nann,3\n")
    assert refused(*to).startswith(f"--attributes aeg: is no attribute of {base}")
    (tmp_path / "a.csv").write_text("customer_id,consent_email\nann,true\n")
    (tmp_path / "types.toml").write_text('consent_email = "string"\n')
    message = refused(*to, "--types", tmp_path / "types.toml")
    assert message.startswith("--attributes consent_email: ")
    done(*to)
    assert "holds no base" in refused(*[*to[:4], tmp_path, *to[5:]])


def test_a_journal_that_is_not_there_is_never_made_by_mistake(
    asked: list[object], tmp_path: Path
) -> None:
    none = tmp_path / "misspelt"
    message = refused("record", "--journal", none, "--objection", "a")
    assert message == f"--journal: {none} does not exist: --create makes one"
    expected = f"--journal: {none} does not exist"
    assert refused("match", *asked, "--journal", none, "--out", tmp_path / "o.csv") == expected
    assert refused("base", "forget", "a", "--journal", none) == expected
    assert refused("explain", *asked, "--customer", "ann", "--journal", none) == expected
    (tmp_path / "text").write_text("customer_id\n" * 99)
    message = refused("explain", *asked, "--customer", "ann", "--journal", tmp_path / "text")
    assert message == f"--journal: {tmp_path / 'text'} is no journal, or has lost its beginning"
    assert not none.exists()


def test_an_attribute_that_the_base_lacks_is_named_with_its_offset(
    asked: list[object], journal: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("customer_id,city\nann,Lyon\n")
    done("record", "--journal", journal, "--attributes", tmp_path / "a.csv")
    message = refused("explain", *asked, "--customer", "ann", "--journal", journal)
    assert message == (
        "--journal attributes.city: the base has no such attribute, which the journal sets at "
        "offset 4"
    )


def test_a_damaged_journal_is_a_matter_of_the_surroundings(
    asked: list[object], journal: Path
) -> None:
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2])
    answered = call("explain", *asked, "--customer", "ann", "--journal", journal)
    assert answered.status == 3
    assert f"{journal} is damaged" in answered.errors


def test_a_result_never_overwrites_the_journal(asked: list[object], tmp_path: Path) -> None:
    journal = tmp_path / "journal.parquet"
    done("record", "--create", "--journal", journal, "--objection", "a")
    message = refused("match", *asked, "--journal", journal, "--out", journal)
    assert message == f"--out: {journal} would overwrite what --journal reads"
