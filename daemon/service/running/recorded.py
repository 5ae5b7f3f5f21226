"""When things last went well, as far as is on record, before the records are opened."""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import Config
from chatkeep.daemon.service.job_notes import JobNotes
from chatkeep.daemon.service.telling.troubles import Known
from chatkeep.daemon.state.glance import Glance


def recorded(config: Config) -> Known:
    """What is not on record never went well, as far as anybody knows."""
    jobs = {name: note.good_ns for name, note in JobNotes(config.state_dir).read().items() if note.good_ns is not None}
    known = Known(jobs=jobs)
    try:
        with Glance(config.state_dir) as glance:
            compared = {name: note.last_success for name, note in glance.backups().items() if note.last_success}
            newest = {name: last.clock for name, last in glance.figures.sources().items() if last.clock is not None}
            had = {one.name: glance.figures.lag(one.name).newest for one in config.providers}
            acknowledged = {name: when for name, when in had.items() if when is not None}
            known = Known(compared, jobs, newest, acknowledged)
    except ChatkeepError:
        pass  # there are none yet, or none that can be read: whoever opens them tells
    return known
