"""True objects in wrong places, old storage, forged epochs: the exact verdict on each, the honest "cannot know" too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.vault.checkpoint import Checkpoint, SnapshotId, StreamKept, sign_checkpoint
from chatkeep.daemon.vault.epoch import DeviceCert, EpochRecord, ListedSlot, create_record
from chatkeep.daemon.vault.names import CheckpointName, DeviceName, EpochName, ManifestName, PackName, SlotName
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.daemon.verify.scrub import scrub
from tests.malice.conftest import Attempts
from tests.support.forging import Thief, file_record, part
from tests.support.hostile_vault import Answer, HostileVault, ask, key_of
from tests.support.vaults import recovery

Changes = Mapping[str, bytes | None]


def verdict(vault: HostileVault, changes: Changes, *, lossy: bool = False, forged: bytes | None = None) -> Answer:
    return ask(vault, vault.storage(changes), noticed=False, lossy=lossy, forged=forged)


def codes(answer: Answer) -> set[str]:
    return set(answer.told)


def pairs(names: list[str]) -> Iterable[tuple[str, str]]:
    return [(one, other) for one in names for other in names if one != other]


# --- objects under each other's names


def test_every_object_under_every_other_name(vault: HostileVault, attempts: Attempts) -> None:
    for name, source in attempts.some(pairs(sorted(vault.objects)), 100):
        if not name.startswith("vault/"):
            ask(vault, vault.storage({name: vault.objects[source]}))


def test_a_pack_under_the_name_of_another(vault: HostileVault, attempts: Attempts) -> None:
    for name, source in attempts.some(pairs(vault.names(PackName)), 40):
        answer = ask(vault, vault.storage({name: vault.objects[source]}))
        # Of one device each opens, and holds other blobs; of another the footer says so. A pack that was pruned, or
        # that only an older snapshot needs, is found by the hash.
        assert codes(answer) <= {"malformed", "authentication-failed", "unreadable", "object-mismatch"}


def test_a_manifest_moved(vault: HostileVault, attempts: Attempts) -> None:
    """To another stream, number or device, under its own hash."""
    own = [one for one in vault.manifests("ana") if str(one) in vault.objects]
    ben = vault.manifests("ben")[0]
    for name in attempts.all(own):
        raw = vault.objects[str(name)]
        for moved, code in (
            (ManifestName(name.device_id, b"y" * 16, name.seq, name.sha256), "malformed"),
            (ManifestName(name.device_id, name.stream_id, name.seq + 7, name.sha256), "malformed"),
            (ManifestName(ben.device_id, ben.stream_id, 9, name.sha256), "authentication-failed"),
        ):
            answer = verdict(vault, {str(moved): raw})
            assert code in answer.told
            assert answer.lost == 0


# --- another vault of the same people


def test_everything_of_another_vault_beside_it(vault: HostileVault, other: HostileVault) -> None:
    """Not even a finding when the vault is named; when it is not, the person has to."""
    provider = vault.storage(dict(other.objects) | vault.objects)
    opened = unlock(provider, recovery(), vault.vault_id)
    assert opened.vault_id == vault.vault_id
    with pytest.raises(ChatkeepError) as caught:
        unlock(provider, recovery())
    assert caught.value.code == "several-vaults"


def test_each_object_of_another_vault(vault: HostileVault, other: HostileVault, attempts: Attempts) -> None:
    """In the place of ours, or beside them."""
    for kind in (SlotName, EpochName, DeviceName, PackName, ManifestName, CheckpointName):
        mine, theirs = vault.names(kind), other.names(kind)
        for name, source in attempts.some([(one, two) for one in mine for two in theirs], 12):
            ask(vault, vault.storage({name: other.objects[source]}))
            beside = verdict(vault, {source: other.objects[source]})
            assert beside.lost == 0 or "wrong-vault" in beside.told or "authentication-failed" in beside.told


def test_the_certificates_of_the_same_devices_in_another_vault(vault: HostileVault, other: HostileVault) -> None:
    changes = {name: other.objects[name] for name in vault.names(DeviceName)}
    answer = verdict(vault, changes)
    assert codes(answer) == {"wrong-vault"}
    assert answer.lost == vault.files


# --- epochs


def named(record: EpochRecord) -> dict[str, bytes]:
    return {str(record.name): record.raw}


STRANGER = EpochKeys(RootSecret(bytearray(b"s" * 32)))


def test_an_epoch_that_a_stranger_signed(vault: HostileVault) -> None:
    """Whoever knows all records can make one that fits in everything but the signature."""
    true = vault.successor(EpochKeys(RootSecret.generate()))
    forged = create_record(
        EpochKeys(RootSecret.generate()), vault.vault_id, (vault.epochs.records[-1], vault.epochs.keys[-1]), true.slots
    )
    lines = forged.raw.split(b"\n")
    for raw in (
        b"\n".join((lines[0], true.raw.split(b"\n")[1], b"")),  # signed, but something else
        forged.raw.replace(vault.epochs.keys[-1].sign.public.key_id.hex().encode(), b"0" * 32),
    ):
        name = str(EpochName(4, hashlib.sha256(raw).digest()))
        answer = verdict(vault, {name: raw})
        assert (codes(answer), answer.lost) == ({"authentication-failed"}, 0)


def test_an_epoch_that_another_epoch_signed(vault: HostileVault) -> None:
    """An old root secret in other hands: it certifies the epoch after its own, and that one there is already."""
    rival = vault.successor(EpochKeys(RootSecret.generate()), after=0, carry=())
    answer = verdict(vault, named(rival))
    assert answer.refused is not None
    assert answer.refused.code == "fork-detected"


def test_a_fork_of_the_newest_epoch(vault: HostileVault) -> None:
    rivals = [vault.successor(EpochKeys(RootSecret.generate())) for _ in range(2)]
    answer = verdict(vault, named(rivals[0]) | named(rivals[1]))
    assert answer.refused is not None
    assert answer.refused.code == "fork-detected"


def test_a_skipped_epoch(vault: HostileVault) -> None:
    withheld = EpochKeys(RootSecret.generate())
    after = vault.successor(withheld)
    skipping = create_record(EpochKeys(RootSecret.generate()), vault.vault_id, (after, withheld))
    answer = verdict(vault, named(skipping))
    assert (codes(answer), answer.lost) == ({"authentication-failed"}, 0)


def test_records_in_another_order(vault: HostileVault, attempts: Attempts) -> None:
    """Each record under each number, under its own hash."""
    for record in vault.epochs.records:
        for number in attempts.all(range(1, 6)):
            if number != record.epoch:
                answer = verdict(vault, {str(EpochName(number, record.sha256)): record.raw})
                assert "malformed" in answer.told or "authentication-failed" in answer.told
                assert answer.lost == 0


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_withheld_record(vault: HostileVault, gone: int) -> None:
    answer = verdict(vault, {str(vault.epochs.records[gone].name): None})
    told = {0: "missing-object", 1: "authentication-failed", 2: "unknown-key"}[gone]
    assert told in answer.told


def test_envelopes_changed_over(vault: HostileVault) -> None:
    """By who may sign: each slot gets the other's. And one for another root secret, which anybody can seal."""
    keys = EpochKeys(RootSecret.generate())
    true = vault.successor(keys)
    one, two = true.slots[vault.slot], true.slots[vault.second_slot]
    for slots in (
        {vault.slot: ListedSlot(one.file, two.envelope), vault.second_slot: ListedSlot(two.file, one.envelope)},
        vault.successor(EpochKeys(RootSecret.generate())).slots,
    ):
        forged = create_record(keys, vault.vault_id, (vault.epochs.records[-1], vault.epochs.keys[-1]), slots)
        answer = verdict(vault, named(forged))
        assert answer.refused is not None
        assert answer.refused.code == "authentication-failed"


