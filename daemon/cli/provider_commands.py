"""`chatkeep providers`: the storage of the vault."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.problems import nearest
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli.exits import worst
from chatkeep.daemon.cli.frame import Frame, Group, pass_frame
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output, Style, has_screens
from chatkeep.daemon.cli.provider_findings import Check, Level, Row
from chatkeep.daemon.cli.provider_places import place

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig

_WIDTH: Final = 78
_LABEL: Final = max(map(len, Check))
_ANSWER: Final = max(map(len, findings.Answer))
_INDENT: Final = 2 + _LABEL + 2 + _ANSWER + 2
_STYLES: Final[dict[Level, Style]] = {Level.OK: "good", Level.PLAIN: "dim", Level.WARN: "warn", Level.FAIL: "bad"}
_WITHOUT_KEY: Final = frozenset({"folder"})


@click.group(cls=Group, short_help="The storage of the vault: try what it does.")
def providers() -> None:
    """The storage of the vault: try what it does."""


@providers.command(name="test", short_help="Try what a provider does.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Without the speed.")
@pass_frame
def try_out(frame: Frame, names: Sequence[str], quick: bool) -> int:
    """Try what a provider does, with small objects that are deleted again.

    Whether it can be reached and lets this device in, write, read, read parts, list and delete; whether it refuses to
    overwrite, notices damage on the way, keeps versions; its clock, its free room, how fast it is. Says of every "no"
    what it means. Needs no secret.

    Without a NAME all of them. The speed is that of one connection, measured with a few megabytes.
    """
    configs = chosen(frame.config().providers, names)
    values, codes = [], []
    shown = _Screen(frame.out)
    for config in configs:
        shown.head(config)
        rows: list[Row] = []
        left = _try(config, quick, shown, rows)
        counts = config.required or bool(names)
        shown.verdict(rows, left, config.required)
        values.append(_value(config, rows, left))
        codes += [findings.exit_of(rows)] if counts else []
    frame.out.result({"providers": values}, *shown.rest())
    return worst(codes)


def chosen(configs: Sequence[ProviderConfig], names: Sequence[str]) -> list[ProviderConfig]:
    """Those of the names, each once and in the order of the configuration; without names all. Raises
    click.BadParameter."""
    known = [config.name for config in configs]
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            advice = f"Did you mean '{printable(meant)}'?" if meant else f"There are: {printable(', '.join(known))}."
            raise click.BadParameter(f"There is no provider '{printable(name)}' in the configuration. {advice}")
    return [config for config in configs if not names or config.name in names]


def _try(config: ProviderConfig, quick: bool, shown: _Screen, rows: list[Row]) -> int:
    """Fills `rows`, each shown when it is known; how many objects are left behind."""
    from chatkeep.daemon.cli import provider_trial
    from chatkeep.daemon.service import storage

    try:
        with storage.opened([config], patient=False) as (provider,):
            trial = provider_trial.Trial(provider, shown.asked, config.type not in _WITHOUT_KEY, quick)
            for row in trial.rows():
                rows.append(row)
                shown.row(row)
            return len(trial.left)
    except ChatkeepError as exc:
        for row in provider_trial.of_opening(exc):
            rows.append(row)
            shown.row(row)
        return 0


class _Screen:
    """The table: line by line at a terminal, all at once for a pipe."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live = not out.as_json and out.out.isatty()
        self._lines: list[str] = []

    def head(self, config: ProviderConfig) -> None:
        """Which provider comes now."""
        about = ", ".join(filter(None, (config.type, printable(place(config, Path.home())))))
        self._say(*([""] if self._lines else []), f"{self._out.styled(printable(config.name), 'head')}: {about}", "")

    def asked(self, check: Check) -> None:
        """A question that is not answered yet."""
        if self._live and has_screens():
            self._out.write(f"  {check:<{_LABEL}}  ...")

    def row(self, row: Row) -> None:
        """An answer."""
        if self._live and has_screens():
            self._out.write("\r\x1b[K")
        self._say(*_lines(self._out, row))

    def verdict(self, rows: Sequence[Row], left: int, required: bool) -> None:
        """What it comes to."""
        found = findings.verdict(rows)
        style: Style = {"good": "good", "bad": "bad"}.get(found.value, "warn")  # type: ignore[assignment]
        text = findings.sentence(found, left)
        if not required:
            text += " It is not required: backups are done without it."
        first, *more = textwrap.wrap(text, _WIDTH)
        self._say("", self._out.styled(first, style), *more)

    def rest(self) -> list[str]:
        """What was not shown yet."""
        return [] if self._live else self._lines

    def _say(self, *lines: str) -> None:
        self._lines += lines
        if self._live:
            self._out.write("".join(f"{line}\n" for line in lines))


def _lines(out: Output, row: Row) -> Iterator[str]:
    room = _WIDTH - _INDENT
    text = textwrap.wrap(printable(row.text), room, break_long_words=False, break_on_hyphens=False)
    remedy = textwrap.wrap(printable(row.remedy), room, break_long_words=False, break_on_hyphens=False)
    answer = out.styled(f"{row.answer:<{_ANSWER}}", _STYLES[row.level])
    first, *more = text or [""]
    yield f"  {row.check:<{_LABEL}}  {answer}  {first}".rstrip()
    yield from (f"{'':<{_INDENT}}{line}" for line in more)
    yield from (f"{'':<{_INDENT}}{out.styled(line, 'dim')}" for line in remedy)


def _value(config: ProviderConfig, rows: Sequence[Row], left: int) -> dict[str, Any]:
    return {
        "name": config.name,
        "type": config.type,
        "place": place(config, None),
        "required": config.required,
        "verdict": findings.verdict(rows),
        "checks": [
            {
                "check": row.check,
                "answer": row.answer,
                "level": row.level,
                "text": row.text,
                "remedy": row.remedy,
                "value": row.value,
                "code": row.code,
            }
            for row in rows
        ],
        "left_behind": left,
    }
