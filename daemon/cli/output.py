"""Where words and figures go: to a person at a terminal, to a pipe, or to a program as one JSON object.

Results go to standard output. Everything else (notes, prompts, progress, errors for people) goes to standard error,
so a result can be piped while a person still sees what happens. Progress shows on a terminal only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TextIO

import click

from chatkeep.daemon.cli.measures import printable

Step = Callable[[str, int, int | None], None]  # what is worked at, done so far, and all there is if that is known

# Few and quiet: what to look at first, what matters less, what is well, what is not.
_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "head": {"bold": True},
    "dim": {"dim": True},
    "good": {"fg": "green"},
    "warn": {"fg": "yellow"},
    "bad": {"fg": "red", "bold": True},
}
WIDTH: Final = 78  # of running text: a terminal of 80, and air
_SHORT: Final = 20  # characters of a column that is never folded: times, modes, sizes
Style = Literal["head", "dim", "good", "warn", "bad"]


class ReaderLeft(Exception):
    """Nobody reads standard output any more (`| head`): an end like any other, without a message."""


class OutputLost(Exception):
    """What was to be shown cannot be written: a full disk, a closed descriptor. `number`: the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Output:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr
        self._said = False

    def result(self, value: Mapping[str, Any], *lines: str) -> None:
        """The outcome of the command, once: `value` with --json, else the lines."""
        if self.as_json:
            if self._said:  # a second object would make the output no JSON document
                raise AssertionError("one command, one JSON object")
            self._said = True
            self.write(json.dumps(value, default=plain, indent=2 if self.out.isatty() else None) + "\n")
        else:
            self.write("".join(f"{line}\n" for line in lines))

    def table(
        self,
        value: Mapping[str, Any],
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        right: Collection[str] = (),
    ) -> None:
        """An outcome of many rows: aligned for a terminal, separated by tabs for a pipe (no heading), or `value`.

        `right`: the columns that hold numbers.
        """
        if self.as_json:
            self.result(value)
        elif not self.out.isatty():
            self.result({}, *("\t".join(printable(cell) for cell in row) for row in rows))
        else:
            # Rich takes longer to import than most commands take to run.
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text

            shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
            cells = [[printable(cell) for cell in row] for row in rows]
            widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
            for column, width in zip(columns, widths, strict=True):
                side: Literal["left", "right"] = "right" if column in right else "left"
                shown.add_column(column, justify=side, no_wrap=width <= _SHORT, overflow="fold")
            for row in cells:
                shown.add_row(*map(Text, row))
            console = Console(file=self.out)
            # On a terminal too narrow for that its own folding of lines reads better than columns of three letters.
            console.width = max(console.width, sum(min(width, _SHORT) + 2 for width in widths))
            with console.capture() as captured:
                console.print(shown)
            self.write(captured.get())

    def write(self, text: str) -> None:
        """Text to standard output, at once. Raises ReaderLeft, OutputLost."""
        with _writing():
            self.out.write(text)
            self.out.flush()

    def write_bytes(self, pieces: Iterable[bytes]) -> None:
        """Bytes to standard output as they are. Raises ReaderLeft, OutputLost, and what `pieces` raises."""
        for piece in pieces:
            with _writing():
                self.out.buffer.write(piece)
        with _writing():
            self.out.flush()

    def note(self, text: str) -> None:
        """Something a person may want to know now. Not part of the result."""
        self.err.write(f"{text}\n")
        self.err.flush()

    def styled(self, text: str, style: Style) -> str:
        """Text for a result, in colour where a person sees it and did not forbid it (NO_COLOR, TERM=dumb)."""
        return click.style(text, **_STYLES[style]) if _shows_colour(self.out) else text

    def remark(self, text: str, style: Style) -> str:
        """The same for a note."""
        return click.style(text, **_STYLES[style]) if _shows_colour(self.err) else text

    @contextlib.contextmanager
    def progress(self, *, sized: bool = False, single: bool = False) -> Iterator[Step]:
        """Shows how far long work is, on a terminal only, and leaves no trace of it. Short work shows nothing.

        Each thing worked at has its own line, or, if `single`, they follow each other on one. `sized`: what is counted
        are bytes. What is yielded may be called from any thread.
        """
        if self.as_json or not self.err.isatty():
            yield _ignore
            return
        from chatkeep.daemon.cli.bars import Bars

        with Bars(self.err, sized=sized, single=single) as bars:
            yield bars.step

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The terminal's second screen, as editors use it: what is shown and typed there is gone when it is left, and
        not in what can be scrolled back to either."""
        if not has_screens():
            yield
            return
        self.err.write("\x1b[?1049h\x1b[2J\x1b[H")
        self.err.flush()
        try:
            yield
        finally:
            self.err.write("\x1b[2J\x1b[H\x1b[?1049l")
            self.err.flush()

    def clear(self) -> None:
        """An empty screen, where screens can be cleared."""
        if has_screens():
            self.err.write("\x1b[2J\x1b[H")


def has_screens() -> bool:
    """Whether the terminal knows more than lines."""
    return os.environ.get("TERM", "dumb") != "dumb"


def paragraph(text: str, width: int = WIDTH) -> list[str]:
    """Running text in lines; a path or an address that is longer stays whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def fields(rows: Sequence[tuple[str, str]], indent: int = 2) -> list[str]:
    """Labels and what they say, aligned; a line break in a text keeps to its column."""
    width = max((len(click.unstyle(label)) for label, _ in rows), default=0)
    lines = []
    for label, text in rows:
        first, *more = text.split("\n")
        padding = " " * (width - len(click.unstyle(label)))
        lines.append(f"{' ' * indent}{label}{padding}  {first}".rstrip())
        lines += [f"{' ' * (indent + width + 2)}{line}".rstrip() for line in more]
    return lines


def plain(value: object) -> object:
    """What JSON cannot say, in text: paths and bytes as names, anything else as Python writes it."""
    if isinstance(value, bytes | Path):
        return os.fsdecode(value)  # bytes that are no UTF-8 become lone surrogates, which JSON escapes and keeps
    if isinstance(value, set | frozenset | tuple):
        return sorted(value, key=repr) if not isinstance(value, tuple) else list(value)
    return str(value)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as exc:
        raise ReaderLeft from exc
    except OSError as exc:
        raise OutputLost(exc.errno or 0) from exc


def _shows_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _ignore(what: str, done: int, total: int | None) -> None:
    """A step of work that nobody watches."""