def test_an_invented_past(vault: HostileVault) -> None:
    """`older` holds a root secret that is not that of the epoch before."""
    keys = EpochKeys(RootSecret.generate())
    true = vault.successor(keys)
    lie = EpochKeys(RootSecret.generate())
    wrapped = keys.wrap_older(lie.root, vault.vault_id, 4)
    assert true.older is not None
    forged = vault.resigned(true, b'"older":', wrapped)
    answer = verdict(vault, {str(EpochName(4, hashlib.sha256(forged).digest())): forged})
    assert answer.refused is not None
    assert answer.refused.code == "authentication-failed"


def test_a_listed_slot_written_anew_by_an_old_root_secret(vault: HostileVault) -> None:
    """Well formed, well signed, and not the file that the newest record lists: it opens nothing, and a scrub tells."""
    name = str(SlotName(vault.second_slot))
    line, rest, _, _ = vault.objects[name].split(b"\n")
    fields = json.loads(rest)
    again = json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode()
    forged = sign_text("slot", vault.vault_id, [line, again], vault.epochs.keys[0].sign)
    (problem,) = scrub(vault.storage({name: forged}), vault.vault_id).findings
    assert (problem.code, problem.params["name"]) == ("object-mismatch", name)


# --- devices


def test_a_certificate_signed_again_by_an_old_epoch(vault: HostileVault) -> None:
    """Who has an old root secret certifies a key of his own for our device: it is not the one that is listed."""
    device_id = vault.devices["ana"].device_id
    forged = DeviceCert.create(vault.epochs.keys[0], vault.vault_id, 1, device_id, STRANGER.sign.public)
    answer = verdict(vault, {str(DeviceName(device_id)): forged.raw})
    assert "authentication-failed" in answer.told
    new = DeviceCert.create(vault.epochs.keys[1], vault.vault_id, 2, b"n" * 16, STRANGER.sign.public)
    answer = verdict(vault, {str(DeviceName(b"n" * 16)): new.raw})
    assert (codes(answer), answer.lost) == ({"authentication-failed"}, 0)


