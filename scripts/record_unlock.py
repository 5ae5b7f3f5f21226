"""The terminal recording in docs/unlock.md, made by really running it; or how long a newcomer takes to a session.

python -m scripts.record_unlock [--print | --stopwatch [--paper] [--brisk] [--hurried]]
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Final

from scripts.unlock_play import BRISK, CAREFUL, PIN, Person, Play, played

PAGE: Final = Path(__file__).parents[1] / "docs" / "unlock.md"
BEGIN: Final = "<!-- scripts/record-unlock writes from here -->\n```\n"
END: Final = "\n```\n<!-- to here -->"
# Of progress: there only where the machine is busy.
_BARS: Final = re.compile(r"(?:^\n)?(?:^.*\u2501.*\n)+", re.MULTILINE)
_DIFFERENT_EACH_TIME: Final = (
    (re.compile(r"http://localhost:\d+/#[\w-]+"), "LINK"),
    (re.compile(r"\b\d{3} \d{3}\b"), "CODE"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"just now|\d+ (second|minute)s? ago"), "AGO"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b"), "ID"),
    (re.compile(r"[\d.,]+ (B|kB|MB|s)\b"), "SIZE"),
    (re.compile(r" {2,}"), "  "),  # of tables, which are as wide as what is in them
)


def recording(play: Play) -> str:
    """What a terminal shows to somebody who begins."""
    play.runs(
        "chatkeep init --recovery-key-file ~/recovery-key.txt",
        [play.answers("Add one now?", ""), play.at_the_page(3)],
        "in the browser: the same six digits, a click on Create the passkey, three touches",
    )
    play.runs("chatkeep backup")
    touched = "in the browser: the same six digits, a click on Unlock with a passkey, one touch"
    play.runs("chatkeep unlock", [play.at_the_page(1)], touched)
    play.runs("chatkeep status")
    play.runs("chatkeep ls latest")
    play.plug_in()
    play.runs(
        'chatkeep key add security-key --label "blue key" --key-file ~/recovery-key.txt',
        [play.answers("PIN of the security key", PIN)],
        "the PIN, which is not shown; then the key blinks three times, and is touched",
    )
    play.runs("chatkeep key list --labels")
    play.runs("chatkeep lock")
    play.runs(
        "chatkeep restore latest --target ~/restored --security-key", [play.answers("PIN of the", PIN)], "the PIN again"
    )
    return _BARS.sub("", "\n".join(play.shown).rstrip())


def masked(text: str) -> str:
    """The recording without what differs each time that it is made."""
    for pattern, word in _DIFFERENT_EACH_TIME:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def written(page: str) -> str:
    """The recording that a page has. Raises ValueError when it has none."""
    begin = page.index(BEGIN) + len(BEGIN)
    return page[begin : page.index(END, begin)]


def stopwatch(play: Play, *, paper: bool) -> dict[str, float]:
    """From the first key of `chatkeep init` to an unlocked session, in seconds."""
    person, started = play.person, time.monotonic()
    line = "chatkeep init" if paper else "chatkeep init --recovery-key-file ~/recovery-key.txt"
    key = play.copies() if paper else []
    play.runs(line, [play.answers("Add one now?", ""), *key, play.at_the_page(3)])
    play.runs("chatkeep unlock", [play.at_the_page(1)])
    taken = sum(play.counted.values())
    machine = play.ended - started - (0.0 if person.hurried else taken)
    return {**play.counted, "the person": taken, "the machine": machine, "both": taken + machine}


def main() -> None:
    """Writes the recording, or shows figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="show the recording, and write nothing")
    parser.add_argument(
        "--stopwatch", action="store_true", help="measure a newcomer, who takes the time that people take"
    )
    parser.add_argument("--paper", action="store_true", help="the recovery key is copied to paper and typed back")
    parser.add_argument("--brisk", action="store_true", help="somebody who skims, and pastes the long command line")
    parser.add_argument("--hurried", action="store_true", help="take no time for the person: only count it")
    chosen = parser.parse_args()
    person = Person(chosen.hurried or not chosen.stopwatch, BRISK if chosen.brisk else CAREFUL)
    with tempfile.TemporaryDirectory(prefix="record-") as room, played(Path(room), person) as play:
        if chosen.stopwatch:
            for what, seconds in stopwatch(play, paper=chosen.paper).items():
                print(f"{what:20}{seconds:7.1f} s")
            return
        text = recording(play)
    if chosen.print:
        print(text)
        return
    page = PAGE.read_text()
    PAGE.write_text(page.replace(BEGIN + written(page) + END, BEGIN + text + END))


if __name__ == "__main__":
    main()
