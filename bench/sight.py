"""What storage sees of one backup, and how well it tells two kinds of activity apart. Pure."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.numbers import median, size
from bench.report import Table

_ACTS = ("between two backups", "runs", "true bytes", "objects", "packs, usual sizes", "seen", "manifest", "requests")
_PAIRS = ("one", "the other", "told apart by sizes")
_TYPES = ("what storage sees", "folder")


@dataclass(frozen=True)
class Sight:
    """One backup as storage saw it.

    Attributes:
        act: what had happened before; storage does not see this.
        truth: bytes that had changed: databases' changed pages in one Zstandard frame, and new files.
        packs: their sizes, in ascending order.
        manifests: their sizes.
        requests: the verbs it was asked, in order.
        seconds: from the first request to the last.
    """

    act: str
    truth: int
    packs: tuple[int, ...]
    manifests: tuple[int, ...]
    requests: tuple[str, ...]
    seconds: float

    @property
    def sizes(self) -> Hashable:
        """All that its sizes tell."""
        return self.packs, self.manifests


def told_apart(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """0 to 1: how much better than by tossing a coin an observer says which of two things happened.

    The total variation distance of what was seen: 0 when both always look alike, 1 when they never do. Of few runs it
    comes out too high rather than too low.
    """
    seen = [(collections.Counter(looks), len(looks)) for looks in (one, other)]
    every = {*one, *other}
    return sum(abs(seen[0][0][look] / seen[0][1] - seen[1][0][look] / seen[1][1]) for look in every) / 2


def acts_table(sights: Sequence[Sight]) -> Table:
    """Each kind of activity and what it looks like."""
    rows = []
    for act in _acts(sights):
        found = [sight for sight in sights if sight.act == act]
        packs, count = collections.Counter(sight.packs for sight in found).most_common(1)[0]
        rows.append(
            [
                act,
                str(len(found)),
                _span([sight.truth for sight in found]),
                _span([len(sight.packs) + len(sight.manifests) for sight in found]),
                " + ".join(f"{pack / 1024:.0f} KiB" for pack in packs) or "none",
                f"{count} of {len(found)}",
                " or ".join(f"{one / 1024:.0f} KiB" for one in sorted({s for sight in found for s in sight.manifests})),
                ", ".join(f"{n} {verb}" for verb, n in _requests(found).items()),
            ]
        )
    return Table("one backup, as storage sees it", _ACTS, rows)


def pairs_table(sights: Sequence[Sight], pairs: Sequence[tuple[str, str]] | None = None) -> Table:
    """For each pair of activities how well sizes tell them apart: 0 % not at all, 100 % always."""
    rows = []
    for one, other in pairs if pairs is not None else list(combinations(_acts(sights), 2)):
        looks = [[sight.sizes for sight in sights if sight.act == act] for act in (one, other)]
        rows.append([one, other, f"{told_apart(*looks):.0%}"])
    return Table("how often sizes tell which of two it was (0 %: no better than a coin)", _PAIRS, rows)


def types_table(sights: Sequence[Sight]) -> Table:
    """What each type of storage sees, a column each."""
    some = [sight for sight in sights if sight.packs]
    idle = [sight for sight in sights if not sight.packs]
    sizes = {pack for sight in sights for pack in sight.packs}
    rows = [
        ["names", "ids, hashes, sequence numbers"],
        ["sizes", f"padded: {len(sizes)} different ones among {sum(len(s.packs) for s in sights)} packs"],
        ["counts", f"{_span([len(s.packs) + len(s.manifests) for s in some])} objects a snapshot"],
        ["times", f"of each object, to the second; all of a snapshot within {_seconds(some)}"],
        ["requests of a backup", _median_requests(some)],
        ["requests when nothing changed", _median_requests(idle) if idle else "not measured"],
    ]
    return Table("by type of storage", _TYPES, rows)


def _acts(sights: Sequence[Sight]) -> list[str]:
    """In the order of what they change."""
    names = dict.fromkeys(sight.act for sight in sights)
    return sorted(names, key=lambda act: (median([sight.truth for sight in sights if sight.act == act]), act))


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    if most < 1000:
        return str(least) if least == most else f"{least} to {most}"
    return size(least) if least == most else f"{size(least)} to {size(most)}"


def _requests(sights: Sequence[Sight]) -> dict[str, int]:
    verbs = sorted({verb for sight in sights for verb in sight.requests})
    return {verb: round(median([sight.requests.count(verb) for sight in sights])) for verb in verbs}


def _median_requests(sights: Sequence[Sight]) -> str:
    return ", ".join(f"{count} {verb}" for verb, count in _requests(sights).items()) or "none"


def _seconds(sights: Sequence[Sight]) -> str:
    return f"{max((sight.seconds for sight in sights), default=0):.1f} s"
