"""Reading a vault from storage that loses, damages, hides, invents and answers late."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault import reader as module
from chatkeep.daemon.vault.blob import BlobKind, BlobRef, IdKeys, compress
from chatkeep.daemon.vault.errors import AuthenticationFailed, Unreadable, VaultLocked
from chatkeep.daemon.vault.manifest import Manifest, NewPack, StackLayer, seal_manifest
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.daemon.vault.pack import PackWriter
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from chatkeep.providers.base import Provider, Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.manifests import Keys, TestVault, add_device, make_chain, make_manifest, make_vault, named
from tests.support.memory_provider import MemoryProvider

STREAM = b"stream-of-a-test"


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault()


def stored(chain: dict[ManifestName, bytes], *names: str) -> list[MemoryProvider]:
    """Providers of these names, each with all of a chain."""
    providers = [MemoryProvider(name) for name in names]
    for provider in providers:
        provider.objects.update({str(name): raw for name, raw in chain.items()})
    return providers


def walked(vault: TestVault, *providers: Provider) -> tuple[list[int], list[tuple[str, object]]]:
    """The sequence numbers a reader gets, and the findings as (code, what identifies it)."""
    chain = VaultReader(providers, Keys(vault)).chain(Stream(vault.credential.device_id, STREAM))
    seqs = [one.header.seq for one in chain.walk()]
    return seqs, codes(chain.findings)


def codes(findings: Iterable[ChatkeepError]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for one in findings:
        params = one.params
        about = (params["first"], params["last"]) if "first" in params else params.get("seq", params.get("provider"))
        found.append((one.code, about))
    return found


def flip(provider: MemoryProvider, name: object, place: int = 5000) -> None:
    changed = bytearray(provider.objects[str(name)])
    changed[place % len(changed)] ^= 1
    provider.objects[str(name)] = bytes(changed)


def test_a_whole_chain_comes_newest_first_without_findings(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 5)
    assert walked(vault, *stored(chain, "a")) == ([5, 4, 3, 2, 1], [])
    assert walked(vault, *stored({}, "a")) == ([], [])


def test_manifests_are_fetched_as_they_are_drawn(vault: TestVault) -> None:
    (provider,) = stored(make_chain(vault, STREAM, 5), "a")
    reader = VaultReader([provider], Keys(vault))
    walking = reader.chain(Stream(vault.credential.device_id, STREAM)).walk()
    next(walking)
    assert [verb for verb, _ in provider.verbs] == ["list", "list", "get"]  # of checkpoints, of manifests


def test_a_listing_that_is_old_hides_nothing_below_the_newest(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 5)
    (provider,) = stored(chain, "a")
    provider.unlisted = {str(name) for name in chain if name.seq != 5}
    assert walked(vault, provider) == ([5, 4, 3, 2, 1], [])


def test_streams_and_newest_are_found_in_all_providers_together(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 5)
    other = make_chain(vault, b"another-stream!!", 1)
    behind, ahead = stored({name: raw for name, raw in chain.items() if name.seq <= 3}, "behind", "ahead")
    ahead.objects = {str(name): raw for name, raw in {**chain, **other}.items() if name.seq != 2}
    ahead.objects["d/strange"] = behind.objects["d/strange"] = b""
    device = vault.credential.device_id
    reader = VaultReader([behind, ahead], Keys(vault))
    assert reader.streams() == [Stream(device, b"another-stream!!"), Stream(device, STREAM)]
    assert walked(vault, behind, ahead) == ([5, 4, 3, 2, 1], [])
    assert walked(vault, ahead, behind) == ([5, 4, 3, 2, 1], [])
    assert len(reader.findings) == 0


def test_a_snapshot_that_is_gone_is_told_and_older_ones_are_found(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 6)
    (provider,) = stored({name: raw for name, raw in chain.items() if name.seq not in (3, 4)}, "a")
    seqs, findings = walked(vault, provider)
    assert seqs == [6, 5, 2, 1]
    assert ("snapshots-missing", (3, 4)) in findings
    assert [code for code, _ in findings] == ["missing-object", "snapshots-missing"]


def test_the_oldest_that_are_gone_are_told(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 4)
    (provider,) = stored({name: raw for name, raw in chain.items() if name.seq > 2}, "a")
    seqs, findings = walked(vault, provider)
    assert seqs == [4, 3]
    assert findings[-1] == ("snapshots-missing", (1, 2))


def test_a_damaged_copy_is_told_and_made_up_for_by_another(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 3)
    a, b = stored(chain, "a", "b")
    for name in chain:
        flip(a, name)
    seqs, findings = walked(vault, a, b)
    assert seqs == [3, 2, 1]
    assert findings == [("object-mismatch", "a")] * 3


def test_a_manifest_damaged_everywhere_breaks_the_chain(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 4)
    a, b = stored(chain, "a", "b")
    third = list(chain)[2]
    flip(a, third)
    del b.objects[str(third)]
    seqs, findings = walked(vault, a, b)
    assert seqs == [4, 2, 1]
    assert findings == [("object-mismatch", "a"), ("unreadable", None), ("snapshots-missing", (3, 3))]


def test_a_newest_that_is_damaged_everywhere_is_told_and_the_one_before_taken(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 3)
    (a,) = stored(chain, "a")
    flip(a, list(chain)[2])
    assert walked(vault, a) == ([2, 1], [("object-mismatch", "a"), ("unreadable", None)])


def test_a_manifest_put_under_another_place_is_refused(vault: TestVault) -> None:
    """Storage shows the true bytes of snapshot 2 as a snapshot 4: rollback by renaming."""
    chain = make_chain(vault, STREAM, 3)
    (a,) = stored(chain, "a")
    second = list(chain)[1]
    a.objects[str(ManifestName(second.device_id, STREAM, 4, second.sha256))] = chain[second]
    seqs, findings = walked(vault, a)
    assert seqs == [3, 2, 1]
    assert findings == [("malformed", "a"), ("unreadable", None)]


def test_what_storage_invents_is_told_and_passed_over(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 2)
    stranger = make_vault(device_id=vault.credential.device_id)
    forged = make_chain(stranger, STREAM, 3)
    (a,) = stored(chain, "a")
    a.objects.update({str(name): raw for name, raw in forged.items()})
    noise = random.Random(31).randbytes(8192)
    a.objects[str(named(vault, STREAM, 999_999_999_999, noise))] = noise
    seqs, findings = walked(vault, a)
    assert seqs == [2, 1]
    assert [code for code, _ in findings] == [
        *("malformed", "unreadable"),
        *("wrong-vault", "unreadable"),
        *("wrong-vault", "unreadable"),
        *("wrong-vault", "unreadable"),
    ]


def test_another_device_of_the_vault_cannot_add_to_this_stream(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 2)
    other = add_device(vault, vault.credential.device_id)  # signs with its own key under this device's id
    raw = seal_manifest(make_manifest(other), STREAM, 3, list(chain)[1].sha256, other.credential)
    (a,) = stored({**chain, named(other, STREAM, 3, raw): raw}, "a")
    assert walked(vault, a) == ([2, 1], [("authentication-failed", "a"), ("unreadable", None)])


def test_a_fork_is_told_and_the_chain_of_the_newest_is_kept(vault: TestVault) -> None:
    """A cloned machine: both wrote a third snapshot, one wrote a fourth."""
    chain = make_chain(vault, STREAM, 4)
    names = list(chain)
    rival = seal_manifest(make_manifest(vault), STREAM, 3, names[1].sha256, vault.credential)
    (a,) = stored({**chain, named(vault, STREAM, 3, rival): rival}, "a")
    reader = VaultReader([a], Keys(vault))
    walking = reader.chain(Stream(vault.credential.device_id, STREAM))
    assert [one.name for one in walking.walk()] == names[::-1]
    (fork,) = walking.findings
    assert fork.code == "fork-detected"
    assert fork.params["seq"] == 3
    assert set(fork.params["names"]) == {str(names[2]), str(named(vault, STREAM, 3, rival))}  # type: ignore[call-overload]


def test_two_newest_are_a_fork(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 2)
    rival = seal_manifest(make_manifest(vault), STREAM, 2, next(iter(chain)).sha256, vault.credential)
    (a,) = stored({**chain, named(vault, STREAM, 2, rival): rival}, "a")
    assert walked(vault, a) == ([2, 1], [("fork-detected", 2)])


def test_a_provider_that_is_down_is_told_once_and_the_other_serves(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 4)
    a, b = stored(chain, "a", "b")
    down = FaultyProvider(a, Fault("get", Unavailable(provider="a"), times=None))
    assert walked(vault, down, b) == ([4, 3, 2, 1], [("unavailable", "a")])
    assert down.faults[0].fired == 4


def test_what_a_provider_that_is_down_may_have_is_not_called_missing(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 3)
    a, b = stored(chain, "a", "b")
    second = list(chain)[1]
    del b.objects[str(second)]
    down = FaultyProvider(a, Fault("get", Unavailable(provider="a"), about=str(second), times=None))
    seqs, findings = walked(vault, down, b)
    assert seqs == [3, 1]
    assert [code for code, _ in findings] == ["unavailable", "unreadable", "snapshots-missing"]
    assert down.faults[0].fired == 1


def test_listings_fail_one_by_one_and_all_together(vault: TestVault) -> None:
    chain = make_chain(vault, STREAM, 2)
    a, b = stored(chain, "a", "b")
    down = FaultyProvider(a, Fault("list", Unavailable(provider="a"), times=None))
    assert walked(vault, down, b)[0] == [2, 1]
    with pytest.raises(Unavailable):
        walked(vault, down)
    with pytest.raises(Unavailable):
        VaultReader([down], Keys(vault)).streams()
    assert down.faults[0].fired == 3


def test_a_device_without_a_certificate_has_no_chain(vault: TestVault) -> None:
    with pytest.raises(AuthenticationFailed):
        VaultReader([MemoryProvider()], Keys(vault)).chain(Stream(bytes(16), STREAM))


def opened(vault: TestVault, *providers: Provider) -> tuple[list[int], list[tuple[str, object]]]:
    reader = VaultReader(providers, Keys(vault))
    chain = reader.chain(Stream(vault.credential.device_id, STREAM))
    return [one.header.seq for one in reader.snapshots(chain)], codes(chain.findings)


def test_snapshots_are_opened_and_a_clock_that_runs_backwards_is_told(vault: TestVault) -> None:
    chain: dict[ManifestName, bytes] = {}
    prev = bytes(32)
    for seq, time in ((1, 100), (2, 300), (3, 200)):
        raw = seal_manifest(make_manifest(vault, time=time, clock=time), STREAM, seq, prev, vault.credential)
        name = named(vault, STREAM, seq, raw)
        chain[name], prev = raw, name.sha256
    assert opened(vault, *stored(chain, "a")) == ([3, 2, 1], [("malformed", None)])


def test_nothing_is_read_once_the_vault_is_locked(vault: TestVault) -> None:
    (a,) = stored(make_chain(vault, STREAM, 2), "a")
    keys = Keys(vault)
    reader = VaultReader([a], keys)
    reading = reader.snapshots(reader.chain(Stream(vault.credential.device_id, STREAM)))
    next(reading)
    keys.locked = True
    with pytest.raises(VaultLocked):
        next(reading)


BLOBS = [(BlobKind.CHUNK, random.Random(n).randbytes(40_000)) for n in range(6)]
LAYERS = [(BlobKind.LAYER, bytes([n]) * 900) for n in range(3)]


class Filled:
    """Providers "a" and "b" with two packs and a manifest of one device."""

    def __init__(self, vault: TestVault, folder: Path) -> None:
        credential = vault.credential
        ids = IdKeys(credential.id_key.view())
        self.providers = stored({}, "a", "b")
        self.refs: list[list[BlobRef]] = []
        self.packs: list[PackName] = []
        for number, blobs in enumerate((BLOBS[:4] + LAYERS, BLOBS[4:] + LAYERS[:1])):
            pack = PackWriter(folder / str(number), credential.public, vault.vault_id, 1, credential.device_id)
            for kind, content in blobs:
                pack.add(kind, ids.id(kind, content), *compress(kind, content, 1), len(content))
            sealed = pack.finish(ids)
            self.refs.append([BlobRef(sealed.sha256, n, ids.id(*blob)) for n, blob in enumerate(blobs)])
            self.packs.append(PackName(credential.device_id, sealed.sha256))
            for provider in self.providers:
                provider.put(str(self.packs[-1]), sealed.path.read_bytes())
        self.first, self.second = self.refs
        # Parts of a layer, not in the order of slots and in two packs.
        self.layer = StackLayer(0, 1, 1, (self.first[5], self.first[6], self.first[4], self.second[2]))
        body = make_manifest(
            vault, stack=(self.layer,), packs=tuple(NewPack(pack.sha256, 1 << 18) for pack in self.packs)
        )
        raw = seal_manifest(body, STREAM, 1, bytes(32), credential)
        for provider in self.providers:
            provider.put(str(named(vault, STREAM, 1, raw)), raw)
            provider.verbs.clear()
        self.keys = Keys(vault)
        self.reader = VaultReader(self.providers, self.keys)
        self.stream = Stream(credential.device_id, STREAM)
        (self.snapshot,) = self.reader.snapshots(self.reader.chain(self.stream))

    def chunks(self) -> list[BlobRef]:
        return self.first[:4] + self.second[:2]

    def fetched(self, refs: list[BlobRef]) -> list[bytes]:
        return [content for _, content in self.reader.fetch_blobs(self.snapshot, BlobKind.CHUNK, refs)]


@pytest.fixture
def filled(vault: TestVault, tmp_path: Path) -> Filled:
    return Filled(vault, tmp_path)


ALL = [content for _, content in BLOBS]


def test_a_snapshot_carries_what_reading_needs(filled: Filled) -> None:
    assert isinstance(filled.snapshot, Snapshot)
    assert isinstance(filled.snapshot.manifest, Manifest)
    assert filled.snapshot.manifest.stack == (filled.layer,)


def test_parts_of_a_layer_come_in_their_order(filled: Filled) -> None:
    parts = list(filled.reader.fetch_parts(filled.snapshot, filled.layer))
    assert [ref for ref, _ in parts] == list(filled.layer.parts)
    assert [content[0] for _, content in parts] == [1, 2, 0, 0]
    assert len(filled.reader.findings) == 0


def test_blobs_come_pack_by_pack_and_each_pack_is_opened_once(filled: Filled) -> None:
    refs = filled.chunks()
    shuffled = [refs[n] for n in (3, 5, 0, 1, 4, 2, 3)]
    assert filled.fetched(shuffled) == ALL
    assert filled.fetched(refs[:1]) == ALL[:1]
    gets = [name for verb, name in filled.providers[0].verbs if verb == "get" and "/p/" in name]
    assert len(gets) == 5  # two tails, two ranges, one range more
    assert not [verb for verb, name in filled.providers[1].verbs if "/p/" in name]


def test_directories_of_few_packs_are_kept(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN_PACKS", 1)
    for _ in range(2):
        assert filled.fetched(filled.chunks()) == ALL
    tails = [name for verb, name in filled.providers[0].verbs if verb == "get" and "/p/" in name]
    assert len(tails) == 8


@pytest.mark.parametrize("place", [100, 90_000, -1300, -1000, -1])
def test_a_damaged_pack_is_told_and_the_blobs_come_from_the_other_provider(filled: Filled, place: int) -> None:
    flip(filled.providers[0], filled.packs[0], place)
    assert filled.fetched(filled.chunks()) == ALL
    (finding,) = filled.reader.findings
    assert finding.params["provider"] == "a"
    assert finding.params["name"] == str(filled.packs[0])


def test_each_provider_may_have_lost_other_blobs_of_one_pack(filled: Filled) -> None:
    flip(filled.providers[0], filled.packs[0], 50_000)  # slot 1
    flip(filled.providers[1], filled.packs[0], 130_000)  # slot 3
    flip(filled.providers[1], filled.packs[0], 10)  # slot 0
    assert filled.fetched(filled.chunks()) == ALL
    assert {finding.params["provider"] for finding in filled.reader.findings} == {"a", "b"}


def test_a_blob_that_nobody_has_is_an_error_that_names_it(filled: Filled) -> None:
    for provider in filled.providers:
        flip(provider, filled.packs[0], 50_000)
    reading = filled.reader.fetch_blobs(filled.snapshot, BlobKind.CHUNK, filled.chunks())
    assert next(reading)[1] == ALL[0]
    with pytest.raises(Unreadable) as caught:
        list(reading)
    assert caught.value.params["slot"] == 1
    assert caught.value.params["name"] == str(filled.packs[0])
    assert caught.value.params["reasons"] == {"a": "authentication-failed", "b": "authentication-failed"}
    assert filled.fetched(filled.first[2:4]) == ALL[2:4]  # the others are still read


def test_a_pack_that_is_gone_or_out_of_reach_is_taken_elsewhere(filled: Filled) -> None:
    a, b = filled.providers
    del a.objects[str(filled.packs[0])]
    down = FaultyProvider(a, Fault("get", Unavailable(provider="a"), about=str(filled.packs[1]), times=None))
    reader = VaultReader([down, b], filled.keys)
    contents = [content for _, content in reader.fetch_blobs(filled.snapshot, BlobKind.CHUNK, filled.chunks())]
    assert contents == ALL
    assert codes(reader.findings) == [("object-not-found", "a"), ("unavailable", "a")]
    assert down.faults[0].fired == 1
    with pytest.raises(Unreadable):
        list(VaultReader([down], filled.keys).fetch_blobs(filled.snapshot, BlobKind.CHUNK, filled.chunks()))


def test_a_reference_of_another_kind_or_to_two_contents_is_refused(filled: Filled) -> None:
    with pytest.raises(Unreadable):
        list(filled.reader.fetch_blobs(filled.snapshot, BlobKind.PAGES, filled.first[:1]))
    with pytest.raises(Unreadable):
        filled.fetched([filled.first[0], filled.first[0]._replace(id=bytes(32))])


def test_a_pack_of_another_device_is_not_read(filled: Filled, vault: TestVault, tmp_path: Path) -> None:
    """A rogue device cannot stand in for this one's packs: names and footers carry the device."""
    other = add_device(vault)
    ids = IdKeys(other.credential.id_key.view())
    pack = PackWriter(tmp_path / "rogue", vault.credential.public, vault.vault_id, 1, other.credential.device_id)
    pack.add(BlobKind.CHUNK, filled.first[0].id, 0, b"", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PackWriter, "_check", lambda *_: filled.packs[0].sha256)
        rogue = pack.finish(ids)
    for provider in filled.providers:
        provider.objects[str(filled.packs[0])] = rogue.path.read_bytes()
    with pytest.raises(Unreadable):
        filled.fetched(filled.first[:1])
    assert codes(filled.reader.findings) == [("malformed", "a"), ("malformed", "b")]


def test_no_blob_is_read_once_the_vault_is_locked(filled: Filled) -> None:
    filled.keys.locked = True
    with pytest.raises(VaultLocked):
        filled.fetched(filled.chunks())
