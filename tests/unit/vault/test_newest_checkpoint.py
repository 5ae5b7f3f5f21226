"""Which checkpoint counts: the newest one, and never one that somebody made who once had the keys."""

from __future__ import annotations

import dataclasses

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.reading import weight
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.cli.verify_work import ProviderVerdict
from chatkeep.daemon.vault.checkpoint import VerifiedCheckpoint, newest_checkpoint
from chatkeep.daemon.vault.copies import Findings
from chatkeep.daemon.vault.errors import MissingObject
from chatkeep.daemon.vault.names import CheckpointName
from chatkeep.daemon.verify.scrub import scrub
from chatkeep.providers.base import Provider, Unavailable
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.manifests import TestVault, make_vault
from tests.support.pruned import PrunedVault, Told, told

OTHER = b"another-device!!"


@pytest.fixture(scope="module")
def vault() -> TestVault:
    return make_vault()


def newest(made: PrunedVault, *providers: Provider) -> tuple[VerifiedCheckpoint | None, Told]:
    findings = Findings()
    found = newest_checkpoint(providers or made.providers, made.device_id, made.records, findings)
    return found, told(findings)


def test_without_any_there_is_none(vault: TestVault) -> None:
    assert newest(PrunedVault(vault, 1)) == (None, [])


def test_the_one_with_the_highest_number_counts(vault: TestVault) -> None:
    made = PrunedVault(vault, 4)
    names = [made.prune(through, 1) for through in (2, 3, 4)]
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (names[-1], [])
    # Requests: one listing, one object.
    assert [verb for verb, _ in made.provider.verbs] == ["list", "get"]


def test_an_old_one_played_back_changes_nothing(vault: TestVault) -> None:
    """Storage shows the bytes of checkpoint 1 under a higher number, and again under its own."""
    made = PrunedVault(vault, 4)
    first, second = made.prune(2, 1), made.prune(3, 1)
    old = made.provider.objects[str(first)]
    made.put({str(dataclasses.replace(first, number=9)): old})
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (second, [("malformed", "name"), ("unreadable", None)])


def test_one_of_another_device_or_vault_changes_nothing(vault: TestVault) -> None:
    made = PrunedVault(vault, 4)
    own = made.prune(2, 1)
    say = dataclasses.replace(made.checkpoint(4, ()), number=5)
    of_other, raw_of_other = made.sign(say, device_id=OTHER)
    stranger = PrunedVault(make_vault(device_id=made.device_id), 1)
    of_stranger, raw_of_stranger = stranger.sign(say)
    assert of_stranger.device_id == made.device_id
    made.put({str(of_other): raw_of_other, str(of_stranger): raw_of_stranger})
    made.put({str(dataclasses.replace(of_other, device_id=made.device_id)): raw_of_other})
    found, problems = newest(made)
    assert found is not None
    assert found.name == own
    assert sorted(code for code, _ in problems) == ["malformed", "unreadable", "unreadable", "wrong-vault"]


def test_a_damaged_one_is_told_and_the_one_before_counts(vault: TestVault) -> None:
    made = PrunedVault(vault, 4, "a", "b")
    first, second = made.prune(2, 1), made.prune(3, 1)
    a, b = made.providers
    a.objects[str(second)] = a.objects[str(second)][:-1]
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (second, [("object-mismatch", None)])
    b.objects[str(second)] = a.objects[str(second)]
    found, problems = newest(made)
    assert found is not None
    assert (found.name, [code for code, _ in problems]) == (first, ["object-mismatch", "object-mismatch", "unreadable"])


def test_a_provider_that_is_down_or_behind_does_not_hide_it(vault: TestVault) -> None:
    made = PrunedVault(vault, 4, "a", "b")
    made.prune(2, 1)
    behind = dict(made.providers[0].objects)
    second = made.prune(3, 1)
    made.providers[0].objects = behind
    down = FaultyProvider(made.providers[0], Fault("list", Unavailable(provider="a"), times=None))
    for providers, problems in (([*made.providers], []), ([down, made.providers[1]], [("unavailable", None)])):
        found, said = newest(made, *providers)
        assert found is not None
        assert (found.name, said) == (second, problems)
    with pytest.raises(Unavailable):
        newest(made, down)
    assert down.faults[0].fired == 2


def test_a_listing_that_shows_what_was_swept_is_none(vault: TestVault) -> None:
    made = PrunedVault(vault, 4)
    first, second = made.prune(2, 1), made.prune(3, 1)
    ghost = dataclasses.replace(second, number=7)
    made.provider.ghosts = {str(ghost), str(first)}
    del made.provider.objects[str(first)]
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (second, [])
    # Older ones are not asked for at all.
    assert [name for verb, name in made.provider.verbs if verb == "get"] == [str(ghost), str(second)]


def test_two_of_one_number_are_a_fork_whichever_is_listed_first(vault: TestVault) -> None:
    made = PrunedVault(vault, 9)
    one = made.prune(5, 2, 4, sweep=False)
    del made.checkpoints[:]
    other = made.prune(7, 1, 4, sweep=False)
    found, problems = newest(made)
    assert found is not None
    assert {found.name, *(rival.name for rival in found.rivals)} == {one, other}
    assert problems == [("fork-detected", None)]
    # What either keeps lives, and nothing is pruned that one of them never pruned.
    seqs, problems = made.walked()
    assert seqs == [9, 8, 7, 6, 4, 2, 1]
    assert problems == [("fork-detected", None)]


