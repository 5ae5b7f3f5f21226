"""What the next epoch record says of each device: the newest that any provider has, and never less than before."""

from __future__ import annotations

import hashlib

import pytest

from chatkeep.daemon.vault.checkpoint import Checkpoint, sign_checkpoint
from chatkeep.daemon.vault.epoch import DeviceEntry, EpochRecord, Head, create_record
from chatkeep.daemon.vault.heads import read_entries
from chatkeep.daemon.vault.manifest import seal_manifest
from chatkeep.daemon.vault.names import CheckpointName, ManifestName
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.manifests import TestVault, add_device, make_chain, make_manifest, make_vault, named
from tests.support.memory_provider import MemoryProvider

ONE, TWO = b"1" * 16, b"2" * 16


@pytest.fixture
def vault() -> TestVault:
    return make_vault()


def stored(*objects: dict[ManifestName, bytes]) -> MemoryProvider:
    provider = MemoryProvider()
    provider.objects = {str(name): raw for some in objects for name, raw in some.items()}
    return provider


def entry(
    vault: TestVault, *providers: MemoryProvider, records: tuple[EpochRecord, ...] = ()
) -> tuple[DeviceEntry, list[str]]:
    device = vault.credential.device_id
    entries, findings = read_entries(providers, records or (vault.record,), {device: vault.cert})
    assert set(entries) == {device}
    return entries[device], [one.code for one in findings]


def head(chain: dict[ManifestName, bytes], seq: int) -> Head:
    (name,) = [name for name in chain if name.seq == seq]
    return Head(seq, name.sha256)


def test_newest_of_every_stream(vault: TestVault) -> None:
    one, two = make_chain(vault, ONE, 3), make_chain(vault, TWO, 1)
    found, findings = entry(vault, stored(one, two))
    assert found == DeviceEntry(vault.cert.sha256, {ONE: head(one, 3), TWO: head(two, 1)}, None)
    assert findings == []


def test_device_without_a_snapshot(vault: TestVault) -> None:
    assert entry(vault, MemoryProvider()) == (DeviceEntry(vault.cert.sha256, {}, None), [])


def test_provider_that_is_behind_does_not_hold_it_back(vault: TestVault) -> None:
    chain = make_chain(vault, ONE, 3)
    behind = {name: raw for name, raw in chain.items() if name.seq < 3}
    for providers in ((stored(behind), stored(chain)), (stored(chain), stored(behind))):
        assert entry(vault, *providers)[0].heads == {ONE: head(chain, 3)}


def test_what_the_device_did_not_sign_is_no_head(vault: TestVault) -> None:
    chain = make_chain(vault, ONE, 2)
    forger = add_device(vault, vault.credential.device_id)  # the same id, another key
    raw = seal_manifest(make_manifest(forger, time=9, clock=9), ONE, 9, head(chain, 2).sha256, forger.credential)
    provider = stored(chain, {named(forger, ONE, 9, raw): raw})
    found, findings = entry(vault, provider)
    assert found.heads == {ONE: head(chain, 2)}
    assert findings == ["authentication-failed"]


def test_damaged_newest_is_told_and_the_one_before_counts(vault: TestVault) -> None:
    chain = make_chain(vault, ONE, 2)
    provider = stored(chain)
    newest = str(ManifestName(vault.credential.device_id, ONE, 2, head(chain, 2).sha256))
    provider.objects[newest] = provider.objects[newest][:-1]
    found, findings = entry(vault, provider)
    assert found.heads == {ONE: head(chain, 1)}
    assert findings == ["object-mismatch"]


def test_two_of_one_number_are_a_fork_and_one_of_them_is_chosen(vault: TestVault) -> None:
    chain = make_chain(vault, ONE, 2)
    raw = seal_manifest(make_manifest(vault, time=7, clock=7), ONE, 2, head(chain, 1).sha256, vault.credential)
    rival = hashlib.sha256(raw).digest()
    found, findings = entry(vault, stored(chain, {named(vault, ONE, 2, raw): raw}))
    assert found.heads == {ONE: Head(2, min(rival, head(chain, 2).sha256))}
    assert findings == ["fork-detected"]


def second(vault: TestVault, heads: dict[bytes, Head], checkpoint: Head | None = None) -> EpochRecord:
    listed = {vault.credential.device_id: DeviceEntry(vault.cert.sha256, heads, checkpoint)}
    return create_record(make_vault().keys, vault.vault_id, (vault.record, vault.keys), {}, listed)


def test_nothing_that_was_said_before_is_taken_back(vault: TestVault) -> None:
    chain = make_chain(vault, ONE, 3)
    behind = {name: raw for name, raw in chain.items() if name.seq == 1}
    record = second(vault, {ONE: head(chain, 3), TWO: Head(5, b"h" * 32)})
    found, _ = entry(vault, stored(behind), records=(vault.record, record))
    assert found.heads == {ONE: head(chain, 3), TWO: Head(5, b"h" * 32)}


def test_newest_checkpoint(vault: TestVault) -> None:
    device, provider = vault.credential.device_id, MemoryProvider()
    prev, heads = bytes(32), []
    for number in (1, 2):
        checkpoint = Checkpoint(number, prev, 1_700_000_000_000_000_000, (), (), ())
        raw = sign_checkpoint(checkpoint, device, vault.record, vault.keys.checkpoint)
        prev = hashlib.sha256(raw).digest()
        provider.objects[str(CheckpointName(device, number, prev))] = raw
        heads.append(Head(number, prev))
    assert entry(vault, provider)[0].checkpoint == heads[1]
    # What an older epoch listed is a floor; the keys of that epoch sign nothing beyond it any more.
    record = second(vault, {}, heads[0])
    assert entry(vault, provider, records=(vault.record, record))[0].checkpoint == heads[0]
    assert entry(vault, MemoryProvider(), records=(vault.record, record))[0].checkpoint == heads[0]


@pytest.mark.parametrize("verb", ["list", "get"])
def test_provider_that_fails_is_not_passed_over(vault: TestVault, verb: str) -> None:
    provider = stored(make_chain(vault, ONE, 1))
    fault = Fault("list" if verb == "list" else "get", Unavailable(provider="one"), times=None)
    device = vault.credential.device_id
    with pytest.raises(Unavailable):
        read_entries([FaultyProvider(provider, fault), provider], (vault.record,), {device: vault.cert})
    assert fault.fired
