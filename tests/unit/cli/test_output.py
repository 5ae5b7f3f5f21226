"""The three readers of an output: a person, a pipe, a program."""

from __future__ import annotations

import io
import json

import pytest

from chatkeep.daemon.cli.output import Output, plain


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


def test_progress_shows_on_a_terminal_only() -> None:
    for kind, as_json, shown in ((Terminal, False, True), (Terminal, True, False), (io.StringIO, False, False)):
        output, out, err = pair(kind, as_json=as_json)
        with output.progress(sized=True) as step:
            step("Sealing", 5, None)
            step("Sealing", 10, 10)
        assert ("Sealing" in err.getvalue()) is shown
        assert out.getvalue() == ""


def test_plain() -> None:
    assert plain({2, 1}) == [1, 2]
    assert plain(1.5j) == "1.5j"
