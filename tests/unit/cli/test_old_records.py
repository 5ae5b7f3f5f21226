"""Parts of the state directory that are older than the rest, truncated or exchanged: never a wrong snapshot."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.service.engine import start as backup_start
from chatkeep.daemon.vault.names import ManifestName, parse
from tests.support.station import Station
from tests.support.trees import describe

MANY: list[str] = []  # what was tried


@pytest.fixture(scope="module", autouse=True)
def counted() -> Iterator[None]:
    yield
    print(f"\nold records: {len(MANY)} states of a state directory tried")  # noqa: T201  # numbers of the run


@pytest.fixture
def station(tmp_path: Path) -> Station:
    """Two snapshots; a copy of the state directory as it was after the first is in `image`."""
    made = Station(tmp_path)
    assert main(["--config", str(made.config), "init", "--recovery-key-file", str(made.key)]) == Exit.DONE
    for name in ("a.db", "b.db"):
        fill(made.source / name)
    (made.source / "file").write_bytes(os.urandom(5000))
    assert main(["--config", str(made.config), "--json", "backup"]) == Exit.DONE
    shutil.copytree(made.state, made.room / "image")
    change(made)
    assert main(["--config", str(made.config), "--json", "backup"]) == Exit.DONE
    return made


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE m(id INTEGER PRIMARY KEY, b BLOB)")
        db.executemany("INSERT INTO m(b) VALUES(?)", [(os.urandom(1000),) for _ in range(100)])
        db.commit()


def change(station: Station) -> None:
    for name in ("a.db", "b.db"):
        with closing(sqlite3.connect(station.source / name)) as db:
            db.execute("UPDATE m SET b=randomblob(1000) WHERE id=(SELECT 1 + abs(random() % 100))")
            db.commit()
    (station.source / "file").write_bytes(os.urandom(5000))


def older_database(station: Station) -> None:
    for path in station.state.glob("state.db*"):
        path.unlink()
    for path in (station.room / "image").glob("state.db*"):
        shutil.copy(path, station.state)


def older_tables(station: Station) -> None:
    shutil.rmtree(station.state / "tables")
    shutil.copytree(station.room / "image" / "tables", station.state / "tables")


def older_everything(station: Station) -> None:
    older_database(station)
    older_tables(station)


def tables(station: Station) -> list[Path]:
    found = sorted((station.state / "tables").iterdir())
    assert len(found) == 2
    return found


def truncated_tables(station: Station) -> None:
    for path in tables(station):
        os.truncate(path, path.stat().st_size // 2)


def empty_tables(station: Station) -> None:
    for path in tables(station):
        os.truncate(path, 0)


def no_tables(station: Station) -> None:
    for path in tables(station):
        path.unlink()


def exchanged_tables(station: Station) -> None:
    first, second = tables(station)
    first.rename(station.room / "moment")
    second.rename(first)
    (station.room / "moment").rename(second)


def no_database(station: Station) -> None:
    for path in station.state.glob("state.db*"):
        path.unlink()


def torn_database(station: Station) -> None:
    no_database(station)
    (station.state / "state.db").write_bytes(os.urandom(9000))


FAULTS = [older_database, older_tables, older_everything, truncated_tables, empty_tables, no_tables, exchanged_tables]
LOSSES = [no_database, torn_database]


def run(station: Station, capsys: pytest.CaptureFixture[str], *words: object, code: Exit = Exit.DONE) -> Any:
    capsys.readouterr()
    assert main(["--config", str(station.config), "--json", *map(str, words)]) == code
    return json.loads(capsys.readouterr().out)


def look(station: Station) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(station.state.rglob("*")) if path.is_file()}


def check(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest is what the source is, and every snapshot there is opens and forks nothing."""
    target = station.room / f"out-{len(list(station.room.iterdir()))}"
    run(station, capsys, "restore", "latest", "--target", target, "--key-file", station.key)
    assert describe(target) == describe(station.source)
    deep = run(station, capsys, "verify", "--deep", "--key-file", station.key)["deep"]
    assert deep["findings"] == []
    names = [parse(name) for name in station.objects() if "/s/" in name]
    places = [(one.stream_id, one.seq) for one in names if isinstance(one, ManifestName)]
    assert len(set(places)) == len(places), "a fork"


