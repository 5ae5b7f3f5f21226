"""Google Drive makes a second file of a second create. So nothing here may end with two."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.providers import base
from chatkeep.providers.paging import BARREN
from tests.support.drive_machine import UNIT, DriveMachine, fake, machine, steadfast
from tests.support.fake_drive import FOLDER, FakeDrive

__all__ = ["fake", "machine"]

LARGE = random.Random(11).randbytes(3 * UNIT - 1234)
SMALL = b"a manifest"


def pack(body: bytes) -> str:
    return f"d/{'a1' * 16}/p/{hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize("how", ["drop", "before"])
@pytest.mark.parametrize(
    ("call", "body", "after"),
    [
        ("token", SMALL, 0),
        ("files.generateIds", SMALL, 0),
        ("files.list", SMALL, 0),
        ("upload.create", SMALL, 0),
        ("files.get", SMALL, 0),
        ("upload.begin", LARGE, 0),
        ("upload.chunk", LARGE, 0),
        ("upload.chunk", LARGE, 1),
        ("upload.chunk", LARGE, 2),
    ],
)
def test_every_reply_may_be_lost(
    fake: FakeDrive, machine: DriveMachine, call: str, body: bytes, after: int, how: str
) -> None:
    with machine.provider():
        pass  # the folder is there
    with machine.provider(create=False) as provider:
        fault = fake.order(call, after=after, **{how: True})
        steadfast(provider).put(pack(body), body)
        assert fault.fired == 1
        assert provider.get(pack(body)) == body
    assert [each.body for each in fake.named(pack(body))] == [body]


@pytest.mark.parametrize("restart", [False, True])
def test_three_lost_replies_of_one_upload(fake: FakeDrive, machine: DriveMachine, restart: bool) -> None:
    """A chunk, the question after it, and the last chunk, with or without a new process in between."""
    faults = [fake.order("upload.chunk", drop=True), fake.order("upload.status", drop=True)]
    faults.append(fake.order("upload.chunk", after=1, drop=True))
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(machine.provider())
        for _ in range(3):
            with pytest.raises(base.Unavailable):
                provider.put(pack(LARGE), LARGE)
            if restart:
                stack.close()
                provider = stack.enter_context(machine.provider(create=False))
        provider.put(pack(LARGE), LARGE)
        assert provider.get(pack(LARGE)) == LARGE
    assert [each.fired for each in faults] == [1, 1, 1]
    assert len(fake.named(pack(LARGE))) == 1
    assert fake.count("upload.begin") == 1, "what was sent before was sent again"


def test_the_folder_is_made_once(fake: FakeDrive, machine: DriveMachine, tmp_path: Path) -> None:
    made = fake.order("files.create", drop=True)
    with pytest.raises(base.Unavailable), machine.provider():
        pass
    for _ in range(2):
        with machine.provider():
            pass
    assert made.fired == 1
    other = DriveMachine(fake, tmp_path / "two")
    with other.provider() as provider:
        provider.put("a", b"1")
    with machine.provider(create=False) as provider:
        assert provider.get("a") == b"1"
    assert len(fake.named("chatkeep")) == 1


# Stops the process at the very line after (or before) Drive has the file, before anything is written down.
_KILLED = """
import os, signal, sys
from pathlib import Path
from chatkeep.config.storages import DriveOptions
from chatkeep.providers import gdrive, gdrive_finding, gdrive_files
from chatkeep.providers.memo import FileMemo
from chatkeep.providers.registry import Opening

home, origin, where, name, size = sys.argv[1:]
def die(*_arguments, **_named):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "before-create":
    gdrive.DriveProvider._create = die
elif where == "after-create":
    gdrive.DriveProvider._made = die
elif where == "after-begin":
    gdrive_files.DriveFiles.begin_ = gdrive_files.DriveFiles.begin
    def begin(self, *arguments):
        self.begin_(*arguments)
        die()
    gdrive_files.DriveFiles.begin = begin
elif where == "after-keep":
    gdrive_finding.Objects.keep_ = gdrive_finding.Objects.keep
    def keep(self, *arguments):
        self.keep_(*arguments)
        die()
    gdrive_finding.Objects.keep = keep
