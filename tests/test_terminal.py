"""Text from outside is shown as it is, and nothing in it is obeyed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from visavis.terminal import add_row, new_console, new_table, plain, shown

HOSTILE = [
    "[red]tea[/red]",
    "[/nope]",
    "[link=http://x]tea[/link]",
    "tea:tea:",
    "tea\\[red]",
    "{tea}",
    "café 茶 𝄞",
    "  tea  ",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_can_be_printed_is_printed_as_it_is(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert shown(text) == text
    for console in (new_console(), Console()):
        console.print(plain(text))
        assert capsys.readouterr().out.rstrip("\n") == text
        table = new_table("name", title=text)
        add_row(table, text)
        console.print(table)
        assert capsys.readouterr().out.count(text.strip()) == 2
    new_console().print(text)
    assert capsys.readouterr().out.rstrip("\n") == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tea\n", r"tea\n"),
        ("tea\r", r"tea\r"),
        ("a\x08b", r"a\x08b"),
        ("\x1b[31mtea", r"\x1b[31mtea"),
        ("\u202eaet", r"\u202eaet"),
        ("t\u200bea", r"t\u200bea"),
        ("tea\xa0", r"tea\xa0"),
        ("\ud800", r"\ud800"),
        (5, "5"),
    ],
)
def test_what_cannot_be_printed_shows_as_its_escape(text: object, wanted: str) -> None:
    assert shown(text) == wanted


def test_long_cells_fold_and_are_never_cut() -> None:
    name = "x" * 150
    stream = io.StringIO()
    table = new_table("name", "why")
    add_row(table, name, plain("because", "bold"))
    Console(file=stream, width=40).print(table)
    assert stream.getvalue().count("x") == 150
    assert "…" not in stream.getvalue()
