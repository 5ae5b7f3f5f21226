from __future__ import annotations

import random
from pathlib import Path

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.daemon.keys.slots import create_slot
from chatkeep.daemon.vault.names import DeviceName, SlotName, VaultName
from chatkeep.daemon.verify.scrub import ScrubReport, scrub
from chatkeep.providers.base import Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.manifests import make_vault
from tests.support.restoring import Sample
from tests.support.vault_maker import VaultMaker
from tests.support.vaults import NOW, recovery


def published(maker: VaultMaker) -> VaultMaker:
    """The vault's public records beside the snapshots."""
    vault, put = maker.vault, maker.provider.put
    put(str(VaultName(vault.vault_id)), b'{"chatkeep":1,"vault":"%s"}\n' % vault.vault_id.hex().encode())
    put(str(vault.record.name), vault.record.raw)
    put(str(DeviceName(vault.credential.device_id)), vault.cert.raw)
    slot_id, raw = create_slot(recovery(), vault.keys, vault.vault_id, 1, "paper", NOW)
    put(str(SlotName(slot_id)), raw)
    return maker


@pytest.fixture
def maker(tmp_path: Path) -> VaultMaker:
    return published(Sample(tmp_path).maker)


def found(report: ScrubReport) -> set[tuple[str, object]]:
    return {(finding.code, finding.params.get("name", finding.params.get("what"))) for finding in report.findings}


def test_a_whole_vault_has_no_findings(maker: VaultMaker) -> None:
    maker.provider.objects["somebody-elses-file.txt"] = b"x"
    figures: list[tuple[int, int]] = []
    report = scrub(maker.provider, progress=lambda done, total: figures.append((done, total)))
    assert report.findings == ()
    assert report.vault_id == maker.vault.vault_id
    assert (report.objects, report.checked, report.foreign) == (len(maker.provider.objects) - 1,) * 2 + (1,)
    assert report.read == report.content == sum(map(len, maker.provider.objects.values())) - 1
    assert figures[-1] == (report.content, report.content)
    assert {verb for verb, _ in maker.provider.verbs if verb in ("put", "delete")} == {"put"}


def test_no_object_can_change_without_a_finding(maker: VaultMaker) -> None:
    chance = random.Random(5)
    for name, raw in list(maker.provider.objects.items()):
        for damaged in (
            _flipped(raw, 0),
            _flipped(raw, len(raw) - 1),
            _flipped(raw, chance.randrange(len(raw))),
            raw[:-1],
            raw + b"\0",
            b"",
        ):
            maker.provider.objects[name] = damaged
            report = scrub(maker.provider, maker.vault.vault_id)
            assert report.findings, name
        maker.provider.objects[name] = raw
    assert not scrub(maker.provider).findings


def _flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :]


def test_what_is_missing_in_a_chain_is_found(maker: VaultMaker) -> None:
    maker.file(b"third", b"3")
    maker.commit()
    del maker.provider.objects[str(maker.snapshots[1].name)]
    codes = {code for code, _ in found(scrub(maker.provider))}
    assert codes == {"missing-object", "snapshots-missing"}


def test_a_pack_under_another_device_or_of_another_vault_is_found(maker: VaultMaker, tmp_path: Path) -> None:
    other = VaultMaker(tmp_path)
    other.file(b"a", b"a")
    other.commit()
    name = other.pack_names[0]
    moved = f"d/{maker.vault.credential.device_id.hex()}/p/{name.sha256.hex()}"
    maker.provider.put(moved, other.provider.objects[str(name)])
    assert found(scrub(maker.provider)) == {("wrong-vault", moved)}
    del maker.provider.objects[moved]
    own = maker.pack_names[0]
    stray = f"d/{'0' * 32}/p/{own.sha256.hex()}"
    maker.provider.put(stray, maker.provider.objects[str(own)])
    assert found(scrub(maker.provider)) == {("malformed", stray)}


def test_planted_slots_devices_and_epochs_are_found(maker: VaultMaker) -> None:
    other = make_vault()
    slot_id, raw = create_slot(recovery(3), other.keys, maker.vault.vault_id, 1, "planted", NOW)
    maker.provider.put(str(SlotName(slot_id)), raw)
    maker.provider.put(str(DeviceName(other.credential.device_id)), other.cert.raw)
    codes = {code for code, _ in found(scrub(maker.provider))}
    assert {"authentication-failed"} <= codes
    assert len(scrub(maker.provider).findings) == 2


def test_without_its_first_epoch_nothing_is_certified_and_packs_are_still_hashed(maker: VaultMaker) -> None:
    del maker.provider.objects[str(maker.vault.record.name)]
    maker.damage(maker.pack_names[0])
    report = scrub(maker.provider)
    assert report.vault_id is None
    assert ("object-mismatch", str(maker.pack_names[0])) in found(report)
    assert ("missing-object", "epochs/00000001") in found(report)


def test_a_sample_reads_a_share_of_the_packs_and_all_the_rest(maker: VaultMaker) -> None:
    seen = {scrub(maker.provider, fraction=0.5, chance=random.Random(number)).skipped for number in range(20)}
    assert len(seen) > 1
    none = scrub(maker.provider, fraction=0.0)
    assert none.skipped == len(maker.pack_names)
    assert none.checked == none.objects - none.skipped
    maker.damage(maker.pack_names[0])
    assert not scrub(maker.provider, fraction=0.0).findings
    assert scrub(maker.provider, fraction=1.0).findings


def test_an_object_that_vanished_is_a_finding_and_a_storage_that_vanished_is_an_error(maker: VaultMaker) -> None:
    name = str(maker.pack_names[0])
    gone = Fault("get", Unavailable(provider="x"), about=name)
    with pytest.raises(Unavailable):
        scrub(FaultyProvider(maker.provider, gone))
    assert gone.fired == 1
    with pytest.raises(Cancelled):
        scrub(maker.provider, cancelled=lambda: True)


def test_nothing_at_all(tmp_path: Path) -> None:
    empty = VaultMaker(tmp_path).provider
    report = scrub(empty)
    assert (report.objects, report.vault_id) == (0, None)
    assert {finding.code for finding in report.findings} == {"malformed"}
