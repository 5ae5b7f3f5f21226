"""Streams that cannot go on: ended without losing sight of what of them is in the vault.

A new stream starts with nothing, so everything of the source is read and sealed again. What an ended stream refers to
and every provider acknowledged is remembered as known first, and the new one refers to it instead of sending it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from chatkeep.daemon.backup.draft import decode_content
from chatkeep.daemon.backup.publish import parts_of, stored_layer
from chatkeep.daemon.backup.tables import remove_tables
from chatkeep.daemon.state import KnownBlob, State
from chatkeep.daemon.state.outbox import NOTHING_LOST
from chatkeep.daemon.state.pruning import CHECKPOINTS
from chatkeep.daemon.vault.layers import Layer, Reference


def begin_anew(
    state: State, streams: Iterable[bytes], providers: Collection[str], lost_from: Mapping[bytes, int] | None = None
) -> None:
    """End streams. What all of `providers` (every one that is configured) have of them is not sent again.

    `lost_from`: by stream, the first snapshot that cannot be sent any more; those before it are. Without: none is. In a
    chain that goes on elsewhere they would be a fork.
    """
    sound = state.known.sound_packs(providers)
    for stream in streams:
        known = [blob for blob in set(references(state, stream)) if blob.pack in sound]
        state.abandon(stream, known, lost_from=(lost_from or {}).get(stream, 1))
        remove_tables(state, stream)


def end_without_trace(state: State, streams: Iterable[bytes]) -> None:
    """End streams whose records say nothing true any more: what they refer to may be gone from the vault.

    So may what those refer to that ended before and still wait: they are not sent either.
    """
    state.known.clear()
    waiting = {item.stream for item in state.outbox.queue("")} - {CHECKPOINTS}
    for stream in sorted({*streams, *waiting}):
        state.abandon(stream)
        remove_tables(state, stream)


def references(state: State, stream: bytes) -> Iterator[KnownBlob]:
    """The blobs of content that the newest snapshot of a stream refers to, and what was sealed beyond it."""
    contents = [row.content for row in state.files(stream)] + [row.content for row in state.partials(stream).values()]
    for content in contents:
        for piece in decode_content(content or b""):
            if isinstance(piece.place, Reference):
                yield from _known(piece.place)
    for row in state.stack(stream):
        yield from of_sections(stored_layer(row))
    for file_id in state.databases(stream):
        for run in state.runs(stream, file_id):
            yield KnownBlob(run.blob, run.pack, run.slot)


def of_sections(layer: Layer) -> Iterator[KnownBlob]:
    """The blobs of pages that a layer refers to."""
    for section in layer.sections:
        for run in section.runs:
            yield from _known(run.reference)


def of_contents(layer: Layer) -> Iterator[KnownBlob]:
    """The chunks of files that a layer refers to."""
    for content in layer.contents:
        for extent in content.extents:
            if extent.reference is not None:
                yield from _known(extent.reference)


def _known(reference: Reference) -> Iterator[KnownBlob]:
    if reference.pack is not None:
        yield KnownBlob(reference.id, reference.pack, reference.slot)


def stands_on(state: State, stream: bytes) -> set[bytes]:
    """Hashes of the packs that the newest snapshot of a stream needs."""
    needed = {blob.pack for blob in references(state, stream)}
    for row in state.stack(stream):
        needed |= {pack for pack, _, _ in parts_of(row)}
    return needed


def heal(state: State, providers: Collection[str]) -> list[str]:
    """End the streams whose newest snapshot needs what does not open; returns their sources.

    All but the content of what failed is known then, so nothing else is sent again. What waits is sent: it is what was
    sealed, and all of it but what failed can be read.
    """
    failures = state.capsules.failures()
    packs = {failure.sha256 for failure in failures}
    ill = {}
    for stream, (source, _) in state.lineage.active().items():
        head = state.stream(source).head
        if head in packs or packs & stands_on(state, stream):
            ill[stream] = source
    begin_anew(state, ill, providers, dict.fromkeys(ill, NOTHING_LOST))
    return sorted(ill.values())
