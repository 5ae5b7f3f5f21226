"""A part of a plan, chosen at random: for trying a restore without fetching everything. Pure."""

from __future__ import annotations

import dataclasses
import random

from chatkeep.daemon.restore.plan import RestorePlan, figures_of
from chatkeep.daemon.vault.layers import FileKind


def sampled(plan: RestorePlan, fraction: float, dice: random.Random) -> RestorePlan:
    """The plan with only so much of its files (0 to 1); with every database, directory and link."""
    if fraction >= 1:
        return plan
    left_out = {own for own in sorted(plan.extents) if dice.random() >= fraction}
    # Its journal is part of a database.
    left_out -= {plan.paths.get(path + b"-journal", -1) for path, own in plan.paths.items() if own in plan.databases}
    paths = {path: own for path, own in plan.paths.items() if own not in left_out}
    extents = {own: found for own, found in plan.extents.items() if own not in left_out}
    files = {own: record for own, record in plan.files.items() if own not in left_out}
    kinds: list[FileKind] = [plan.files[own].kind for own in paths.values()]
    return dataclasses.replace(
        plan, paths=paths, files=files, extents=extents, figures=figures_of(kinds, extents, plan.databases)
    )
