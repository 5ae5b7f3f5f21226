"""What the vault has of this device, read back with the vault's key after the records of it were lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.backup.anew import end_without_trace, of_contents, of_sections
from chatkeep.daemon.state import KnownBlob, State
from chatkeep.daemon.vault.errors import Malformed, VaultError, VaultLocked
from chatkeep.daemon.vault.layers import Layer
from chatkeep.daemon.vault.names import PackName, pack_prefix, parse
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.stack import read_layers
from chatkeep.providers.base import Provider, ProviderError

Step: TypeAlias = Callable[[int, int], None]


@dataclass
class Rebuilt:
    """What was found.

    Attributes:
        streams: chains of this device that have a snapshot.
        blobs, content: what need not be sent again, distinct blobs and their bytes before compression.
        lacking: blobs that the newest snapshots have and that not every provider has.
        findings: what was wrong in storage.
    """

    streams: list[bytes] = field(default_factory=list)
    blobs: int = 0
    content: int = 0
    lacking: int = 0
    findings: list[ChatkeepError] = field(default_factory=list)


def rebuild(
    state: State,
    reader: VaultReader,
    providers: Sequence[Provider],
    device_id: bytes,
    step: Step = lambda done, total: None,  # noqa: ARG005  # nobody watches
) -> Rebuilt:
    """Fills what is known of the vault from the newest snapshot of every chain of this device, and ends its chains: the
    next backup begins new ones, and refers to what is there.

    A blob counts as there when each of `providers`, all that are configured, has its pack: by its own word, or, while
    it cannot be asked, by the receipts that the records still have.

    Raises:
        ProviderError: one cannot be asked, and there are no receipts of it.
        StateError; VaultError: as unlocking and reading do. Then nothing was changed.
    """
    there = _packs_everywhere(state, providers, device_id) - state.known.refused()
    found = Rebuilt()
    every: dict[KnownBlob, int] = {}
    own = [stream for stream in reader.streams() if stream.device_id == device_id]
    for number, stream in enumerate(own):
        step(number, len(own))
        chain = reader.chain(stream)
        for snapshot in reader.snapshots(chain):
            blobs = _blobs(reader, snapshot, found)
            if blobs is not None:
                every |= blobs
                found.streams.append(stream.stream_id)
                break
        found.findings += chain.findings
    found.findings += reader.findings
    known = {blob: size for blob, size in every.items() if blob.pack in there}
    end_without_trace(state, state.lineage.active())
    state.known.add(known)
    found.blobs, found.content, found.lacking = len(known), sum(known.values()), len(every) - len(known)
    return found


def _packs_everywhere(state: State, providers: Sequence[Provider], device_id: bytes) -> set[bytes]:
    everywhere: set[bytes] | None = None
    for provider in providers:
        try:
            packs = set(_packs(provider, device_id))
        except ProviderError:
            packs = state.known.acknowledged([provider.name])
            if not packs:
                raise
        everywhere = packs if everywhere is None else everywhere & packs
    return everywhere or set()


def _packs(provider: Provider, device_id: bytes) -> Iterator[bytes]:
    for shown in provider.list(pack_prefix(device_id)):
        try:
            name = parse(shown.name)
        except Malformed:
            continue
        if isinstance(name, PackName):
            yield name.sha256


def _blobs(reader: VaultReader, snapshot: Snapshot, found: Rebuilt) -> dict[KnownBlob, int] | None:
    """What a snapshot refers to, with sizes; None when it cannot be read to the end: the one before has as much."""
    blobs: dict[KnownBlob, int] = {}
    try:
        for layer in read_layers(reader, snapshot):
            blobs |= _sized(layer)
    except VaultLocked:
        raise
    except VaultError as exc:
        found.findings.append(exc)
        return None
    return blobs


def _sized(layer: Layer) -> dict[KnownBlob, int]:
    chunks = [extent.length for one in layer.contents for extent in one.extents if extent.reference is not None]
    pages = [run.count * section.page_size for section in layer.sections for run in section.runs]
    sized = dict(zip(of_contents(layer), chunks, strict=True))
    return sized | dict(zip(of_sections(layer), pages, strict=True))