options = DriveOptions(Path(home, "client.json"))
opening = Opening("drive", options, FileMemo(Path(home, "memo.db")), True)
provider = gdrive.open_drive(opening, endpoint=origin, small=1000, chunk=262144)
provider.put(name, sys.stdin.buffer.read())
"""


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("where", ["before-create", "after-create", "after-begin", "after-keep"])
def test_killed(fake: FakeDrive, tmp_path: Path, where: str, body: bytes) -> None:
    machine = DriveMachine(fake, tmp_path / "killed", on_disk=True)
    if where == "after-begin" and body is SMALL:
        where = "after-create"
    command = [sys.executable, "-c", _KILLED, str(machine.home), fake.origin, where, pack(body), str(len(body))]
    ended = subprocess.run(command, input=body, check=False, capture_output=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert len(fake.named(pack(body))) == (where in ("after-create", "after-keep"))
    with machine.provider(create=False) as provider:
        provider.put(pack(body), body)
        assert provider.get(pack(body)) == body
    assert len(fake.named(pack(body))) == 1
    assert fake.count("files.generateIds") <= 2


def test_the_memo_is_lost(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        provider.put(pack(LARGE), LARGE)
        provider.put("slots/a.json", SMALL)
    again = DriveMachine(fake, machine.home)
    with again.provider(create=False) as provider:
        provider.put(pack(LARGE), LARGE)
        assert provider.get("slots/a.json") == SMALL
        with pytest.raises(base.ObjectConflict):
            provider.put("slots/a.json", b"another")
        provider.delete("slots/a.json")
        with pytest.raises(base.ObjectNotFound):
            provider.stat("slots/a.json")
    assert len(fake.named(pack(LARGE))) == 1


def test_two_machines(fake: FakeDrive, machine: DriveMachine, tmp_path: Path) -> None:
    other = DriveMachine(fake, tmp_path / "two")
    with machine.provider() as one, other.provider() as two:
        one.put("a/b", SMALL)
        assert two.get("a/b") == SMALL
        two.put("a/b", SMALL)
        with pytest.raises(base.ObjectConflict):
            two.put("a/b", b"another")
        two.delete("a/b")
        for provider in (one, two):
            for verb in (provider.get, provider.stat):
                with pytest.raises(base.ObjectNotFound):
                    verb("a/b")
        one.put("a/b", b"newer")  # under another id: the old one is used up
        assert two.get("a/b") == b"newer"
    assert len(fake.named("a/b")) == 1


def test_what_a_lagging_list_costs(fake: FakeDrive, machine: DriveMachine, tmp_path: Path) -> None:
    """Exactly what the provider's page says: two equal files, of which the older is the object, everywhere."""
    other = DriveMachine(fake, tmp_path / "two")
    with machine.provider() as one, other.provider() as two:
        fake.world.lag()
        one.put("a/b", SMALL)
        with pytest.raises(base.ObjectNotFound):
            two.get("a/b")
        two.put("a/b", SMALL)
        assert one.get("a/b") == two.get("a/b") == SMALL
        assert [each.name for each in one.list("a")] == []
        fake.world.settle()
        first, second = fake.named("a/b")
        assert first.created <= second.created
        assert [(each.name, each.size) for each in one.list("a")] == [("a/b", len(SMALL))]
        third = DriveMachine(fake, tmp_path / "three")
        with third.provider() as provider:
            provider.put("a/b", SMALL)
            assert provider.get("a/b") == SMALL
            found = min((each.created, each.id) for each in (first, second))[1]
            with contextlib.closing(third.memo()) as memo:
                assert memo.get("id:a/b") == found.encode()
            provider.delete("a/b")  # both of them: the younger must not take the place of what was deleted
        assert fake.named("a/b") == []
        for provider in (one, two):
            with pytest.raises(base.ObjectNotFound):
                provider.get("a/b")


