"""`chatkeep providers test`: what is asked of a provider, which row each answer becomes, and what is left behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli import provider_trial
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.provider_findings import Answer, Check, Level, Row, Verdict
from chatkeep.daemon.cli.provider_trial import Trial
from chatkeep.providers import base
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.memory_provider import MemoryProvider

SEEN = base.Capabilities(True, True, True, True, 0.2, 1 << 40, reports_digest="md5", versions=False, object_lock=False)


class Odd(MemoryProvider):
    """A storage that says of itself what it is told to, and can refuse to read, list or delete."""

    seen = SEEN
    refused: frozenset[str] = frozenset()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._ask("get")
        return super().get(name, offset, length)

    def stat(self, name: str) -> base.ObjectStat:
        self._ask("get")
        return super().stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        self._ask("list")
        return super().list(prefix)

    def delete(self, name: str) -> None:
        self._ask("delete")
        super().delete(name)

    def probe(self) -> base.Capabilities:
        return self.seen

    def _ask(self, verb: str) -> None:
        if verb in self.refused:
            raise base.PermissionRefused(provider=self.name)


def tried(
    provider: base.Provider, *, keyed: bool = True, quick: bool = False
) -> tuple[dict[Check, Row], Trial, list[Row]]:
    """Every row by its question, the trial when it was over, and the rows in their order."""
    trial = Trial(provider, lambda _check: None, keyed, quick)
    rows = list(trial.rows())
    assert len({row.check for row in rows}) == len(rows), "a question was answered twice"
    return {row.check: row for row in rows}, trial, rows


def test_all_well() -> None:
    storage = Odd()
    found, trial, rows = tried(storage)
    assert findings.verdict(rows) is Verdict.GOOD
    assert findings.exit_of(rows) is Exit.DONE
    assert set(Check) - found.keys() == {Check.PLACE, Check.ARRIVAL}
    assert (found[Check.UP].value or 0) > 0
    assert (storage.objects, trial.left) == ({}, [])
    sent = {name for verb, name in storage.verbs if verb == "put"}
    assert len(sent) > 2
    assert all(name.startswith("probe/") for name in sent)


def test_quick_sends_no_megabytes() -> None:
    storage = Odd()
    found, _, _ = tried(storage, quick=True)
    assert not {Check.UP, Check.DOWN} & found.keys()
    assert sum(verb == "put" for verb, _ in storage.verbs) == 1


def test_a_credential_that_may_only_put_is_no_fault() -> None:
    storage = Odd()
    storage.refused = frozenset({"get", "list", "delete"})
    storage.seen = dataclasses.replace(SEEN, reads=False, lists=False, deletes=False)
    found, trial, rows = tried(storage)
    assert findings.verdict(rows) is Verdict.PUT_ONLY
    assert findings.exit_of(rows) is Exit.DONE
    assert found[Check.LOGIN].answer is Answer.YES, "it may not look at what is not there, and is let in"
    for check in (Check.READ, Check.LIST, Check.DELETE):
        assert (found[check].answer, found[check].level) == (Answer.NO, Level.WARN)
    assert "Backups work" in found[Check.READ].text
    assert found[Check.UP].answer is Answer.LEFT_OUT, "megabytes that nobody could remove"
    assert Check.RANGE not in found
    assert Check.DOWN not in found
    assert trial.left == list(storage.objects)
    assert len(trial.left) == 1
    said = findings.sentence(Verdict.PUT_ONLY, len(trial.left))
    assert "1 object of the trial could not be removed" in said


def test_nothing_is_read_where_only_reading_is_refused_and_all_is_removed() -> None:
    storage = Odd()
    storage.refused = frozenset({"get"})
    found, _, rows = tried(storage)
    assert findings.verdict(rows) is Verdict.PUT_ONLY
    assert found[Check.UP].answer is Answer.YES
    assert Check.DOWN not in found
    assert storage.objects == {}


@pytest.mark.parametrize(
    ("error", "check", "reached"),
    [
        (base.Unavailable(), Check.REACH, False),
        (base.ClientMissing(type="s3", package="boto3", extra="s3"), Check.REACH, False),
        (base.CredentialRefused(), Check.LOGIN, True),
        (base.LoginNeeded(), Check.LOGIN, True),
        (base.StorageMissing(), Check.PLACE, True),
        (base.Throttled(), Check.WRITE, True),
    ],
)
def test_the_first_no_that_matters_ends_it(error: base.ProviderError, check: Check, reached: bool) -> None:
    fault = Fault("stat", error)
    found, trial, rows = tried(FaultyProvider(Odd(), fault))
    assert fault.fired == 1
    assert (found[check].answer, found[check].level, found[check].error) == (Answer.NO, Level.FAIL, error)
    assert rows[-1] is found[check]
    assert (Check.REACH in found and found[Check.REACH].answer is Answer.YES) == reached
    assert findings.verdict(rows) is Verdict.BAD
    assert findings.exit_of(rows) is Exit.STORAGE
    assert not trial.left


def test_a_wrong_key_that_only_a_put_shows_is_no_accepted_key() -> None:
    refused = Fault("stat", base.PermissionRefused()), Fault("put", base.CredentialRefused())
    found, trial, rows = tried(FaultyProvider(Odd(), *refused))
    assert [fault.fired for fault in refused] == [1, 1]
    assert found.keys() == {Check.REACH, Check.LOGIN}
    assert found[Check.LOGIN].level is Level.FAIL
    assert rows[-1] is found[Check.LOGIN]
    assert not trial.left, "what was refused is not there"


def test_a_missing_folder_is_not_said_to_answer() -> None:
    fault = Fault("stat", base.StorageMissing())
    found, _, _ = tried(FaultyProvider(Odd(), fault), keyed=False)
    assert fault.fired == 1
    assert found.keys() == {Check.PLACE}


def test_a_put_whose_reply_was_lost_leaves_nothing() -> None:
    storage = Odd()
    fault = Fault("put", base.Unavailable(), after=True)
    found, trial, _ = tried(FaultyProvider(storage, fault))
    assert fault.fired == 1
    assert found[Check.WRITE].answer is Answer.NO
    assert (storage.objects, trial.left) == ({}, [])


def test_a_full_storage_says_so() -> None:
    fault = Fault("put", base.QuotaExceeded())
    found, _, rows = tried(FaultyProvider(Odd(), fault))
    assert fault.fired == 1
    assert "full" in found[Check.WRITE].text
    assert findings.exit_of(rows) is Exit.STORAGE


def test_other_bytes_than_it_was_given_are_damage() -> None:
    class Forgetful(Odd):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            body = super().get(name, offset, length)
            return body if offset else body[:-1] + bytes([body[-1] ^ 1])

    found, _, rows = tried(Forgetful())
    assert found[Check.READ].level is Level.FAIL
    assert found[Check.RANGE].answer is Answer.YES
    assert findings.exit_of(rows) is Exit.INTEGRITY


def test_ranges_that_are_answered_with_the_whole_are_damage() -> None:
    class Whole(Odd):
        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            del offset, length
            return super().get(name)

    found, _, rows = tried(Whole())
    assert found[Check.READ].answer is Answer.YES
    assert found[Check.RANGE].level is Level.FAIL
    assert findings.verdict(rows) is Verdict.BAD


def test_stopped_in_the_middle_it_takes_away_what_it_put() -> None:
    storage = Odd()
    rows = Trial(storage, lambda _check: None).rows()
    assert [next(rows).check for _ in range(3)][-1] is Check.WRITE
    assert len(storage.objects) == 1
    rows.close()  # type: ignore[attr-defined]
    assert storage.objects == {}


def test_a_line_that_breaks_while_the_speed_is_measured() -> None:
    storage = Odd()
    fault = Fault("put", base.Unavailable(), skip=2)
    found, _, rows = tried(FaultyProvider(storage, fault))
    assert fault.fired == 1
    assert found[Check.UP].level is Level.FAIL
    assert findings.exit_of(rows) is Exit.STORAGE
    assert storage.objects == {}


def test_a_slow_line_gets_few_and_small_objects() -> None:
    clock = [0.0]

    class Slow(Odd):
        def put(self, name: str, body: bytes) -> None:
            clock[0] += len(body) / 20_000  # bytes a second
            super().put(name, body)

    storage = Slow()
    trial = Trial(storage, lambda _check: None, clock=lambda: clock[0])
    found = {row.check: row for row in trial.rows()}
    assert found[Check.UP].value == pytest.approx(20_000)
    assert sum(verb == "put" for verb, _ in storage.verbs) == 1 + 2, "128 KiB take longer than the time there is"


def of(**seen: object) -> dict[Check, Row]:
    return {row.check: row for row in findings.of_capabilities(dataclasses.replace(SEEN, **seen))}  # type: ignore[arg-type]


def test_each_no_of_the_capabilities_says_what_it_means() -> None:
    found = of(exclusive_create=False, reports_digest=None, clock_ahead=None, free_bytes=None)
    for check in (Check.OVERWRITE, Check.DIGEST, Check.CLOCK, Check.LOCK):
        assert found[check].answer in {Answer.NO, Answer.UNKNOWN}
        assert found[check].text.endswith(".")
    assert found[Check.ROOM].answer is Answer.UNKNOWN
    assert {row.level for row in found.values()} <= {Level.PLAIN, Level.OK}, "none of these hinders a backup"


def test_damage_that_is_refused_counts_more_than_damage_that_is_found_later() -> None:
    assert "md5" in of()[Check.DIGEST].text
    assert "sha256" in of(refuses_damage="sha256")[Check.DIGEST].text
    assert "refused" in of(refuses_damage="sha256")[Check.DIGEST].text


@pytest.mark.parametrize(
    ("versions", "lock", "expected"),
    [
        (True, None, {Check.VERSIONS: Answer.YES}),
        (None, None, {Check.VERSIONS: Answer.UNKNOWN}),
        (False, False, {Check.VERSIONS: Answer.NO, Check.LOCK: Answer.NO}),
        (False, True, {Check.VERSIONS: Answer.NO, Check.LOCK: Answer.YES}),
        (True, False, {Check.VERSIONS: Answer.YES, Check.LOCK: Answer.NO}),
        (False, None, {Check.VERSIONS: Answer.NO}),
    ],
)
def test_what_protects_from_deletion(versions: bool | None, lock: bool | None, expected: dict[Check, Answer]) -> None:
    found = of(versions=versions, object_lock=lock)
    assert {check: row.answer for check, row in found.items() if check in {Check.VERSIONS, Check.LOCK}} == expected
    warned = any("for good" in row.text for row in found.values())
    assert warned == (not versions and not lock)


def test_a_storage_that_lets_nothing_be_deleted_is_not_told_that_it_lets() -> None:
    found = of(versions=False, object_lock=False, deletes=False)
    assert not any("for good" in row.text for row in found.values())
    assert found[Check.VERSIONS].answer is Answer.NO


@pytest.mark.parametrize(
    ("ahead", "answer", "text"),
    [
        (0.4, Answer.YES, "as this machine's"),
        (-42.0, Answer.YES, "42 s behind"),
        (90.0, Answer.NO, "1 min 30 s ahead of"),
        (-3600.0, Answer.NO, "Nothing is pruned"),
    ],
)
def test_clocks(ahead: float, answer: Answer, text: str) -> None:
    row = of(clock_ahead=ahead)[Check.CLOCK]
    assert (row.answer, row.value) == (answer, ahead)
    assert text in row.text
    assert ("Nothing is pruned" in row.text) == (abs(ahead) > findings.CLOCK_REFUSED)


def test_little_room_is_a_warning() -> None:
    row = of(free_bytes=findings.LOW_ROOM - 1)[Check.ROOM]
    assert (row.answer, row.level) == (Answer.NO, Level.WARN)
    assert of(free_bytes=findings.LOW_ROOM)[Check.ROOM].level is Level.OK


def test_handed_over_is_not_stored() -> None:
    row = of(acknowledges=False)[Check.ARRIVAL]
    assert "handed over" in row.text
    assert Check.ARRIVAL not in of()


def test_what_cannot_be_opened() -> None:
    row = provider_trial.of_opening(base.SecretFileRefused(path="/k", reason="mode"))
    assert (row.check, row.level) == (Check.LOGIN, Level.FAIL)
    row = provider_trial.of_opening(base.ClientMissing(type="s3", package="boto3", extra="s3"))
    assert row.check is Check.REACH
    assert "pip install 'chatkeep[s3]'" in row.remedy
