"""What the state knows of its own blobs, capsules and past."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chatkeep.daemon.state import KnownBlob, ObjectRow, State, StateDamaged
from tests.unit.state.test_state import DEVICE, VAULT, commit_of


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", VAULT, DEVICE) as opened:
        yield opened


def proven(state: State, seq: int, proof: bytes = b"proof", **more: object) -> bytes:
    """A commit whose objects have proofs; returns its stream."""
    made = commit_of(state, seq)
    objects = [ObjectRow(o.name, o.sha256, o.size, o.is_manifest, proof) for o in made.objects]
    state.commit(replace(made, objects=objects, **more))  # type: ignore[arg-type]
    return made.stream


def test_capsules_wait_until_they_are_proven(state: State) -> None:
    proven(state, 1)
    names = [capsule.name for capsule in state.capsules.unproven()]
    assert len(names) == 2
    assert {capsule.proof for capsule in state.capsules.unproven()} == {b"proof"}
    state.capsules.proven(names[:1])
    state.capsules.failed(names[1], "authentication-failed")
    assert state.capsules.unproven() == []
    (failure,) = state.capsules.failures()
    assert (failure.name, failure.code) == (names[1], "authentication-failed")
    state.capsules.forget_failures()
    assert state.capsules.failures() == []


def test_what_no_provider_got_need_not_be_proven(state: State) -> None:
    stream = proven(state, 1)
    pack = state.outbox.queue("disk")[0]
    state.outbox.record_receipt(pack.name, "disk", 1)
    state.abandon(stream)
    assert [capsule.name for capsule in state.capsules.unproven()] == [pack.name]


def test_a_copy_is_used_once_and_only_by_a_commit(state: State) -> None:
    copies = [KnownBlob(b"b" * 32, b"p" * 32, slot) for slot in (0, 1)]
    state.known.add([*copies, copies[0]])
    assert (state.known.count(), state.known.copies(b"b" * 32)) == (2, copies)
    with pytest.raises(StateDamaged):
        state.commit(replace(commit_of(state, 1), reused=copies[:1], objects=[ObjectRow("x", b"", 1, True)] * 2))
    assert state.known.count() == 2
    proven(state, 1, reused=copies[:1])
    assert state.known.copies(b"b" * 32) == copies[1:]
    state.known.clear()
    assert state.known.count() == 0


def test_a_pack_is_sound_when_every_provider_has_it_and_it_opens(state: State) -> None:
    proven(state, 1)
    pack = state.outbox.queue("disk")[0]
    assert state.known.sound_packs(["disk", "usb"]) == set()
    state.outbox.record_receipt(pack.name, "disk", 1)
    assert state.known.sound_packs(["disk", "usb"]) == set()
    state.outbox.record_receipt(pack.name, "usb", 1)
    assert state.known.sound_packs(["disk", "usb"]) == {pack.sha256}
    state.known.add([KnownBlob(b"b" * 32, pack.sha256, 0)])
    state.capsules.failed(pack.name, "authentication-failed")
    assert state.known.sound_packs(["disk", "usb"]) == set()
    assert state.known.count() == 0, "what does not open is not referred to again"


def test_its_past(state: State) -> None:
    stream = proven(state, 1)
    lineage = state.lineage
    assert lineage.heads() == {stream: {1: "s/1"}}
    assert lineage.active() == {stream: ("chat", 1)}
    assert lineage.incomplete(["chat", "other"]) == ["other"]
    assert (lineage.machine(), lineage.lost(), lineage.copied(), lineage.last_checkpoint()) == (None, None, None, 0)
    lineage.note_machine(b"here")
    assert lineage.machine() == b"here"
    first = lineage.note_lost(5, "state-lost")
    assert lineage.note_lost(9, "state-rolled-back") == first == lineage.lost(), "the first time counts"
    lineage.found_again()
    assert lineage.lost() is None
    lineage.note_copied(7, "ahead")
    copied = lineage.copied()
    assert copied is not None
    assert (copied.at, copied.how) == (7, "ahead")
    lineage.note_seen([b"s" * 16], 4)
    assert (lineage.seen(), lineage.last_checkpoint()) == ({b"s" * 16}, 4)
    state.abandon(stream)
    assert lineage.heads() == {stream: {1: "s/1"}}, "what ended is not strange"


def test_copies_may_be_asked_for_from_any_thread(state: State) -> None:
    state.known.add(KnownBlob(bytes([n]) * 32, b"p" * 32, n) for n in range(50))
    found: list[KnownBlob] = []
    asking = [threading.Thread(target=lambda n=n: found.extend(state.known.copies(bytes([n]) * 32))) for n in range(50)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(one.slot for one in found) == list(range(50))


def test_a_database_that_is_damaged_for_good_is_moved_aside_each_time(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    for number in (1, 2):
        State.open(directory, VAULT, DEVICE).close()
        (directory / "state.db").write_bytes(b"no database" * 1000)
        with pytest.raises(StateDamaged) as caught:
            State.open(directory, VAULT, DEVICE)
        assert caught.value.params["for_good"] is True
        with State.open(directory, VAULT, DEVICE, anew=True) as state:
            assert state.moved_aside == directory / f"state.db.damaged-{number}"
            assert state.moved_aside.read_bytes() == b"no database" * 1000
            assert state.lineage.heads() == {}


def test_one_that_turns_out_damaged_while_it_is_used(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", VAULT, DEVICE) as state:
        moved = state.give_up()
        assert moved.name == "state.db.damaged-1"
    with State.open(tmp_path / "state", VAULT, DEVICE) as state:
        assert (state.moved_aside, state.lineage.heads()) == (None, {})
