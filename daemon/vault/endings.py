"""Where the history of a device that is removed ends. Pure, but for what it is given to read with.

Of a removed device counts, for ever, what one head of each stream stands on. The highest number will not do: whoever
stole the device's key signs that in no time, with nothing below it, and the removal would then take the true history
along. So it is the head that the most stands on, and never one that contradicts what the vault itself wrote down.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from chatkeep.daemon.vault.epoch import Head


class Ground(Enum):
    """What the lowest manifest of a run stands on."""

    FIRM = "firm"  # the beginning of the stream, or what the vault wrote down
    GAP = "gap"  # something that is not there
    RIVAL = "rival"  # something else than what the vault wrote down


@dataclass(frozen=True, slots=True)
class Run:
    """Manifests without a gap: how many, and on what."""

    length: int
    ground: Ground


@dataclass(frozen=True, slots=True)
class Ending:
    """The head of a stream that counts.

    Attributes:
        missing: numbers (first, last) that are below the head, or above it, and will not be read.
        forks: numbers of which several manifests are the device's.
    """

    head: Head
    missing: tuple[tuple[int, int], ...]
    forks: Mapping[int, Collection[bytes]]


Previous: TypeAlias = Callable[[Head], bytes | None]
"""Hash of the manifest before this one, as this one says; None when it is not there or not the device's."""


def find_ending(
    listed: Iterable[Head], previous: Previous, settled: tuple[int, frozenset[bytes]], said: Head | None
) -> Ending | None:
    """The head of one stream; None when there is nothing of it.

    Args:
        listed: what storage lists of the stream.
        settled: up to this number a checkpoint says what lives, whatever the head is: the number (0: none does), and
            what that manifest is.
        said: what the newest epoch record names as the head.
    """
    floor, ground = settled
    credit = 0
    if said is not None and said.seq > floor:
        # Below it is what the vault has seen before: as good as read.
        credit, floor, ground = said.seq - floor, said.seq, frozenset({said.sha256})
    runs = _runs([head for head in listed if head.seq > floor], previous, floor, ground)
    ranked = [
        (run.length + (credit if run.ground is Ground.FIRM else 0), run.ground is Ground.FIRM, head.seq, head)
        for head, run in runs.items()
        if run.ground is not Ground.RIVAL
    ]
    ranked += [(credit, True, floor, Head(floor, sha256)) for sha256 in sorted(ground)[:1]]
    if not ranked:
        return None
    # Of equals the lower hash: whichever provider is asked first, the record says the same.
    best = min(ranked, key=lambda one: (-one[0], not one[1], -one[2], one[3].sha256))[3]
    return Ending(best, _missing(best, runs, floor), _forks(runs))


def _runs(listed: Iterable[Head], previous: Previous, floor: int, ground: frozenset[bytes]) -> dict[Head, Run]:
    """The run below each manifest that is there; each is read once."""
    runs: dict[Head, Run] = {}
    absent: set[Head] = set()
    for head in sorted(listed, key=lambda one: (one.seq, one.sha256)):
        above: list[Head] = []
        at = head
        while at not in runs and at not in absent:
            link = previous(at)
            if link is None:
                absent.add(at)
                break
            above.append(at)
            if at.seq == floor + 1:
                firm = not floor or link in ground
                runs[at] = Run(1, Ground.FIRM if firm else Ground.RIVAL)
                break
            at = Head(at.seq - 1, link)
        run = runs.get(at, Run(0, Ground.GAP))
        for one in reversed(above):
            if one not in runs:
                run = runs[one] = Run(run.length + 1, run.ground)
    return runs


def _missing(best: Head, runs: Mapping[Head, Run], floor: int) -> tuple[tuple[int, int], ...]:
    found = []
    run = runs.get(best)
    if run is not None and run.ground is Ground.GAP:
        found.append((floor + 1, best.seq - run.length))
    last = max((head.seq for head in runs), default=0)
    if last > best.seq:
        found.append((best.seq + 1, last))
    return tuple(found)


def _forks(runs: Iterable[Head]) -> dict[int, list[bytes]]:
    by_number: dict[int, list[bytes]] = {}
    for head in runs:
        by_number.setdefault(head.seq, []).append(head.sha256)
    return {seq: sorted(hashes) for seq, hashes in sorted(by_number.items()) if len(hashes) > 1}
