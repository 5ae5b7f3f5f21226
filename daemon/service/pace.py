"""When a source is due for its next snapshot, by what was seen to change. Pure.

All times are seconds of one clock that never goes back and counts sleep; `now` never comes from here. One `Pace` is one
source. It remembers what is open (hints that no snapshot has begun after) and says when a snapshot is due:

    quiet          a pause since the last hint, so that a burst becomes one snapshot
    max_delay      after the first open hint at the latest, so that a source that never rests is still kept
    min_interval   between the beginnings of two snapshots, whatever else is due
    compare_every  after the beginning of the last one, without any hint: events are hints, and a lost one must not be
                   lost for good

Every snapshot compares the whole source with what is on record, whatever it was begun for.
A hint is answered `max_delay` after the first open one, or as soon as `min_interval` allows, whichever is later; a
snapshot that is still running delays it to its end. A snapshot that failed is not this module's matter: whoever runs
them hints again, or waits as failures demand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """The four numbers, in seconds; none negative, compare_every above zero."""

    quiet: float = 2.0
    max_delay: float = 8.0
    min_interval: float = 60.0
    compare_every: float = 6 * 3600.0


class Pace:
    """What is due of one source. It is born with a comparison due: nobody knows what happened before `now`."""

    def __init__(self, settings: PaceSettings, now: float) -> None:
        self.settings = settings
        self.running = False
        self._now = now
        self._first: float | None = None  # of the open hints
        self._last = now
        self._compare_at = now
        self._began: float | None = None

    @property
    def open_since(self) -> float | None:
        """When the first hint came that no snapshot began after; None: there is none."""
        return self._first

    @property
    def due_at(self) -> float | None:
        """When the next snapshot is due; may lie in the past. None: one is running, and its end decides."""
        if self.running:
            return None
        due = self._compare_at
        if self._first is not None:
            due = min(due, self._last + self.settings.quiet, self._first + self.settings.max_delay)
        return due if self._began is None else max(due, self._began + self.settings.min_interval)

    def hint(self, now: float) -> None:
        """Something may have changed."""
        self._at(now)
        if self._first is None:
            self._first = self._now
        self._last = self._now

    def resumed(self, now: float) -> None:
        """The machine slept: compare as soon as `min_interval` allows."""
        self._at(now)
        self._compare_at = min(self._compare_at, self._now)

    def began(self, now: float) -> None:
        """A snapshot begins, for whatever reason: it answers everything that is open."""
        self._at(now)
        self._compare_at = self._now + self.settings.compare_every
        self._first = None
        self._began = self._now
        self.running = True

    def ended(self, now: float) -> None:
        """It ended, however."""
        self._at(now)
        self.running = False

    def change(self, settings: PaceSettings, now: float) -> None:
        """Other numbers hold from now on; what is open stays open."""
        self._at(now)
        self._compare_at = min(self._compare_at, self._now + settings.compare_every)
        self.settings = settings

    def _at(self, now: float) -> None:
        # Threads may deliver out of order by a little. A time that jumps back would call a hint older than it is, or
        # break min_interval.
        self._now = max(self._now, now)
