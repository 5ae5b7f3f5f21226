"""Secrets from a file and from a terminal: a real one, in which a child process asks and the test types."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import click
import pytest

from chatkeep.daemon.cli import ask
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.keys import recovery
from chatkeep.daemon.keys.errors import RecoveryTypo
from tests.support import terminal


@pytest.fixture
def notes() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def out(notes: io.StringIO) -> Output:
    return Output(err=notes)


def secret_file(tmp_path: Path, raw: bytes, mode: int = 0o600) -> Path:
    file = tmp_path / "secret"
    file.write_bytes(raw)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"open sesame\n", "open sesame"), (b"a\r\n", "a"), (b" a \n\n", " a \n"), ("pässword".encode(), "pässword")],
)
def test_a_passphrase_from_a_file(tmp_path: Path, out: Output, raw: bytes, expected: str) -> None:
    assert ask.passphrase(out, secret_file(tmp_path, raw)).decode() == expected


def test_a_passphrase_from_a_descriptor(out: Output) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"through a pipe\n")
    os.close(writing)
    try:
        assert ask.passphrase(out, Path(f"/dev/fd/{reading}")) == b"through a pipe"
    finally:
        os.close(reading)


def test_a_recovery_key_from_a_file(tmp_path: Path, out: Output) -> None:
    key = recovery.generate()
    file = secret_file(tmp_path, "\n".join(key.lines).encode())
    assert ask.recovery_key(out, file).lines == key.lines
    wrong = [*key.lines[:2], key.lines[3], *key.lines[3:]]
    with pytest.raises(RecoveryTypo) as caught:
        ask.recovery_key(out, secret_file(tmp_path, "\n".join(wrong).encode()))
    assert caught.value.params["line"] == 3


def test_a_file_that_others_may_read_is_told(tmp_path: Path, out: Output, notes: io.StringIO) -> None:
    ask.passphrase(out, secret_file(tmp_path, b"x"))
    assert notes.getvalue() == ""
    ask.passphrase(out, secret_file(tmp_path, b"x", 0o640))
    assert "chmod 600" in notes.getvalue()


@pytest.mark.parametrize("raw", [b"SECRET" * 1000, b"SECRET\xff"])
def test_a_file_that_holds_no_secret(tmp_path: Path, out: Output, raw: bytes) -> None:
    with pytest.raises(click.BadParameter) as caught:
        ask.passphrase(out, secret_file(tmp_path, raw))
    error: BaseException | None = caught.value
    while error is not None:  # neither the error nor what it came from shows what was read
        assert "SECRET" not in repr(vars(error)) + str(error) + repr(error.args)
        error = error.__cause__ or error.__context__


def test_a_file_that_is_not_there(tmp_path: Path, out: Output) -> None:
    with pytest.raises(click.BadParameter, match="No such file"):
        ask.passphrase(out, tmp_path / "none")


def test_without_a_terminal_the_option_is_named(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("piped"))
    with pytest.raises(click.UsageError, match="--passphrase-file"):
        ask.passphrase(out)
    with pytest.raises(click.UsageError, match="--key-file"):
        ask.recovery_key(out)


def test_a_passphrase_is_not_shown() -> None:
    code, shown = converse("print('GOT', len(ask.passphrase(Output())))", [("Passphrase:", "open sesame")])
    assert code == 0
    assert "GOT 11" in shown
    assert "sesame" not in shown


def test_a_new_passphrase_is_typed_until_it_agrees() -> None:
    code, shown = converse(
        "print('GOT', ask.passphrase(Output(), new=True) == b'three')",
        [
            ("New passphrase:", "one"),
            ("The same again:", "two"),
            ("New passphrase:", "three"),
            ("The same again:", "three"),
        ],
    )
    assert code == 0
    assert "The two differ." in shown
    assert "GOT True" in shown


def test_a_slip_is_told_on_its_line_and_the_line_is_asked_for_again() -> None:
    key = recovery.generate()
    lines = list(key.lines)
    slip = str((int(lines[2][0]) + 1) % 10) + lines[2][1:]
    typed = [*lines[:2], slip, "12", "x", lines[2], " ".join(lines[3:5]), *lines[5:]]
    prompts = ["line 1", "line 2", "line 3", "line 3", "line 3", "line 3", "line 4", "line 6", "line 7", "line 8"]
    script = f"print('GOT', ask.recovery_key(Output()).lines == {key.lines!r})"
    code, shown = converse(script, [(f"{prompt}:", text) for prompt, text in zip(prompts, typed, strict=True)])
    assert code == 0
    assert "GOT True" in shown
    assert [shown.count(words) for words in ("a slip in this line", "has 8 digits", "only digits")] == [1, 1, 1]


def test_interrupted_at_a_prompt() -> None:
    code, shown = converse("ask.passphrase(Output())", [("Passphrase:", "\x03")], frame=True)
    assert code == 6
    assert "Cancelled" in shown
    assert "Traceback" not in shown


def test_what_is_said_after_an_interruption_begins_a_line() -> None:
    code, shown = converse("ask.agreed('Sure?')", [("Sure?", "\x03")], frame=True)
    assert code == 6
    assert "\nchatkeep: Cancelled" in shown


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("n", False), ("", False)])
def test_a_question(answer: str, agreed: bool) -> None:
    _, shown = converse("print(ask.agreed('Sure?'))", [("Sure?", answer)])
    assert f"{agreed}\n" in shown


FRAME = """
from chatkeep.daemon.cli import main
from chatkeep.daemon.cli.frame import Command
main.cli.add_command(Command("ask", callback=lambda: {script}))
sys.exit(main.main(["ask"]))
"""


HEAD = """
import sys
from chatkeep.daemon.cli import ask
from chatkeep.daemon.cli.output import Output
"""


def converse(script: str, talk: list[tuple[str, str]], *, frame: bool = False) -> tuple[int, str]:
    """Runs a script in a child with a terminal of its own; types each answer when its question has appeared."""
    body = FRAME.format(script=script) if frame else script
    return terminal.converse([sys.executable, "-c", HEAD + body], talk)
