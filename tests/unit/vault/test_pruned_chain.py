"""A history that was pruned, and one that was robbed: the reader tells them apart, with a key and without."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import pytest

from chatkeep.daemon.vault.checkpoint import SnapshotId, StreamKept
from chatkeep.daemon.vault.copies import Findings
from chatkeep.daemon.vault.epoch import Head
from chatkeep.daemon.vault.errors import AuthenticationFailed
from chatkeep.daemon.vault.lives import Lives
from chatkeep.daemon.vault.manifest import seal_manifest
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.daemon.vault.snapshots import Stream
from tests.support.manifests import TestVault, make_manifest, make_vault, named
from tests.support.pruned import STREAM, PrunedVault, told

COUNT = 12
KEPT = (1, 4, 9)
THROUGH = 9
LIVING = [12, 11, 10, 9, 4, 1]


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault()


def pruned(vault: TestVault, *providers: str) -> PrunedVault:
    """Twelve snapshots, of the first nine three are kept, the others are gone."""
    made = PrunedVault(vault, COUNT, *providers)
    made.prune(THROUGH, *KEPT)
    return made


def rival(vault: TestVault, seq: int, prev: bytes) -> tuple[ManifestName, bytes]:
    """A manifest that the same device signed, of the same number as one of the chain."""
    raw = seal_manifest(make_manifest(vault, time=seq, clock=seq), STREAM, seq, prev, vault.credential)
    return named(vault, STREAM, seq, raw), raw


def test_what_was_pruned_is_no_gap_and_no_alarm(vault: TestVault) -> None:
    made = pruned(vault)
    assert made.walked() == (LIVING, [])
    assert made.scrubbed() == []
    # Whether the sweep has come by or not.
    made.put({str(name): raw for name, raw in made.chain.items()})
    assert made.walked() == (LIVING, [])
    assert made.scrubbed() == []


@pytest.mark.parametrize("seq", [12, 11, 10, 9, 4, 1])
def test_each_that_lives_is_missed_but_a_newest_that_nobody_knows_of(vault: TestVault, seq: int) -> None:
    made = pruned(vault)
    made.drop(seq)
    seqs, problems = made.walked()
    assert seqs == [one for one in LIVING if one != seq]
    expected = [("missing-object", None), ("snapshots-missing", (seq, seq))]
    # The newest of all is named by nothing yet: that it is withheld shows at the next checkpoint or epoch.
    assert problems == ([] if seq == 12 else expected)
    assert made.scrubbed() == problems


def test_every_set_of_dropped_ones_is_told_number_by_number(vault: TestVault) -> None:
    """All 63 ways to drop of the six that live, but those that a later one or the checkpoint does not name."""
    tried = 0
    for count in range(1, len(LIVING) + 1):
        for gone in itertools.combinations(LIVING, count):
            made = pruned(vault)
            made.drop(*gone)
            seqs, problems = made.walked()
            assert seqs == [seq for seq in LIVING if seq not in gone]
            top = max((seq for seq in seqs if seq > THROUGH), default=THROUGH)
            missed = {seq for seq in gone if seq < top or seq <= THROUGH}
            ranges = [about for _, about in problems if isinstance(about, tuple)]
            covered = {seq for first, last in ranges for seq in range(first, last + 1)}
            assert missed <= covered
            assert not covered & set(seqs)
            assert bool(problems) == bool(missed)
            tried += 1
    assert tried == 63


def test_pruned_and_dropped_at_once(vault: TestVault) -> None:
    made = pruned(vault)
    made.drop(11, 4, 1)
    assert made.walked() == (
        [12, 10, 9],
        [
            *(("missing-object", None), ("snapshots-missing", (11, 11))),
            *(("missing-object", None), ("missing-object", None), ("snapshots-missing", (1, 4))),
        ],
    )


def test_without_its_checkpoint_what_was_pruned_is_missing(vault: TestVault) -> None:
    """Storage hides the newest checkpoint while objects are gone: it cannot make a loss look like a choice."""
    made = pruned(vault)
    del made.provider.objects[str(made.checkpoints[-1])]
    seqs, problems = made.walked()
    assert seqs == LIVING
    assert [about for code, about in problems if code == "snapshots-missing"] == [(5, 8), (2, 3)]
    assert made.scrubbed() == problems


def test_an_older_checkpoint_in_its_place_does_not_explain_what_came_after(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    made.prune(4, 1, 4)
    newest = made.prune(THROUGH, *KEPT)
    assert made.walked() == (LIVING, [])
    del made.provider.objects[str(newest)]
    seqs, problems = made.walked()
    assert seqs == LIVING
    assert problems == [("missing-object", None), ("snapshots-missing", (5, 8))]
    # With a record that lists it, its absence shows by itself, and an older one, which whoever got hold of an old
    # root secret could have made, explains nothing.
    made.rotate({STREAM: made.head(12)}, newest)
    seqs, problems = made.walked()
    assert seqs == LIVING
    assert problems[0] == ("missing-object", None)
    assert [about for code, about in problems if code == "snapshots-missing"] == [(5, 8), (2, 3)]


def test_the_whole_of_a_pruned_stream_cannot_be_hidden(vault: TestVault) -> None:
    made = pruned(vault)
    made.drop(*range(1, COUNT + 1))
    assert made.reader().streams() == [made.stream]
    assert made.walked() == ([], [("missing-object", None)] * 3 + [("snapshots-missing", (1, 9))])
    assert ("snapshots-missing", (1, 9)) in made.scrubbed()


def test_a_stream_that_an_epoch_record_names_cannot_be_hidden(vault: TestVault) -> None:
    made = PrunedVault(vault, 3)
    made.rotate({STREAM: made.head(3)}, None)
    made.drop(1, 2, 3)
    assert made.walked() == ([], [("missing-object", None), ("snapshots-missing", (1, 3))])
    assert made.scrubbed() == made.walked()[1]


def test_a_stream_of_which_nothing_is_kept_is_no_stream(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    made.prune(COUNT)
    assert made.reader().streams() == []
    assert made.scrubbed() == []
    made.put({str(name): raw for name, raw in made.chain.items()})  # before the sweep
    assert made.walked() == ([], [])
    assert made.scrubbed() == []


def test_what_a_listing_shows_and_a_sweep_has_taken_is_no_finding_without_a_key(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    packs = [PackName(made.device_id, bytes([number]) * 32) for number in range(3)]
    first, raw = made.sign(
        made.say(StreamKept(STREAM, SnapshotId(1, made.name(1).sha256), ()), condemned_packs=(packs[0].sha256,))
    )
    made.put({str(first): raw})
    made.checkpoints.append(first)
    made.drop(1)
    row = StreamKept(STREAM, SnapshotId(2, made.name(2).sha256), ())
    second, raw = made.sign(made.say(row, condemned_packs=(packs[1].sha256,)))
    made.put({str(second): raw})
    made.drop(2)
    made.provider.ghosts = {str(made.name(1)), str(made.name(2)), str(packs[0]), str(packs[1])}
    assert made.scrubbed() == []
    made.provider.ghosts.add(str(packs[2]))
    assert made.scrubbed() == [("object-not-found", None)]


def test_checkpoints_are_scrubbed_old_ones_too(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    names = [made.prune(through, 1, through) for through in (3, 5, 7)]
    assert made.scrubbed() == []
    for name in names:
        whole = made.provider.objects[str(name)]
        made.put({str(name): whole[:-1] + bytes([whole[-1] ^ 1])})
        assert made.scrubbed()[0] == ("object-mismatch", None)
        made.put({str(name): whole})
    assert made.scrubbed() == []


# -- heads of epoch records


def test_the_heads_of_the_newest_epoch_are_missed(vault: TestVault) -> None:
    made = pruned(vault)
    made.rotate({STREAM: made.head(12)}, made.checkpoints[-1])
    assert made.walked() == (LIVING, [])
    made.drop(11, 12)
    problems = [("missing-object", None), ("snapshots-missing", (11, 12))]
    assert made.walked() == ([10, 9, 4, 1], problems)
    assert made.scrubbed() == problems
    made.drop(10)
    assert made.walked() == ([9, 4, 1], [("missing-object", None), ("snapshots-missing", (10, 12))])


def test_a_head_is_asked_for_by_name_though_no_listing_shows_it(vault: TestVault) -> None:
    made = pruned(vault)
    made.rotate({STREAM: made.head(12)}, made.checkpoints[-1])
    made.provider.unlisted = {str(name) for name in made.chain}
    assert made.walked() == (LIVING, [])


def test_a_head_that_was_pruned_since_is_not_missed(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    made.rotate({STREAM: made.head(5)}, None)
    made.prune(THROUGH, *KEPT)
    assert made.walked() == (LIVING, [])


def test_a_history_that_does_not_hold_the_head_is_a_fork(vault: TestVault) -> None:
    """A device's state was rolled back after the rotation: its numbers go on from an older one."""
    made = PrunedVault(vault, 3)
    made.rotate({STREAM: made.head(3)}, None)
    own, raw = rival(vault, 3, made.name(2).sha256)
    after, raw_after = rival(vault, 4, own.sha256)
    made.put({str(own): raw, str(after): raw_after})
    made.drop(3)
    seqs, problems = made.walked()
    assert seqs == [4, 3, 2, 1]
    assert problems == [("missing-object", None), ("fork-detected", 3)]


