"""The table of a trial: line by line at a terminal, all at once for a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import WIDTH, Output, Style, has_screens, paragraph
from chatkeep.daemon.cli.provider_findings import Check, Level, Row, Verdict
from chatkeep.daemon.cli.provider_places import place

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig
    from chatkeep.daemon.cli.provider_trial import Tried

_LABEL: Final = max(map(len, Check))
_ANSWER: Final = max(map(len, findings.Answer))
_INDENT: Final = 2 + _LABEL + 2 + _ANSWER + 2
_LEVELS: Final[dict[Level, Style]] = {Level.OK: "good", Level.PLAIN: "dim", Level.WARN: "warn", Level.FAIL: "bad"}
_VERDICTS: Final[dict[Verdict, Style]] = {Verdict.GOOD: "good", Verdict.BAD: "bad"}
_BACK: Final = "\r\x1b[K"  # to the beginning of the line, which is empty then


class Screen:
    """Where a trial is shown. `aside`: as notes, beside what a command has as its result."""

    def __init__(self, out: Output, *, aside: bool = False) -> None:
        self._out = out
        self._stream = out.err if aside else out.out
        self._live = not out.as_json and self._stream.isatty()
        self._styled = out.remark if aside else out.styled
        self._lines: list[str] = []

    def head(self, config: ProviderConfig) -> None:
        """Which provider comes now."""
        kind = config.type if config.type != config.name else ""
        about = ", ".join(filter(None, (kind, printable(place(config, Path.home()))))) or config.type
        self._say(*([""] if self._lines else []), f"{self._styled(printable(config.name), 'head')}: {about}", "")

    def asked(self, check: Check) -> None:
        """A question that is not answered yet."""
        if self._live and has_screens():
            self._write(f"  {check:<{_LABEL}}  ...")

    def row(self, row: Row) -> None:
        """An answer."""
        if self._live and has_screens():
            self._write(_BACK)
        self._say(*self._row(row))

    def verdict(self, tried: Tried, *, required: bool = True) -> None:
        """What it comes to."""
        found = findings.verdict(tried.rows)
        text = findings.sentence(found, tried.left)
        if not required:
            text += " It is not required: backups are done without it."
        first, *more = paragraph(text)
        self._say("", self._styled(first, _VERDICTS.get(found, "warn")), *more)

    def rest(self) -> list[str]:
        """What was not shown yet."""
        return [] if self._live else self._lines

    def _row(self, row: Row) -> Iterator[str]:
        answer = self._styled(f"{row.answer:<{_ANSWER}}", _LEVELS[row.level])
        first, *more = _wrapped(row.text) or [""]
        yield f"  {row.check:<{_LABEL}}  {answer}  {first}".rstrip()
        yield from (f"{'':<{_INDENT}}{line}" for line in more)
        yield from (f"{'':<{_INDENT}}{self._styled(line, 'dim')}" for line in _wrapped(row.remedy))

    def _say(self, *lines: str) -> None:
        self._lines += lines
        if self._live:
            self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        if self._stream is self._out.out:
            self._out.write(text)
        else:
            self._stream.write(text)
            self._stream.flush()


def _wrapped(text: str) -> list[str]:
    return paragraph(printable(text), WIDTH - _INDENT)
