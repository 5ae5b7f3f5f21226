"""Removing a device whose credential was stolen: what the thief signed must not take its true history along.

Of a removed device counts what its entry's head stands on, and nothing else, for ever. So the head that is written down
must be the one that the true history stands on, not whatever has the highest number.
"""

from __future__ import annotations

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault.devices import RemovedDevice
from chatkeep.daemon.vault.epoch import DeviceEntry, Head
from chatkeep.daemon.vault.heads import read_entries
from chatkeep.daemon.vault.manifest import seal_manifest
from chatkeep.daemon.vault.names import MAX_SEQ, ManifestName
from tests.support.manifests import TestVault, make_manifest, make_vault, named
from tests.support.pruned import STREAM, PrunedVault, told


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault()


def forged(made: PrunedVault, seq: int, prev: bytes = b"x" * 32) -> Head:
    """What a thief of the credential puts into storage."""
    raw = seal_manifest(make_manifest(made.vault, time=9**9 + seq, clock=9), STREAM, seq, prev, made.vault.credential)
    name: ManifestName = named(made.vault, STREAM, seq, raw)
    made.put({str(name): raw})
    return Head(seq, name.sha256)


def entry(made: PrunedVault, *, ends: bool = True) -> tuple[DeviceEntry, list[ChatkeepError]]:
    ending = {made.device_id} if ends else set()
    entries, findings = read_entries(made.providers, made.records, {made.device_id: made.vault.cert}, ending)
    return entries[made.device_id], list(findings)


def removed(made: PrunedVault) -> list[int]:
    """What is read of the device after it was removed so."""
    found, _ = entry(made)
    made.rotate(found.heads, made.checkpoints[-1] if made.checkpoints else None, remove=True)
    assert made.removed == {made.device_id: RemovedDevice(made.vault.cert, made.records[-1].removed[made.device_id])}
    return made.walked()[0]


def test_number_out_of_thin_air_is_no_head(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    forged(made, MAX_SEQ)
    found, findings = entry(made)
    assert found.heads == {STREAM: made.head(6)}
    assert told(findings) == [("snapshots-missing", (7, MAX_SEQ))]
    assert removed(made) == [6, 5, 4, 3, 2, 1]


def test_nor_many_of_them(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    link = forged(made, 50)
    for seq in range(51, 55):
        link = forged(made, seq, link.sha256)
    forged(made, 90)
    assert removed(made) == [6, 5, 4, 3, 2, 1]


def test_rival_of_an_older_one_is_no_head(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    forged(made, 7, forged(made, 6).sha256)
    assert removed(made) == [6, 5, 4, 3, 2, 1]


def test_pruned_history_stands_on_its_checkpoint(vault: TestVault) -> None:
    made = PrunedVault(vault, 9)
    made.prune(7, 1, 7)
    forged(made, 31, forged(made, 30).sha256)
    assert removed(made) == [9, 8, 7, 1]


def test_what_a_checkpoint_keeps_stays_though_no_listing_shows_it(vault: TestVault) -> None:
    made = PrunedVault(vault, 7)
    made.prune(7, 1, 7)
    made.provider.unlisted = {str(made.name(seq)) for seq in (1, 7)}
    assert removed(made) == [7, 1]


def test_limit_a_thief_who_signs_more_than_there_is_wins_and_is_told(vault: TestVault) -> None:
    made = PrunedVault(vault, 3)
    link = forged(made, 8)
    for seq in (9, 10, 11):
        link = forged(made, seq, link.sha256)
    found, findings = entry(made)
    assert found.heads == {STREAM: Head(11, link.sha256)}
    assert told(findings) == [("snapshots-missing", (1, 7))]


def test_what_the_epoch_before_said_is_stood_on(vault: TestVault) -> None:
    """A longer history beside what a record names is not the device's."""
    made = PrunedVault(vault, 4)
    made.rotate({STREAM: made.head(3)}, None)
    link = made.head(1)
    for seq in range(2, 9):
        link = forged(made, seq, link.sha256)
    assert removed(made) == [4, 3, 2, 1]


def test_gap_in_the_true_history_costs_the_least(vault: TestVault) -> None:
    """One manifest was lost by storage: the longer part stays, and that the rest goes is told before it does."""
    made = PrunedVault(vault, 9)
    made.drop(3)
    found, findings = entry(made)
    assert found.heads == {STREAM: made.head(9)}
    assert told(findings) == [("snapshots-missing", (1, 3))]


def test_a_listing_that_is_old_costs_nothing(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    made.provider.unlisted = {str(made.name(seq)) for seq in (2, 3, 5)}
    assert removed(made) == [6, 5, 4, 3, 2, 1]


def test_device_that_stays_is_not_walked(vault: TestVault) -> None:
    """Its head is a lower bound, and one object a stream is enough."""
    made = PrunedVault(vault, 6)
    made.provider.verbs.clear()
    assert entry(made, ends=False)[0].heads == {STREAM: made.head(6)}
    assert [verb for verb, name in made.provider.verbs if "/s/" in name] == ["list", "get"]
