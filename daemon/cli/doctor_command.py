"""`chatkeep doctor`: looks for what is wrong with the set-up, each thing with its remedy."""

from __future__ import annotations

import click

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.output import WIDTH, Output, Style, paragraph

STYLES: dict[str, Style] = {"ok": "good", "warn": "warn", "fail": "bad"}


@click.command(cls=Command, short_help="Look for what is wrong with the set-up.")
@pass_frame
def doctor(frame: Frame) -> int:
    """Look for what is wrong with the set-up: configuration, permissions, room, storage, clock, ways in.

    Writes a small probe object to each provider and removes it. Needs no secret.
    """
    from chatkeep.daemon.cli import checks

    found = checks.examine(frame)
    worst = max((check.level for check in found), key=list(STYLES).index)
    value = {"worst": worst, "checks": [check._asdict() for check in found]}
    width = max(len(check.about) for check in found)
    lines = []
    for check in found:
        level = frame.out.styled(f"{check.level:<4}", STYLES[check.level])
        first, *more = _folded(frame.out, check.text, width + 8)
        lines.append(f"{level}  {check.about:<{width}}  {first}")
        lines += [f"{'':<{width + 8}}{line}" for line in more]
        if check.remedy:
            lines += [_remedy(frame.out, line, width + 8) for line in _folded(frame.out, check.remedy, width + 8)]
    frame.out.result(value, *lines, *_verdict(worst))
    return Exit.FAILED if worst == "fail" else Exit.DONE


def _folded(out: Output, text: str, indent: int) -> list[str]:
    """In lines that fit a terminal; whoever reads them out of a pipe gets them whole."""
    lines = text.split("\n")
    return [one for line in lines for one in paragraph(line, WIDTH - indent) or [""]] if out.out.isatty() else lines


def _remedy(out: Output, text: str, indent: int) -> str:
    return " " * indent + out.styled(text, "dim")


def _verdict(worst: str) -> list[str]:
    words = {"ok": "All is well.", "warn": "It works; see the warnings.", "fail": "Something must be put right first."}
    return ["", words[worst]]
