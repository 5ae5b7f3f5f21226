"""What a backup says of itself, to a person and in its exit code."""

from __future__ import annotations

import errno
import io

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.backup.databases import DatabaseProblem
from chatkeep.daemon.backup.publish import Changes, Published
from chatkeep.daemon.backup.run import SourceResult
from chatkeep.daemon.capture.errors import DatabaseDamaged, SourceBusy, SourceMissing
from chatkeep.daemon.capture.walk import Problem, Reason
from chatkeep.daemon.cli.backup_report import MOST_SHOWN, exit_of, lines_of, value_of
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.service.engine.report import Captured, ProviderReport, Report, SourceReport
from chatkeep.daemon.sync.errors import OutboxDamaged
from chatkeep.daemon.sync.upload import UploadResult
from chatkeep.providers.base import QuotaExceeded


def published(seq: int = 1, changes: Changes | None = None) -> Published:
    return Published(seq, f"d/x/s/y/{seq:012d}-abc", 0, True, 1, 2000, 5000, changes or Changes(1, 2, 3, 0))


def source(*made: Published, error: ChatkeepError | None = None, **result: object) -> SourceReport:
    found = SourceResult("chat", last_seq=len(made), snapshots=list(made))
    for name, value in result.items():
        setattr(found, name, value)
    return SourceReport("chat", None if error else Captured.of(found), error, len(made), 0.5)


def provider(*problems: ChatkeepError, required: bool = True, waiting: int = 0) -> ProviderReport:
    result = UploadResult("disk", 1, 1000, {}, problems, cancelled=False)
    return ProviderReport.of(result, required=required, waiting=(waiting, waiting * 100), seconds=0.1)


def text(report: Report) -> str:
    return "\n".join(lines_of(report, Output(out=io.StringIO(), err=io.StringIO())))


def test_what_changed() -> None:
    report = Report([source(published())], [provider()])
    said = text(report)
    assert "chat: snapshot 1 of 1970" in said
    assert "1 database, 2 files: 5.00 kB" in said
    assert "2.00 kB, compressed and sealed" in said
    assert "disk: has everything, 1.00 kB sent" in said
    assert exit_of(report) is Exit.DONE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (Changes(0, 1, 0, 0), "1 file:"),
        (Changes(0, 0, 2, 0), "attributes of 2 entries:"),
        (Changes(0, 0, 0, 3), "3 paths gone:"),
        (Changes(2, 0, 1, 1), "2 databases, 1 path gone:"),
    ],
)
def test_changes_in_words(changes: Changes, words: str) -> None:
    assert f"changed  {words}" in text(Report([source(published(changes=changes))]))


def test_nothing_changed_is_said_plainly() -> None:
    assert text(Report([source(last_seq=7)])).startswith("chat: nothing changed since snapshot 7")


def test_several_bounded_snapshots_are_one_line() -> None:
    said = text(Report([source(published(1), published(2), pending=3)]))
    assert "snapshot 2 of" in said
    assert "2 of them made" in said
    assert "10.0 kB" in said
    assert "3 files not in the vault yet" in said


def test_problems_are_told_and_weighed() -> None:
    remarks = [
        Problem(b"pipe", Reason.SPECIAL),
        Problem(b"secret\x1b", Reason.UNREADABLE, errno.EACCES),
        DatabaseProblem(b"a.db", DatabaseDamaged(path=b"/chat/a.db", reason="size")),
    ]
    report = Report([source(published(), problems=remarks, busy=1)])
    said = text(report)
    assert "pipe is a socket, pipe or device" in said
    assert "secret\\x1b cannot be read: Permission denied" in said
    assert "ends in the middle of a page" in said
    assert "1 file could not be read at rest" in said
    assert exit_of(report) is Exit.FAILED
    assert exit_of(Report([source(published(), problems=remarks[:1])])) is Exit.DONE
    busy = [DatabaseProblem(b"a.db", SourceBusy(path=b"a.db", reason="pin"))]
    assert exit_of(Report([source(published(), problems=busy)])) is Exit.DONE  # the next backup has it


def test_a_long_list_is_cut_for_people_and_whole_for_programs() -> None:
    many = [Problem(b"pipe%d" % n, Reason.SPECIAL) for n in range(MOST_SHOWN + 5)]
    report = Report([source(published(), problems=many)])
    assert "and 5 more, all in --json" in text(report)
    assert len(value_of(report)["sources"][0]["problems"]) == MOST_SHOWN + 5


def test_the_worst_decides() -> None:
    missing = source(error=SourceMissing(path="/chat"))
    assert "chat: not backed up" in text(Report([missing]))
    assert exit_of(Report([missing])) is Exit.FAILED
    full, damaged = QuotaExceeded(provider="disk"), OutboxDamaged(name="p", path="/o", reason="hash")
    assert exit_of(Report([missing], [provider(full, waiting=2)])) is Exit.STORAGE
    assert exit_of(Report([source(published())], [provider(full, required=False, waiting=2)])) is Exit.DONE
    assert exit_of(Report([source(published())], [provider(damaged, required=False)])) is Exit.INTEGRITY
    assert exit_of(Report([missing], [provider(full)], cancelled=True)) is Exit.CANCELLED
    assert worst([]) is Exit.DONE
    assert worst([Exit.FAILED, Exit.LOCKED, Exit.USAGE]) is Exit.LOCKED


def test_what_waits_is_told() -> None:
    said = text(Report([source(published())], [provider(QuotaExceeded(provider="disk"), waiting=2)]))
    assert "disk: 2 objects of 200 B still to be sent" in said
    assert "Storage is full." in said
    assert "1.00 kB wait to be uploaded" in text(Report([source(published())], waiting=(1, 1000)))
    assert "begin anew" in text(Report([source(published())], renewed=["chat"]))
    assert "Cancelled" in text(Report([SourceReport("chat", None, None, 1, 0.1)], cancelled=True))


def test_what_a_sync_client_was_given_is_not_said_to_be_there() -> None:
    report = Report([source(published())], [provider()])
    name = report.providers[0].name
    said = "\n".join(lines_of(report, Output(), {name}))
    assert f"{name}: everything was handed over" in said
    assert "has everything" not in said


def test_nobody_has_everything_of_what_was_not_backed_up() -> None:
    missing = source(error=SourceMissing(path="/chat"))
    for handed_over in ((), ("disk",)):
        for sources in ([missing], [source(published()), missing]):
            said = "\n".join(lines_of(Report(sources, [provider()]), Output(), handed_over))
            assert "disk: nothing waits to be sent, 1.00 kB sent" in said
            assert "everything" not in said