def test_a_chain_that_stands_on_something_else_than_the_checkpoint_is_a_fork(vault: TestVault) -> None:
    made = pruned(vault)
    other, _ = rival(vault, THROUGH, b"x" * 32)
    after, raw = rival(vault, THROUGH + 1, other.sha256)
    made.drop(10, 11, 12)
    made.put({str(after): raw})
    assert made.walked() == ([10, 9, 4, 1], [("fork-detected", 9)])
    assert made.scrubbed() == [("fork-detected", 9)]


# -- what storage shows beside it


def test_below_the_checkpoint_only_what_it_keeps_is_asked_for(vault: TestVault) -> None:
    """Rivals, forgeries and noise down there are nobody's business any more."""
    made = pruned(vault)
    own, raw = rival(vault, 4, made.name(3).sha256)
    noise = {str(ManifestName(made.device_id, STREAM, seq, b"n" * 32)): b"noise" for seq in (2, 3, 9)}
    made.put({str(own): raw} | noise)
    made.provider.verbs.clear()
    assert made.walked() == (LIVING, [])
    asked = {name for verb, name in made.provider.verbs if verb == "get"}
    assert asked == {str(made.checkpoints[-1]), *(str(made.name(seq)) for seq in LIVING)}


def test_renamed_reordered_and_doubled_manifests(vault: TestVault) -> None:
    """The true bytes of each under the number of each other: 132 swaps, none believed."""
    made = pruned(vault)
    tried = 0
    for name, raw in made.chain.items():
        for seq in range(1, COUNT + 1):
            if seq == name.seq:
                continue
            moved = str(dataclasses.replace(name, seq=seq))
            made.put({moved: raw})
            seqs, problems = made.walked()
            assert seqs == LIVING
            # Above what is settled somebody asks, and is told that it is not what its name says.
            assert problems == ([("malformed", "name"), ("unreadable", None)] if seq > THROUGH else [])
            del made.provider.objects[moved]
            tried += 1
    assert tried == COUNT * (COUNT - 1)


