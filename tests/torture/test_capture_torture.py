"""Captures while an application does everything it may do to its database, and is killed while it does.

Every capture is incremental: only the pages that the dirty set named are taken over, into an image that began empty.
It must equal, byte for byte, a full copy made under the same pin, and the oracle must find in it a state that the
application had: all of a prefix of its transactions, no earlier than what it had seen committed before the pin.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.capture.errors import DatabaseDamaged, SourceBusy
from chatkeep.daemon.capture.layout import PinState
from tests.support.capturing import Kept, Outcome, acknowledged
from tests.support.sqlite_app import App, Oracle

# (journal mode, also switches it, page size, captures)
PROFILES = [
    ("WAL", False, 4096, 70),
    ("WAL", True, 1024, 35),
    ("DELETE", False, 4096, 45),
    ("TRUNCATE", False, 4096, 25),
    ("PERSIST", False, 16384, 25),
]


class Ordeal:
    """One database through many applications, one after the other, some killed."""

    def __init__(self, where: Path, seed: int, mode: str, switch: bool, page_size: int) -> None:
        self.dice = random.Random(seed)
        self.path = where / "profile" / "chat.db"
        self.path.parent.mkdir(parents=True)
        self.acknowledged = where / "acknowledged"
        self.where = where
        self.mode = mode
        self.switch = switch
        self.page_size = page_size
        self.tally: Counter[str] = Counter()
        self.oracle = Oracle()
        self.newest = 0
        with self.start():
            pass
        self.kept = Kept(self.path, where, page_size)

    def start(self) -> App:
        settings: dict[str, Any] = {
            "page_size": self.page_size,
            "journal_mode": self.mode,
            "synchronous": self.dice.choice(("OFF", "NORMAL", "FULL")),
            "wal_autocheckpoint": self.dice.choice((5, 50, 1000)),
            "cache_size": self.dice.choice((5, 5, 100, 2000)),
            "journal_size_limit": self.dice.choice((-1, 0, 20000)),
        }
        app = App(self.path, seed=self.dice.getrandbits(32), acknowledge=str(self.acknowledged), **settings)
        app.send("storm", seed=self.dice.getrandbits(32), steps=1_000_000, switch=self.switch)
        return app

    def run(self, captures: int) -> None:
        """So many captures that were taken and judged; the ones refused come on top."""
        taken = 0
        while taken < captures:
            with self.start() as app:
                for _ in range(self.dice.randrange(1, 9)):
                    if self.dice.random() < 0.15:
                        app.pause()
                    taken += self.capture()
                    app.resume()
            # Leaving the block kills it, in the middle of whatever it is doing.
            self.tally["killed"] += 1
            for _ in range(self.dice.randrange(3)):
                taken += self.capture()

    def capture(self) -> bool:
        before = acknowledged(self.acknowledged)
        try:
            outcome = self.kept.capture(self.dice)
        except SourceBusy as busy:
            self.tally[f"busy: {busy.params['reason']}"] += 1
            return False
        except DatabaseDamaged:
            # A kill between the two steps of leaving WAL mode.
            if not self.switch:
                raise
            self.tally["damaged"] += 1
            return False
        self.tally[outcome.state.value] += 1
        self.tally[outcome.how] += 1
        assert outcome.exact, f"not exact: {self.wrong(outcome)}"
        number = self.judge(outcome)
        after = acknowledged(self.acknowledged)
        assert before <= number <= after + 1, "not a state of its time"
        assert number >= self.newest, "time went backwards"
        self.newest = number
        return True

    def judge(self, outcome: Outcome) -> int:
        image = self.where / "image.db"
        for old in self.where.glob("image.db*"):
            old.unlink()
        image.write_bytes(outcome.truth)
        if outcome.journal is not None:
            image.with_name("image.db-journal").write_bytes(outcome.journal)
        return self.oracle.judge(image)

    def wrong(self, outcome: Outcome) -> list[int]:
        size = self.kept.table.page_size
        pages = range(len(outcome.truth) // size)
        return [n + 1 for n in pages if self.kept.image[n * size : (n + 1) * size] != outcome.truth[n * size :][:size]]

    def close(self) -> None:
        self.kept.close()
        self.oracle.close()


def _torture(where: Path, seed: int, profile: tuple[str, bool, int, int], factor: int) -> Counter[str]:
    mode, switch, page_size, captures = profile
    ordeal = Ordeal(where, seed, mode, switch, page_size)
    try:
        ordeal.run(captures * factor)
    finally:
        ordeal.close()
        sys.stdout.write(f"{mode} {dict(ordeal.tally)}\n")
    return ordeal.tally


@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: f"{one[0]}{'-switching' if one[1] else ''}-{one[2]}")
def test_every_capture_is_exact_and_a_state_the_application_had(
    tmp_path: Path, seed: int, profile: tuple[str, bool, int, int]
) -> None:
    tally = _torture(tmp_path, seed, profile, factor=1)
    assert tally["killed"] > 0
    if profile[0] == "WAL":
        assert tally[PinState.LIVE_WAL.value] > 0
        assert tally["frames"] > 0
        assert tally["scan"] > 0
    else:
        assert tally[PinState.ROLLBACK.value] > 0


@pytest.mark.long
@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: f"{one[0]}{'-switching' if one[1] else ''}-{one[2]}")
def test_the_same_for_longer(tmp_path: Path, seed: int, profile: tuple[str, bool, int, int]) -> None:
    _torture(tmp_path, seed, profile, factor=25)
