"""Carrying out a plan: fetch, write, prove, name. Interrupted at any instant it leaves the target as it was or, when
files were already being given their names, goes on from there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.restore import place
from chatkeep.daemon.restore.attributes import Attributes, AttributeWriter, Unset
from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.errors import TargetExists, TargetInsideSource, writing
from chatkeep.daemon.restore.fill import Fetch, Filled, Filling
from chatkeep.daemon.restore.plan import RestorePlan
from chatkeep.daemon.restore.staging import PREFIX, Staging
from chatkeep.daemon.vault.blob import IdKeys
from chatkeep.daemon.vault.layers import FileKind


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the blobs of one snapshot come from.

    Attributes:
        short_id: names the snapshot among others at the target.
        fetch: blobs with their plaintext.
        ids: the keys of the device's blob ids.
        source_path: what was backed up, when it was of this machine; nothing is restored into its inside.
    """

    short_id: str
    fetch: Fetch
    ids: IdKeys = field(repr=False)
    source_path: bytes | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """How to restore.

    Attributes:
        overwrite: replace files that stand in the way. Nothing else in the target is touched.
        salvage: go on when something is damaged, leave out the files that need it, and report them.
        attributes: what to give back beside mode and times.
    """

    overwrite: bool = False
    salvage: bool = False
    attributes: Attributes = field(default_factory=Attributes)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored. `reused`: files an interrupted attempt had left whole. `damaged`: path and error of what was
    left out. `unset`: attributes that could not be given back, the first thousand of `unset_count`."""

    files: int
    content: int
    reused: int
    pending: tuple[bytes, ...]
    stale: tuple[bytes, ...]
    damaged: tuple[tuple[bytes, ChatkeepError], ...]
    unset: tuple[Unset, ...]
    unset_count: int


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


def apply(
    plan: RestorePlan,
    origin: Origin,
    target: bytes,
    choices: Choices | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = bool,
) -> RestoreReport:
    """Restore into the directory `target`, whose parent must exist.

    Everything is first written and proven in a staging directory. If the target does not exist, that becomes the
    target in one step. If it exists, the files move into it; with a plan of the whole snapshot it must be empty unless
    `overwrite` is set. After an interruption the same call goes on: what is whole is not fetched again.

    Args:
        progress: told bytes done and bytes in all, now and then, from this thread.
        cancelled: asked now and then, from this thread.

    Raises:
        RestoreError: as the branch says. The target is as it was, but for TargetUnwritable and NoSpace raised while
            files get their names, which a repeated call continues.
        VaultError: something could not be read whole from any provider, and `salvage` is not set. Cancelled.

        With the parameter staging, each of them: the directory that holds what was written until then.
    """
    choices = choices or Choices()
    with writing(target):
        path = os.path.realpath(target)  # fails where the current directory was removed
        exists = _stands(path)
    _refuse_inside(path, origin)
    above, name = os.path.split(path)
    short_id = origin.short_id.encode("ascii")
    with _opened(path if exists else above) as around:
        if exists:
            resumes = Staging.resumes(around, short_id)
            _refuse_full(plan, path, around, overwrite=choices.overwrite or resumes)
        with Staging(around, path if exists else above, short_id) as staging, _telling(staging):
            attributes = AttributeWriter(choices.attributes)
            filled = Filling(
                plan,
                staging,
                attributes,
                origin.fetch,
                origin.ids,
                salvage=choices.salvage,
                progress=progress or _silent,
                cancelled=cancelled,
            ).run(around if exists else None)
            staging.finished()
            if exists:
                place.place_each(filled.plan, staging, around, attributes)
                staging.remove()
                place.finish_target(filled.plan, around, attributes)
            else:
                place.place_whole(filled.plan, staging, around, name, attributes)
                staging.remove()
            return _report(filled, attributes)


@contextlib.contextmanager
def _telling(staging: Staging) -> Iterator[None]:
    """Has an error say where the files lie that were written until then: they are plaintext, under a name that is not
    shown by `ls`, and nothing of ours removes them but the same restore."""
    try:
        yield
    except ChatkeepError as exc:
        if staging.holds_anything():
            exc.params.setdefault("staging", staging.path)
        raise


def _stands(path: bytes) -> bool:
    """Whether something has this name. Raises OSError for one that nothing can have: too long, below a file."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _opened(path: bytes) -> Beneath:
    with writing(path):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise TargetExists(path=path, reason="kind")
        # Links that the person named were followed above; one that turns up since is somebody else's.
        return Beneath.without_links(path)


def _refuse_inside(path: bytes, origin: Origin) -> None:
    if origin.source_path is None:
        return
    source = os.path.realpath(origin.source_path)
    # The source itself is where people want their files back; a directory in it would be backed up in turn.
    if path != source and path.startswith(source.rstrip(b"/") + b"/"):
        raise TargetInsideSource(path=path, source=source)


def _refuse_full(plan: RestorePlan, path: bytes, target: Beneath, *, overwrite: bool) -> None:
    whole = not plan.partial and not overwrite
    if whole and any(not os.fsencode(name).startswith(PREFIX) for name in os.listdir(target.fd)):
        raise TargetExists(path=path, reason="not-empty")
    place.refuse_conflicts(plan, target, overwrite=overwrite)


def _report(filled: Filled, attributes: AttributeWriter) -> RestoreReport:
    plan = filled.plan
    known: list[tuple[bytes, ChatkeepError]] = []
    for fault in plan.faults:
        path = fault.params.get("path", b"")
        known.append((path if isinstance(path, bytes) else b"", fault))
    return RestoreReport(
        files=sum(1 for own in plan.paths.values() if plan.files[own].kind is not FileKind.DIRECTORY),
        content=filled.written,
        reused=filled.reused,
        pending=plan.pending,
        stale=plan.stale,
        damaged=(*known, *filled.damaged),
        unset=tuple(attributes.unset),
        unset_count=attributes.failures,
    )