def test_two_of_one_number_above_the_checkpoint_are_a_fork(vault: TestVault) -> None:
    made = pruned(vault)
    own, raw = rival(vault, 11, made.name(10).sha256)
    made.put({str(own): raw})
    assert made.walked() == (LIVING, [("fork-detected", 11)])


def test_a_rollback_to_before_the_checkpoint_loses_nothing_that_it_names(vault: TestVault) -> None:
    """All of storage as it was after snapshot 6, and one thing more: the checkpoint, which this device remembers."""
    made = pruned(vault)
    made.drop(*range(7, COUNT + 1))
    assert made.walked() == ([4, 1], [("missing-object", None), ("snapshots-missing", (9, 9))])


def test_a_damaged_kept_one_is_told_as_damage(vault: TestVault) -> None:
    made = pruned(vault)
    made.put({str(made.name(4)): b"x"})
    assert made.walked() == (
        [12, 11, 10, 9, 1],
        [("object-mismatch", None), ("unreadable", None), ("snapshots-missing", (4, 4))],
    )


def test_several_providers_make_up_for_each_other(vault: TestVault) -> None:
    made = pruned(vault, "a", "b")
    a, b = made.providers
    del a.objects[str(made.name(4))], a.objects[str(made.name(11))], a.objects[str(made.checkpoints[-1])]
    del b.objects[str(made.name(9))], b.objects[str(made.name(12))]
    assert made.walked(a, b) == (LIVING, [])
    assert made.walked(b, a) == (LIVING, [])


# -- removed devices