def test_a_removed_device_goes_on_writing(vault: HostileVault) -> None:
    """Its credential was stolen, which is why it was removed. What it wrote before is read, nothing of what comes."""
    thief = Thief(vault.devices["gone"])
    (head,) = vault.manifests("gone")
    more = thief.snapshot(head.stream_id, part([[b"a", 1]], [file_record(1)]), seq=2, prev=head.sha256)
    rival = thief.snapshot(head.stream_id, part([[b"a", 1]], [file_record(1)]))
    fresh = thief.snapshot(b"n" * 16, part([[b"a", 1]], [file_record(1)]))
    for forged in (more, rival, fresh, more | rival | fresh):
        answer = verdict(vault, forged)
        assert (answer.lost, answer.refused) == (0, None)
    place = (head.device_id, head.stream_id, 1)
    assert place in vault.truth


# --- manifests


def test_every_manifest_withheld_alone_is_told_but_the_newest_of_all(vault: HostileVault, attempts: Attempts) -> None:
    for name in attempts.all(vault.names(ManifestName)):
        changes: Changes = {name: None}
        device, number = name.split("/")[1], int(name.split("/")[4][:12])
        unknown = device == vault.devices["ben"].device_id.hex() and number == 2
        answer = verdict(vault, changes, lossy=unknown)
        assert answer.lost > 0
        assert bool(answer.told) is not unknown


def test_the_newest_snapshot_withheld_cannot_be_known_by_who_never_saw_it(vault: HostileVault) -> None:
    """Documented in format section 13 and the threat model: no record and no checkpoint names it yet."""
    name = vault.manifests("ben")[-1]
    answer = verdict(vault, {str(name): None}, lossy=True)
    assert (answer.told, answer.lost > 0) == ([], True)


def test_a_whole_vault_of_yesterday_is_not_told_from_today_by_who_never_saw_today(vault: HostileVault) -> None:
    """Storage as it was in epoch 1. A device that has pinned a later epoch refuses it; a fresh machine cannot."""
    later = [str(record.name) for record in vault.epochs.records[1:]]
    newer = [
        name
        for name in vault.objects
        if name.startswith("d/") and (vault.devices["ben"].device_id.hex() in name or "/c/" in name)
    ]
    changes: dict[str, bytes | None] = dict.fromkeys([*later, *newer])
    for one in vault.manifests("ana"):
        if one.seq > 1 or one.stream_id != vault.checkpoint_stream:
            changes[str(one)] = None
    changes = {name: body for name, body in changes.items() if name in vault.objects}
    answer = verdict(vault, changes, lossy=True)
    assert (answer.told, answer.refused) == ([], None)


