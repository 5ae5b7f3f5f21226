"""Secrets from a person: typed at the terminal, or from a file. Never from an argument or the environment, which every
program of the user can read.

A file may be `-` for standard input or `/dev/fd/N` for a descriptor, so that a password manager can hand a secret over
without its touching a disk.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from chatkeep.daemon.cli.output import Output

if TYPE_CHECKING:
    from chatkeep.daemon.keys.recovery import RecoveryKey

MAX_SECRET_BYTES: Final = 4096  # whoever names a disk image by mistake is told at once

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def key_file_option(command: Decorated) -> Decorated:
    """Adds `--key-file F`, given to the command as `key_file: Path | None`."""
    return _file_option("--key-file", "Read the recovery key from a file, - or /dev/fd/N.")(command)


def passphrase_file_option(command: Decorated) -> Decorated:
    """Adds `--passphrase-file F`, given to the command as `passphrase_file: Path | None`."""
    return _file_option("--passphrase-file", "Read the passphrase from a file, - or /dev/fd/N.")(command)


def passphrase(
    out: Output, file: Path | None = None, *, new: bool = False, option: str = "--passphrase-file"
) -> bytearray:
    """A passphrase, in UTF-8 and for the caller to wipe: the file without its last line end, or what is typed, unseen.
    A `new` one is typed twice.

    `option`: the one that gives the file.

    Raises click.UsageError when there is neither a file nor a terminal, or the file cannot be used.
    """
    if file is not None:
        raw = _read(out, file, option)
        for end in (b"\n", b"\r"):
            if raw.endswith(end):
                del raw[-1]
        return raw
    from chatkeep.daemon.keys.secret import wipe

    _need_terminal("a passphrase", option)
    while True:
        first = _hidden("New passphrase: " if new else "Passphrase: ")
        if not new:
            return first
        again = _hidden("The same again: ")
        same = first == again
        wipe(again)
        if same:
            return first
        wipe(first)
        out.note("The two differ.")


def recovery_key(out: Output, file: Path | None = None) -> RecoveryKey:
    """A recovery key: from a file, or typed line by line, each line checked before the next is asked for.

    It is shown while it is typed: 64 digits cannot be typed blind, and it comes from a paper that lies there anyway.

    Raises:
        RecoveryTypo: a slip in the file. One at the terminal is told, and the line asked for again.
        click.UsageError: neither a file nor a terminal, or the file cannot be used.
    """
    from chatkeep.daemon.keys import recovery

    if file is not None:
        return recovery.parse(_read(out, file, "--key-file"))
    _need_terminal("a recovery key", "--key-file")
    with out.aside():
        return _type_key(out)


def _type_key(out: Output) -> RecoveryKey:
    from chatkeep.daemon.cli import typed
    from chatkeep.daemon.keys import recovery
    from chatkeep.daemon.keys.errors import RecoveryTypo
    from chatkeep.daemon.keys.secret import wipe

    out.note("The recovery key, line by line:\n")
    sound = bytearray()
    line: object = 1
    try:
        while True:
            one = typed.line(f"  line {line}: ")
            longer = sound + b"\n" + one
            wipe(one)
            try:
                return recovery.parse(bytearray(longer))
            except RecoveryTypo as error:
                if error.params["reason"] == "too-few-lines":
                    line = error.params["line"]  # not a count: several lines may be pasted as one
                    sound, longer = longer, sound
                else:
                    out.note(f"  {slip(error.params)} Once more:")
            finally:
                wipe(longer)
    finally:
        wipe(sound)


def _hidden(prompt: str) -> bytearray:
    """What is typed unseen; nothing is asked for again."""
    from chatkeep.daemon.cli import typed

    while not (given := typed.line(prompt, hidden=True)):
        pass
    return given


def agreed(question: str, *, default: bool = False) -> bool:
    """Whether a person says yes. No answer is `default`. Raises click.Abort."""
    try:
        return click.confirm(question, default=default, err=True)
    except click.Abort:
        click.echo(err=True)  # what is said next stands on a line of its own, not behind the question
        raise


def has_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def slip(params: dict[str, object]) -> str:
    """What is wrong with a typed line, from the parameters of RecoveryTypo."""
    return {
        "length": "A line has 8 digits.",
        "not-a-digit": "There are only digits in it.",
        "check-digit": "There is a slip in this line, or it is another line's place.",
    }.get(str(params["reason"]), "This is not a line of a recovery key.")


def _file_option(name: str, words: str) -> Callable[[Decorated], Decorated]:
    return click.option(name, metavar="F", type=click.Path(path_type=Path, allow_dash=True), help=words)


def _need_terminal(what: str, option: str) -> None:
    if not has_terminal():
        raise click.UsageError(f"Needs {what}, and there is no terminal to ask at. Give it with {option}.")


def _read(out: Output, file: Path, option: str) -> bytearray:
    """UTF-8 text of a file, for the caller to wipe."""
    from chatkeep.daemon.keys.secret import wipe

    raw = bytearray(MAX_SECRET_BYTES + 1)
    count = 0
    try:
        # Unbuffered: a buffer would be another place that the secret was in.
        with open(0 if str(file) == "-" else file, "rb", buffering=0, closefd=str(file) != "-") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            while part := stream.readinto(memoryview(raw)[count:]):
                count += part
        return _text_of(out, raw, count, mode, file, option)
    except OSError as exc:
        raise click.BadParameter(f"{file}: {exc.strerror}", param_hint=option) from exc
    finally:
        wipe(raw)


def _text_of(out: Output, raw: bytearray, count: int, mode: int, file: Path, option: str) -> bytearray:
    from chatkeep.daemon.keys.secret import forget

    if count > MAX_SECRET_BYTES:
        raise click.BadParameter(f"has more than {MAX_SECRET_BYTES} bytes: not a secret", param_hint=option)
    if stat.S_ISREG(mode) and mode & 0o077:
        out.note(f"Other users may read this file: chmod 600 {file}")
    text = raw.decode("utf-8", "replace")
    legible = "\ufffd" not in text  # not by way of a UnicodeDecodeError, which holds the bytes and would travel along
    forget(text)
    if not legible:
        raise click.BadParameter(f"{file}: not UTF-8 text", param_hint=option)
    return raw[:count]