def test_a_removed_devices_history_stays_up_to_its_entry(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    made.rotate({STREAM: made.head(7)}, None, remove=True)
    expected = [7, 6, 5, 4, 3, 2, 1]
    assert made.reader().streams() == [made.stream]
    assert made.walked() == (expected, [])
    assert made.scrubbed() == []
    # What its thief adds: nothing is shown, and nobody is alarmed.
    own, raw = rival(vault, 6, made.name(5).sha256)
    more, raw_more = rival(vault, 13, made.name(12).sha256)
    other = ManifestName(made.device_id, b"a-thief's-stream", 1, hashlib.sha256(raw).digest())
    made.put({str(own): raw, str(more): raw_more, str(other): raw})
    assert made.walked() == (expected, [])
    assert made.reader().streams() == [made.stream]


def test_below_a_gap_nothing_of_a_removed_device_counts(vault: TestVault) -> None:
    """Its key is in other hands, so what no link leads to could be anybody's."""
    made = PrunedVault(vault, COUNT)
    made.rotate({STREAM: made.head(7)}, None, remove=True)
    made.drop(5)
    problems = [("missing-object", None), ("snapshots-missing", (1, 5))]
    assert made.walked() == ([7, 6], problems)
    assert made.scrubbed() == problems
    made.drop(7)
    assert made.walked() == ([], [("missing-object", None), ("snapshots-missing", (1, 7))])


def test_what_a_removed_devices_checkpoint_keeps_counts_by_its_name(vault: TestVault) -> None:
    made = pruned(vault)
    made.rotate({STREAM: made.head(12)}, made.checkpoints[-1], remove=True)
    assert made.walked() == (LIVING, [])
    assert made.scrubbed() == []
    made.drop(11)
    assert made.walked() == ([12, 9, 4, 1], [("missing-object", None), ("snapshots-missing", (10, 11))])
    made.drop(4)
    assert made.walked()[1][2:] == [("missing-object", None), ("snapshots-missing", (4, 4))]


def test_a_removed_devices_checkpoint_keeps_nothing_beyond_its_entry(vault: TestVault) -> None:
    made = pruned(vault)
    made.rotate({STREAM: made.head(5)}, made.checkpoints[-1], remove=True)
    assert made.walked() == ([4, 1], [])


def test_a_removed_device_without_streams_has_none(vault: TestVault) -> None:
    made = PrunedVault(vault, 3)
    made.rotate({}, None, remove=True)
    assert made.reader().streams() == []
    assert made.scrubbed() == []
    with pytest.raises(AuthenticationFailed):
        made.reader().chain(Stream(bytes(16), STREAM))
    # Asked for by its name it has nothing either.
    chain = made.reader().chain(made.stream)
    assert (list(chain.walk()), told(chain.findings)) == ([], [])


# -- a checkpoint that comes while somebody reads


def test_what_is_pruned_during_a_walk_is_not_missed(vault: TestVault) -> None:
    for at in range(1, COUNT):
        made = PrunedVault(vault, COUNT)
        chain = made.reader().chain(made.stream)
        walking = chain.walk()
        seqs = [next(walking).header.seq for _ in range(at)]
        made.prune(THROUGH, *KEPT)
        seqs += [one.header.seq for one in walking]
        assert seqs == [*range(COUNT, COUNT - at, -1), *(seq for seq in LIVING if seq <= COUNT - at)]
        assert told(chain.findings) == []


def test_what_is_pruned_further_during_a_walk_is_not_missed_but_a_loss_is(vault: TestVault) -> None:
    made = pruned(vault)
    chain = made.reader().chain(made.stream)
    walking = chain.walk()
    seqs = [next(walking).header.seq for _ in range(4)]
    made.prune(11, 1, 11)
    assert seqs + [one.header.seq for one in walking] == [12, 11, 10, 9, 1]
    assert told(chain.findings) == []
    made.drop(1)
    assert made.walked() == ([12, 11], [("missing-object", None), ("snapshots-missing", (1, 1))])


def test_checkpoint_upon_checkpoint_comes_during_a_walk(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    chain = made.reader().chain(made.stream)
    walking = chain.walk()
    seqs = [next(walking).header.seq]
    made.prune(10, 10, 9, 5, 2, 1)
    seqs += [next(walking).header.seq for _ in range(4)]
    assert seqs == [12, 11, 10, 9, 5]  # across what is gone
    made.prune(11, 11, 1)  # 2 goes too
    seqs += [one.header.seq for one in walking]
    assert seqs == [12, 11, 10, 9, 5, 1]
    assert told(chain.findings) == []


def test_of_what_was_settled_during_a_walk_only_what_is_kept_is_yielded(vault: TestVault) -> None:
    """Two of number 8: the linked one goes by right, the other, a rival, is still there and lives no more."""
    made = PrunedVault(vault, COUNT)
    own, raw = rival(vault, 8, made.name(7).sha256)
    made.put({str(own): raw})
    chain = made.reader().chain(made.stream)
    walking = chain.walk()
    seqs = [next(walking).header.seq for _ in range(4)]
    made.prune(THROUGH, *KEPT)
    assert seqs + [one.header.seq for one in walking] == [12, 11, 10, 9, 4, 1]
    assert told(chain.findings) == []


def test_a_loss_is_asked_about_once_and_not_once_for_each(vault: TestVault) -> None:
    made = PrunedVault(vault, 40)
    made.prune(40, *range(1, 41), sweep=False)
    made.drop(*range(1, 40))
    made.provider.verbs.clear()
    seqs, problems = made.walked()
    assert (seqs, problems[-1]) == ([40], ("snapshots-missing", (1, 39)))
    listings = [name for verb, name in made.provider.verbs if verb == "list" and "/c/" in name]
    assert len(listings) == 2


def test_a_checkpoint_that_was_seen_does_not_go_away_again(vault: TestVault) -> None:
    made = pruned(vault)
    reader = made.reader()
    assert reader.streams() == [made.stream]
    del made.provider.objects[str(made.checkpoints[-1])]
    chain = reader.chain(made.stream)
    assert [one.header.seq for one in chain.walk()] == LIVING
    lives = Lives(made.providers, made.records, {}, Findings())
    assert lives.checkpoint(made.device_id) is None


def test_an_older_checkpoint_shown_later_takes_nothing_back(vault: TestVault) -> None:
    made = PrunedVault(vault, COUNT)
    first, second = made.prune(4, 1, 4, sweep=False), made.prune(THROUGH, *KEPT)
    lives = Lives(made.providers, made.records, {}, Findings())
    before = lives.checkpoint(made.device_id)
    assert before is not None
    assert before.name == second
    del made.provider.objects[str(second)]
    assert str(first) in made.provider.objects
    assert lives.checkpoint_again(made.device_id) == before
    assert lives.demand_again(made.stream).through == THROUGH


# -- much of it


def test_a_year_of_pruned_history_costs_what_is_kept_and_no_more(vault: TestVault) -> None:
    """Of 500,000 numbers 3,000 are kept: one request for each as it is drawn, two listings, one checkpoint."""
    made = PrunedVault(vault, 1)
    numbers = [*range(1, 499_000, 166), 500_000][-3000:]
    numbers[0] = 1
    prev = b"p" * 32
    objects: dict[str, bytes] = {}
    ids = []
    for seq in numbers:
        name, raw = rival(vault, seq, bytes(32) if seq == 1 else prev)
        objects[str(name)] = raw
        ids.append(SnapshotId(seq, name.sha256))
    for seq in (500_001, 500_002):
        name, raw = rival(vault, seq, ids[-1].sha256 if seq == 500_001 else name.sha256)
        objects[str(name)] = raw
    made.drop(1)
    made.put(objects)
    checkpoint, raw = made.sign(made.say(StreamKept(STREAM, ids[-1], tuple(ids))))
    made.put({str(checkpoint): raw})
    made.provider.verbs.clear()
    chain = made.reader().chain(made.stream)
    walking = chain.walk()
    drawn = [next(walking).header.seq for _ in range(5)]
    assert drawn == [500_002, 500_001, 500_000, numbers[-2], numbers[-3]]
    assert [verb for verb, _ in made.provider.verbs] == ["list", "get", "list", *["get"] * 5]
    drawn += [one.header.seq for one in walking]
    assert (len(drawn), told(chain.findings)) == (3002, [])
    assert len(made.provider.verbs) == 3 + 3002


def test_heads_that_storage_invents_for_a_removed_device_cost_nothing(vault: TestVault) -> None:
    made = PrunedVault(vault, 3)
    made.rotate({STREAM: made.head(3)}, None, remove=True)
    made.put({str(ManifestName(made.device_id, STREAM, seq, b"n" * 32)): b"" for seq in range(4, 500)})
    made.provider.verbs.clear()
    assert made.walked() == ([3, 2, 1], [])
    assert len(made.provider.verbs) == 1 + 3


def test_an_entry_without_its_head_in_storage_names_it(vault: TestVault) -> None:
    made = PrunedVault(vault, 2)
    made.rotate({STREAM: Head(9, b"h" * 32)}, None)
    assert made.walked() == ([2, 1], [("missing-object", None), ("snapshots-missing", (3, 9))])
