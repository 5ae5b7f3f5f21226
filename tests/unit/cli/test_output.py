"""The three readers of an output: a person, a pipe, a program."""

from __future__ import annotations

import io
import json
import time

import click
import pytest

from chatkeep.daemon.cli import bars
from chatkeep.daemon.cli.output import Output, fields, plain


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def pair(kind: type[io.StringIO], *, as_json: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = kind(), kind()
    return Output(as_json=as_json, out=out, err=err), out, err


def test_a_result() -> None:
    output, out, err = pair(io.StringIO)
    output.result({"a": 1}, "one", "two")
    assert (out.getvalue(), err.getvalue()) == ("one\ntwo\n", "")


def test_a_result_as_json_is_given_once() -> None:
    output, out, _ = pair(io.StringIO, as_json=True)
    output.note("on the side")
    output.result({"path": b"a\xff", "when": (1, 2)}, "never shown")
    assert json.loads(out.getvalue()) == {"path": "a\udcff", "when": [1, 2]}
    with pytest.raises(AssertionError):
        output.result({})


def test_a_table_for_each_reader() -> None:
    rows = [["one", "1 B"], ["\x1b[2J\tx", "2 B"]]
    output, out, _ = pair(io.StringIO)
    output.table({"rows": []}, ["Name", "Size"], rows)
    assert out.getvalue() == "one\t1 B\n\\x1b[2J\\tx\t2 B\n"
    output, out, _ = pair(Terminal)
    output.table({"rows": []}, ["Name", "Size"], rows)
    assert "Name" in out.getvalue()
    assert "\\x1b[2J" in out.getvalue()
    output, out, _ = pair(io.StringIO, as_json=True)
    output.table({"rows": rows}, ["Name", "Size"], rows)
    assert json.loads(out.getvalue()) == {"rows": rows}


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("single", [True, False])
def test_progress_shows_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], as_json: bool, single: bool
) -> None:
    monkeypatch.setattr(bars, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")  # on a dumb one nothing is drawn
    output, out, err = pair(kind, as_json=as_json)
    visible = kind is Terminal and not as_json
    with output.progress(sized=True, single=single) as step:
        until = time.monotonic() + 60
        step("Sealing", 5, None)
        step("Sealing", 1_500_000, 3_000_000)
        while visible and "1.50 MB of 3.00 MB" not in err.getvalue() and time.monotonic() < until:
            step("Sealing", 1_500_000, 3_000_000)
    assert ("Sealing" in err.getvalue()) is visible
    assert ("1.50 MB of 3.00 MB" in err.getvalue()) is visible
    assert out.getvalue() == ""


def test_short_work_shows_nothing() -> None:
    output, _, err = pair(Terminal)
    with output.progress() as step:
        step("Sealing", 1, 2)
    assert err.getvalue() == ""


def test_fields_are_aligned_whatever_their_colour() -> None:
    assert fields([("a", "one\ntwo"), ("\x1b[1mlong\x1b[0m", "three"), ("b", "")]) == [
        "  a     one",
        "        two",
        "  \x1b[1mlong\x1b[0m  three",
        "  b",
    ]


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert pair(io.StringIO)[0].styled("x", "bad") == "x"
    assert pair(Terminal)[0].styled("x", "bad") != "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert pair(Terminal)[0].styled("x", "bad") == "x"
    assert pair(Terminal)[0].remark("x", "bad") == "x"


def test_the_second_screen_is_left_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    output, _, err = pair(Terminal)
    with pytest.raises(KeyboardInterrupt), output.aside():
        raise KeyboardInterrupt
    assert err.getvalue().startswith("\x1b[?1049h")
    assert err.getvalue().endswith("\x1b[2J\x1b[H\x1b[?1049l")


def test_plain() -> None:
    assert plain({2, 1}) == [1, 2]
    assert plain(1.5j) == "1.5j"


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_short_cells_are_never_folded(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """On a narrow terminal a table of folded times and modes would be columns of three letters."""
    monkeypatch.setenv("COLUMNS", columns)
    output, out, _ = pair(Terminal)
    long = "a name of many letters, " * 20
    output.table({}, ["mode", "modified", "name"], [["drwxr-xr-x", "2026-01-31 18:30:00", long]])
    shown = out.getvalue()
    assert "drwxr-xr-x" in shown
    assert "2026-01-31 18:30:00" in shown
    assert max(map(len, click.unstyle(shown).splitlines())) <= max(int(columns), 80)