@pytest.mark.parametrize("changed", [False, True], ids=["at rest", "changed"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
def test_what_is_older_or_damaged(
    station: Station, capsys: pytest.CaptureFixture[str], fault: Callable[[Station], None], changed: bool
) -> None:
    before = look(station)
    fault(station)
    assert look(station) != before
    MANY.append(fault.__name__)
    if changed:
        change(station)
    done = run(station, capsys, "backup")
    assert done["sources"][0]["error"] is None
    rolled_back = fault in (older_database, older_everything)
    assert [one["code"] for one in done["notices"]] == (["state-copied"] if rolled_back else [])
    check(station, capsys)
    change(station)
    assert run(station, capsys, "backup")["notices"] == []
    check(station, capsys)


@pytest.mark.parametrize("fault", LOSSES, ids=lambda fault: str(fault.__name__))
def test_what_is_lost(station: Station, capsys: pytest.CaptureFixture[str], fault: Callable[[Station], None]) -> None:
    fault(station)
    MANY.append(fault.__name__)
    change(station)
    assert run(station, capsys, "backup", code=Exit.LOCKED)["error"]["code"] == "state-lost"
    run(station, capsys, "rebuild", "--key-file", station.key)
    run(station, capsys, "backup")
    check(station, capsys)


def truncate(paths: list[Path]) -> None:
    os.truncate(paths[0], paths[0].stat().st_size - 1)


def remove(paths: list[Path]) -> None:
    paths[0].unlink()


def exchange(paths: list[Path]) -> None:
    bodies = [path.read_bytes() for path in paths[:2]]
    for path, body in zip(paths[:2], reversed(bodies), strict=True):
        path.write_bytes(body)


def flip(paths: list[Path]) -> None:
    body = bytearray(paths[0].read_bytes())
    body[len(body) // 2] ^= 1
    paths[0].write_bytes(body)


@pytest.mark.parametrize("manifest", [False, True], ids=["pack", "manifest"])
@pytest.mark.parametrize("fault", [truncate, remove, exchange, flip], ids=lambda fault: str(fault.__name__))
def test_what_waits_in_the_outbox(
    station: Station, capsys: pytest.CaptureFixture[str], fault: Callable[[list[Path]], None], manifest: bool
) -> None:
    """It never reaches storage; the chain begins anew, and what was acknowledged is not sent again."""
    change(station)
    run(station, capsys, "backup", "--no-upload")
    waiting = [path for path in (station.state / "outbox").iterdir() if path.is_file()]
    waiting.sort(key=lambda path: path.read_bytes().startswith(b"CKSNAP") != manifest)
    assert len(waiting) == 3
    before = look(station)
    fault(waiting)
    assert look(station) != before
    MANY.append(f"outbox {fault.__name__}")
    capsys.readouterr()
    code = main(["--config", str(station.config), "--json", "backup"])
    done = json.loads(capsys.readouterr().out)
    assert done["begun_anew"] == ["chat"]
    # Another size is seen when the backup begins; the same size, when the object is read to be sent.
    resized = any(path.stat().st_size != len(before[str(path)]) for path in waiting if path.exists())
    assert code == (Exit.DONE if resized or fault is remove else Exit.INTEGRITY)
    run(station, capsys, "backup")
    check(station, capsys)


def test_another_machine(station: Station, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_start, "machine_mark", lambda vault_id: b"another machine of" + vault_id)
    before = station.objects()
    done = run(station, capsys, "backup")
    assert [(one["code"], one["params"]["reason"]) for one in done["notices"]] == [("state-copied", "machine")]
    assert done["sources"][0]["snapshot"]["seq"] == 1
    sent = sum(path.stat().st_size for name, path in station.objects().items() if name not in before)
    assert sent < 400_000
    assert run(station, capsys, "backup")["notices"] == []
    check(station, capsys)


def test_what_storage_made_up_is_a_finding_and_no_reason(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    (name, path), *_ = [(name, path) for name, path in station.objects().items() if "/s/" in name]
    junk = path.with_name("000000000009-" + "ab" * 32)
    junk.write_bytes(path.read_bytes())
    stranger = path.parent.with_name("cd" * 16)
    stranger.mkdir()
    (stranger / path.name).write_bytes(path.read_bytes())  # signed by this device, for another stream
    checkpoints = path.parent.parent.with_name("c")
    checkpoints.mkdir()
    (checkpoints / ("000000000003-" + "ef" * 32)).write_bytes(b"nothing")
    capsys.readouterr()
    main(["--config", str(station.config), "--json", "backup"])
    done = json.loads(capsys.readouterr().out)
    assert done["notices"] == []
    assert done["sources"][0]["last_seq"] == 2, "the chain goes on"
    assert {one["code"] for one in done["findings"]} == {"object-mismatch", "malformed"}
    assert name


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 12))])
def test_two_copies_in_any_order_never_fork(station: Station, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """Two, then three state directories that were one, run in any order, for many rounds."""
    choice = random.Random(seed)
    states = [station.state, Path(shutil.copytree(station.state, station.room / "twin"))]
    acknowledged: dict[str, bytes] = {}
    for number in range(16):
        if number == 8:
            states.append(Path(shutil.copytree(choice.choice(states), station.room / "third")))
        station.state = choice.choice(states)
        station.configure(station.source)
        (station.source / "file").write_bytes(f"round {number}".encode())
        snapshot = run(station, capsys, "backup")["sources"][0]["snapshot"]
        acknowledged[snapshot["id"]] = (station.source / "file").read_bytes()
    check(station, capsys)
    told = run(station, capsys, "snapshots", "--all", "--key-file", station.key)
    assert told["findings"] == []
    assert acknowledged.keys() <= {one["id"] for one in told["snapshots"]}
    for number, (snapshot, content) in enumerate(acknowledged.items()):
        target = station.room / f"round-{number}"
        run(station, capsys, "restore", snapshot[:12], "file", "--target", target, "--key-file", station.key)
        assert (target / "file").read_bytes() == content
    MANY.append(f"{len(acknowledged)} turns of copies")


def test_a_database_that_is_damaged_where_it_is_read_late(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """It opens, and turns out to be damaged in the middle of the work: moved aside then, and not met again."""
    with closing(sqlite3.connect(station.state / "state.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name='files'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    body = bytearray((station.state / "state.db").read_bytes())
    body[(page - 1) * size : page * size] = os.urandom(size)
    (station.state / "state.db").write_bytes(body)
    capsys.readouterr()
    code = main(["--config", str(station.config), "--json", "backup"])
    said = json.loads(capsys.readouterr().out)
    assert code != Exit.DONE
    assert "state-damaged" in json.dumps(said)
    assert run(station, capsys, "backup", code=Exit.LOCKED)["error"]["code"] == "state-lost"
    run(station, capsys, "rebuild", "--key-file", station.key)
    run(station, capsys, "backup")
    check(station, capsys)


POLICY = "{everything_for: 0 minutes, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, minimum: 1, grace: 0 days}"


def prune(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the newest goes, and is deleted."""
    station.config.write_text(f"{station.config.read_text().split('retention:')[0]}retention: {POLICY}\n")
    before = station.objects().keys()
    run(station, capsys, "prune", "--yes", "--key-file", station.key)
    gone = before - station.objects().keys()
    assert any("/s/" in name for name in gone), "a manifest was deleted"
    assert any("/p/" in name for name in gone), "a pack was deleted"


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("way", ["rebuild", "anew"])
def test_what_was_pruned_since_is_not_missing(
    station: Station, capsys: pytest.CaptureFixture[str], times: int, way: str
) -> None:
    """Older records expect objects that a checkpoint unknown to them let go; older checkpoints are deleted too."""
    (station.source / "kept").write_bytes(os.urandom(5000))
    run(station, capsys, "backup")
    shutil.rmtree(station.room / "image")
    shutil.copytree(station.state, station.room / "image")
    for _ in range(times):
        change(station)
        run(station, capsys, "backup")
        prune(station, capsys)
    older_everything(station)
    assert run(station, capsys, "verify")["providers"][0]["findings"] == []
    assert run(station, capsys, "backup", code=Exit.LOCKED)["error"]["code"] == "state-rolled-back"
    if way == "rebuild":
        assert run(station, capsys, "rebuild", "--key-file", station.key)["findings"] == []
        assert run(station, capsys, "verify")["providers"][0]["findings"] == []
        run(station, capsys, "backup")
    else:
        run(station, capsys, "backup", "--anew")
    assert run(station, capsys, "verify")["providers"][0]["findings"] == []
    check(station, capsys)
    prune(station, capsys)
    check(station, capsys)
    assert run(station, capsys, "verify")["providers"][0]["findings"] == []


@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_lives_and_is_gone_is_missing_for_older_records_too(
    station: Station, capsys: pytest.CaptureFixture[str], rebuilt: bool
) -> None:
    (station.source / "kept").write_bytes(os.urandom(400_000))
    run(station, capsys, "backup")
    shutil.rmtree(station.room / "image")
    shutil.copytree(station.state, station.room / "image")
    path = max(
        (path for name, path in station.objects().items() if "/p/" in name), key=lambda path: path.stat().st_size
    )
    change(station)
    run(station, capsys, "backup")
    prune(station, capsys)
    assert path.exists(), "what lives needs it"
    older_everything(station)
    path.unlink()
    if rebuilt:
        assert run(station, capsys, "rebuild", "--key-file", station.key)["lacking_blobs"] > 0
        run(station, capsys, "backup")
    found = run(station, capsys, "verify", code=Exit.INTEGRITY)["providers"][0]["findings"]
    assert [(one["code"], one["params"]["name"].split("/")[-1]) for one in found] == [("missing-object", path.name)]


def test_rebuilt_records_know_what_storage_has(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    """And so does an older copy of them: nothing is sent again."""
    (station.source / "large").write_bytes(os.urandom(900_000))
    run(station, capsys, "backup")
    no_database(station)
    assert run(station, capsys, "backup", code=Exit.LOCKED)["error"]["code"] == "state-lost"
    run(station, capsys, "rebuild", "--key-file", station.key)
    packs = sum("/p/" in name for name in station.objects())
    assert run(station, capsys, "verify")["providers"][0]["expected_objects"] == packs
    run(station, capsys, "backup")
    shutil.rmtree(station.room / "image")
    shutil.copytree(station.state, station.room / "image")
    change(station)
    run(station, capsys, "backup")
    older_everything(station)
    before = station.objects()
    done = run(station, capsys, "backup")
    assert [(one["code"], one["params"]["reason"]) for one in done["notices"]] == [("state-copied", "ahead")]
    sent = sum(path.stat().st_size for name, path in station.objects().items() if name not in before)
    assert sent < 400_000
    check(station, capsys)
    stored = run(station, capsys, "prune", "--dry-run", "--key-file", station.key)["stored_bytes"]
    assert stored > 900_000


def test_a_rebuild_settles_what_was_noticed_of_a_copy(station: Station, capsys: pytest.CaptureFixture[str]) -> None:
    older_everything(station)
    run(station, capsys, "backup")
    assert [one["about"] for one in run(station, capsys, "status")["problems"]] == ["records"], "a person should look"
    shutil.rmtree(station.room / "image")
    shutil.copytree(station.state, station.room / "image")
    change(station)
    run(station, capsys, "backup")
    prune(station, capsys)
    older_everything(station)
    assert run(station, capsys, "backup", code=Exit.LOCKED)["error"]["code"] == "state-rolled-back"
    run(station, capsys, "rebuild", "--key-file", station.key)
    run(station, capsys, "backup")
    assert run(station, capsys, "status")["problems"] == []