def test_a_stream_that_one_rival_never_pruned_is_not_pruned(vault: TestVault) -> None:
    made = PrunedVault(vault, 4)
    made.prune(3, 3, sweep=False)
    del made.checkpoints[:]
    name, raw = made.sign(made.say())
    made.put({str(name): raw})
    assert made.walked() == ([4, 3, 2, 1], [("fork-detected", None)])


# -- epochs that are over


def test_an_old_epochs_key_makes_none_that_counts(vault: TestVault) -> None:
    """Whoever got hold of an old root secret, and of the storage."""
    made = PrunedVault(vault, 6)
    true = made.prune(3, 1, 3)
    made.rotate({made.stream.stream_id: made.head(6)}, true)
    for number in (1, 2, 9):
        forged, raw = made.sign(dataclasses.replace(made.checkpoint(6, ()), number=number, prev=prev(number)), epoch=1)
        made.put({str(forged): raw})
        found, problems = newest(made)
        assert found is not None
        assert found.name == true
        # At or below what the record lists nobody looks, and nothing of it counts.
        assert problems == ([("checkpoint-outdated", None)] if number > 1 else [])
        assert made.walked()[0] == [6, 5, 4, 3, 1]
        del made.provider.objects[str(forged)]


def prev(number: int) -> bytes:
    return bytes(32) if number == 1 else b"b" * 32


def test_the_listed_number_counts_only_with_the_listed_hash(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    true = made.prune(3, 1, 3)
    made.rotate({made.stream.stream_id: made.head(6)}, true)
    forged, raw = made.sign(dataclasses.replace(made.checkpoint(6, ()), number=1, prev=bytes(32)), epoch=1)
    made.put({str(forged): raw})
    del made.provider.objects[str(true)]
    found, problems = newest(made)
    assert found is None
    assert problems == [("missing-object", None), ("checkpoint-outdated", None)]


def test_a_device_that_no_record_lists_has_none_of_that_epoch(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    made.prune(3, 1, 3)
    made.rotate({}, None)
    assert newest(made) == (None, [("checkpoint-outdated", None)])


def test_the_newest_epochs_own_take_over_and_the_old_one_is_forgotten(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    first = made.prune(3, 1, 3)
    late, raw = made.sign(made.checkpoint(4, (1,)))  # made while the record of epoch 2 was on its way
    made.rotate({made.stream.stream_id: made.head(6)}, first)
    made.put({str(late): raw})
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (first, [("checkpoint-outdated", None)])
    second = made.prune(5, 3, 5)
    found, problems = newest(made)
    assert found is not None
    assert (found.name, found.epoch, problems) == (second, 2, [])


def test_over_several_epochs_the_record_that_ended_one_speaks_for_it(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    first = made.prune(3, 1, 3)
    made.rotate({made.stream.stream_id: made.head(6)}, first)
    made.rotate({made.stream.stream_id: made.head(6)}, first)
    assert len(made.records) == 3
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (first, [])
    forged, raw = made.sign(dataclasses.replace(made.checkpoint(6, ()), number=2, prev=b"b" * 32), epoch=2)
    made.put({str(forged): raw})
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (first, [("checkpoint-outdated", None)])


def test_of_a_removed_device_none_counts_beyond_its_entry(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    first = made.prune(3, 1, 3)
    made.rotate({made.stream.stream_id: made.head(6)}, first, remove=True)
    later, raw = made.sign(made.checkpoint(6, ()))  # by the newest epoch's own key, even
    made.put({str(later): raw})
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (first, [("checkpoint-outdated", None)])
    assert made.walked()[0] == [6, 5, 4, 3, 1]


def test_the_listed_one_is_asked_for_by_name_and_missed(vault: TestVault) -> None:
    made = PrunedVault(vault, 6)
    first, second = made.prune(2, 1), made.prune(3, 1, 3)
    made.rotate({made.stream.stream_id: made.head(6)}, second)
    made.provider.unlisted = {str(second)}
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (second, [])
    del made.provider.objects[str(second)]
    found, problems = newest(made)
    assert found is not None
    assert (found.name, problems) == (first, [("missing-object", None)])


def test_names_are_taken_from_the_listing_of_this_device_alone(vault: TestVault) -> None:
    made = PrunedVault(vault, 2)
    made.put({str(CheckpointName(OTHER, 3, b"h" * 32)): b"", "d/strange": b"", "d/" + "a" * 32 + "/c/1": b""})
    assert newest(made) == (None, [])


def test_one_that_was_late_when_the_keys_were_changed_is_no_damage_and_the_next_takes_its_place(
    vault: TestVault,
) -> None:
    """Made in epoch 1, uploaded when epoch 2 had begun: what it let go is to live until the next one says so."""
    made = PrunedVault(vault, 6)
    late, raw = made.sign(made.checkpoint(3, (1, 3)))
    made.rotate({made.stream.stream_id: made.head(6)}, None)
    made.put({str(late): raw})
    assert made.walked() == ([6, 5, 4, 3, 2, 1], [("checkpoint-outdated", None)])
    assert made.scrubbed() == [("checkpoint-outdated", None)]
    (problem,) = scrub(made.provider).findings
    assert tell(problem).exit is Exit.FAILED
    assert weight([problem]) is Exit.DONE
    verdict = ProviderVerdict("a", required=True, findings=[problem])
    assert verdict.exit() is Exit.DONE
    verdict.findings.append(MissingObject("d/x"))
    assert verdict.exit() is Exit.INTEGRITY
    made.prune(3, 1, 3)
    assert made.walked() == ([6, 5, 4, 3, 1], [])
    assert made.scrubbed() == []