def test_two_manifests_of_one_number(vault: HostileVault, attempts: Attempts) -> None:
    """A clone of the device, or a thief of its credential, who writes on: both sides are told, neither is believed."""
    thief = Thief(vault.devices["ben"])
    one, two = vault.manifests("ben")
    for seq, prev in attempts.all([(1, bytes(32)), (2, one.sha256)]):
        forged = thief.snapshot(one.stream_id, part([[b"a", 1]], [file_record(1)]), seq=seq, prev=prev)
        answer = verdict(vault, forged, forged=one.stream_id, lossy=True)
        assert "fork-detected" in answer.told
    assert two.seq == 2


def test_a_pruned_snapshot_played_back_does_not_come_alive(vault: HostileVault) -> None:
    answer = verdict(vault, {str(vault.pruned): vault.pruned_raw})
    assert (answer.lost, answer.told) == (0, [])


# --- checkpoints


def test_checkpoints_withheld(vault: HostileVault) -> None:
    """Without the newest, what it let go is missing: told. No epoch record names it yet, so that it is gone is not."""
    newest, first = str(vault.checkpoints[1]), str(vault.checkpoints[0])
    assert codes(verdict(vault, {newest: None})) == {"missing-object", "snapshots-missing"}
    assert codes(verdict(vault, {newest: None, first: None})) == {"missing-object", "snapshots-missing"}
    assert verdict(vault, {first: None}).told == []


def test_a_checkpoint_of_another_device_or_number(vault: HostileVault) -> None:
    own = vault.checkpoints[1]
    raw = vault.objects[str(own)]
    for moved in (
        CheckpointName(vault.devices["ben"].device_id, own.number, own.sha256),
        CheckpointName(own.device_id, 9, own.sha256),
    ):
        answer = verdict(vault, {str(moved): raw})
        assert (codes(answer), answer.lost) == ({"unreadable", "malformed"} & codes(answer), 0)
        assert "malformed" in answer.told


def everything_condemned(vault: HostileVault, epoch: int, number: int, prev: bytes) -> dict[str, bytes]:
    """A checkpoint by the key of this epoch that lets all of ana's snapshots go."""
    head = [one for one in vault.manifests("ana") if one.stream_id == vault.checkpoint_stream][-1]
    checkpoint = Checkpoint(
        number, prev, vault.clock(), (StreamKept(head.stream_id, SnapshotId(head.seq, head.sha256), ()),)
    )
    record, keys = vault.epochs.records[epoch - 1], vault.epochs.keys[epoch - 1]
    raw = sign_checkpoint(checkpoint, head.device_id, record, keys.checkpoint)
    return {str(CheckpointName(head.device_id, number, hashlib.sha256(raw).digest())): raw}


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_old_root_secret_condemns_nothing(vault: HostileVault, epoch: int) -> None:
    for number in (1, 2, 3, 1000):
        forged = everything_condemned(vault, epoch, number, b"p" * 32 if number > 1 else bytes(32))
        assert verdict(vault, forged).lost == 0


def test_a_fork_of_checkpoints_keeps_what_either_keeps(vault: HostileVault) -> None:
    answer = verdict(vault, everything_condemned(vault, 3, 2, vault.checkpoints[0].sha256))
    assert (answer.lost, "fork-detected" in answer.told) == (0, True)


def test_nothing_of_this_is_usual(vault: HostileVault) -> None:
    """The vault as it is shows nothing, loses nothing."""
    answer = verdict(vault, {})
    assert (answer.told, answer.lost, vault.usual) == ([], 0, set())
    assert [key_of(problem) for problem in vault.opened.findings] == []