def test_the_oldest_of_several_then_the_smallest_id(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        folder = fake.named("chatkeep")[0].id
        ids = sorted(fake.world.generate(3))
        for ident, created, body in (
            (ids[0], "2026-05-02T00:00:00.000Z", b"younger"),
            (ids[2], "2026-05-01T00:00:00.000Z", b"same instant, larger id"),
            (ids[1], "2026-05-01T00:00:00.000Z", b"the object"),
        ):
            made = fake.world.create({"id": ident, "name": "a/b", "parents": [folder]}, body, fake.accounts.client_id)
            made.properties = {"a1": "a"}
            made.created = created
        for fake.world.page_limit in (1000, 2, 1):  # also where one page ends among files of one instant
            assert [(each.name, each.size) for each in provider.list("a/")] == [("a/b", len(b"the object"))]
        assert provider.get("a/b") == b"the object"


@pytest.mark.parametrize("lag", [False, True])
def test_trash_is_missing(fake: FakeDrive, machine: DriveMachine, lag: bool) -> None:
    now = [1000.0]
    with machine.provider(clock=lambda: now[0]) as provider:
        provider.put("a/b", SMALL)
        if lag:
            fake.world.lag()
        file = fake.named("a/b")[0]
        file.trashed = True
        with pytest.raises(base.ObjectNotFound):
            provider.stat("a/b")
        now[0] += 60
        with pytest.raises(base.ObjectNotFound):
            provider.get("a/b")
        provider.put("a/b", SMALL)
        assert provider.get("a/b") == SMALL
        assert [each.trashed for each in fake.named("a/b")] == [True, False]


@pytest.mark.parametrize("how", ["trashed", "deleted"])
def test_a_folder_that_is_gone_is_no_empty_vault(fake: FakeDrive, machine: DriveMachine, how: str) -> None:
    now = [1000.0]
    with machine.provider(clock=lambda: now[0]) as provider:
        provider.put("a/b", SMALL)
        folder = fake.named("chatkeep")[0]
        if how == "trashed":
            folder.trashed = True
        else:
            fake.world.delete(folder.id, None)
        now[0] += 60
        for call in (
            lambda: provider.get("a/b"),
            lambda: provider.stat("a/b"),
            lambda: provider.put("c", b"1"),
            lambda: list(provider.list("")),
            lambda: provider.delete("a/b"),
        ):
            with pytest.raises(base.StorageMissing) as caught:
                call()
            assert caught.value.params["path"] == "My Drive/chatkeep"
    with machine.provider() as provider:  # only init makes it anew
        assert list(provider.list("")) == []
        provider.put("c", b"1")
    assert len([each for each in fake.named("chatkeep") if not each.is_trashed()]) == 1


def test_nothing_there_yet(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider(create=False) as provider, pytest.raises(base.StorageMissing):
        provider.get("a")
    assert fake.world.files == {}


def test_what_a_person_puts_beside_it(fake: FakeDrive, machine: DriveMachine) -> None:
    """Files of other programs, or put there by hand: this client does not see them, and leaves them alone."""
    with machine.provider() as provider:
        folder = fake.named("chatkeep")[0].id
        for name, kind in (("a/b", "text/plain"), ("chatkeep", FOLDER)):
            fake.world.create({"name": name, "parents": [folder], "mimeType": kind}, b"", None)
        own = fake.world.create({"name": "Not A Name", "parents": [folder]}, b"", fake.accounts.client_id)
        assert list(provider.list("")) == []
        provider.put("a/b", SMALL)
        assert provider.get("a/b") == SMALL
        provider.delete("a/b")
        assert own.id in fake.world.files
        assert len(fake.named("a/b")) == 1


def test_an_id_that_cannot_be_had(fake: FakeDrive, machine: DriveMachine) -> None:
    """A Drive that says 409 to every id, and has none of them: the put ends."""
    with machine.provider() as provider:
        fault = fake.order("upload.create", status=409, reason="fileIdInUse", times=None)
        with pytest.raises(base.Unavailable) as caught:
            provider.put("a/b", SMALL)
        assert caught.value.params["reason"] == "ids-refused"
        assert 2 <= fault.fired <= 8
        fake.faults.end()
        provider.put("a/b", SMALL)
    assert len(fake.named("a/b")) == 1


@pytest.mark.parametrize("tells", [(), ("md5Checksum",), ("sha256Checksum",)])
def test_by_the_digest_that_there_is(fake: FakeDrive, machine: DriveMachine, tells: tuple[str, ...]) -> None:
    fake.world.tells = tells
    with machine.provider() as provider:
        for name, body in ((pack(SMALL), SMALL), (pack(LARGE), LARGE), ("slots/a.json", SMALL)):
            for _ in range(2):
                provider.put(name, body)
            assert len(fake.named(name)) == 1
        for other in (SMALL[::-1], SMALL + b" ", b""):
            with pytest.raises(base.ObjectConflict):
                provider.put("slots/a.json", other)
        seen = provider.probe()
        assert seen.reports_digest == {(): None, ("md5Checksum",): "md5"}.get(tells, "sha256")
        assert seen.free_bytes is None
        fake.world.quota = fake.world.usage() + 5000
        assert provider.probe().free_bytes == 5000


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_bit_that_flips_on_the_way(fake: FakeDrive, machine: DriveMachine, body: bytes) -> None:
    """Drive tells what it stored: that is compared, and what is not what was sent is taken away again."""
    with machine.provider() as provider:
        wanted = body[-100:] if body is LARGE else body
        fault = fake.order(
            "upload.chunk" if body is LARGE else "upload.create",
            change=lambda sent: sent.replace(wanted, bytes([wanted[0] ^ 1]) + wanted[1:]),
            times=None,
        )
        with pytest.raises(base.Unavailable) as caught:
            provider.put(pack(body), body)
        assert caught.value.params["reason"] == "damaged-on-the-way"
        assert fault.fired >= 1
        assert fake.named(pack(body)) == []
        fake.faults.end()
        provider.put(pack(body), body)
        assert provider.get(pack(body)) == body


def test_ids_are_fetched_in_batches(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        for number in range(60):
            provider.put(f"a/{number}", b"")
        assert fake.count("files.generateIds") == 2
        assert provider.requests()["ids"] == 2
        assert sorted(provider.requests()) == ["get", "ids", "list", "put"]


def test_an_id_is_written_down_before_the_create(fake: FakeDrive, machine: DriveMachine) -> None:
    fault = fake.order("upload.create", before=True)
    with machine.provider() as provider:
        with pytest.raises(base.Unavailable):
            provider.put("a/b", SMALL)
        with contextlib.closing(machine.memo()) as memo:
            noted = memo.get("id:a/b")
        assert noted is not None
        provider.put("a/b", SMALL)
    assert fault.fired == 1
    assert [each.id.encode() for each in fake.named("a/b")] == [noted]


@pytest.mark.parametrize("times", [1, 2])
def test_a_download_that_is_not_found_once_is_no_missing_object(
    fake: FakeDrive, machine: DriveMachine, times: int
) -> None:
    with machine.provider() as provider:
        provider.put(pack(LARGE), LARGE)
        fault = fake.order("files.download", status=404, reason="notFound", times=times)
        assert steadfast(provider).get(pack(LARGE)) == LARGE
        assert fault.fired == times
        assert provider.stat(pack(LARGE)).size == len(LARGE)


@pytest.mark.parametrize("call", ["files.get", "files.download"])
def test_a_page_of_something_on_the_way_tells_of_no_file(fake: FakeDrive, machine: DriveMachine, call: str) -> None:
    fake.world.lag()
    with machine.provider() as provider:
        provider.put(pack(LARGE), LARGE)
        fault = fake.order(call, status=404, text=b"<html>404. That is an error.</html>", times=2)
        with pytest.raises(base.Unavailable):
            provider.stat(pack(LARGE)) if call == "files.get" else provider.get(pack(LARGE))
        fault.times = 0
        assert fault.fired
        assert provider.get(pack(LARGE)) == LARGE


def test_a_listing_that_goes_in_a_circle_ends(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        provider.put("a", SMALL)
        facts = {"id": fake.named("a")[0].id, "name": "a", "size": "10", "createdTime": "2026-01-02T03:04:05.000Z"}
        page = json.dumps({"files": [facts], "nextPageToken": "again"}).encode()
        fault = fake.order("files.list", status=200, text=page, times=None)
        with pytest.raises(base.Unavailable) as caught:
            list(provider.list(""))
        assert caught.value.params["reason"] == "circle"
        assert fault.fired == 1 + BARREN + 1
