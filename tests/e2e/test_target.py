"""Where a restore writes: never over what is there, whole or not at all, and on from where it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.support.station import Station, fill, finish, met, rows
from tests.support.trees import describe


@pytest.fixture
def kept(station: Station) -> Station:
    fill(station.source / "messages.db")
    (station.source / "media").mkdir()
    (station.source / "media" / "one.jpg").write_bytes(os.urandom(100_000))
    (station.source / "media" / "two.jpg").write_bytes(os.urandom(1000))
    station.backup()
    return station


def restoring(station: Station, *words: object) -> list[object]:
    return ["restore", "latest", "--target", station.room / "out", "--key-file", station.key, *words]


def test_everything_comes_back(kept: Station) -> None:
    os.link(kept.source / "media" / "one.jpg", kept.source / "media" / "linked.jpg")
    (kept.source / "link").symlink_to("media/one.jpg")
    (kept.source / "media" / "two.jpg").chmod(0o640)
    with (kept.source / "sparse").open("wb") as file:
        file.truncate(5 << 20)
    kept.backup()
    assert describe(kept.restore("latest", "out")) == describe(kept.source)


def test_an_existing_target_is_left_alone(kept: Station) -> None:
    target = kept.room / "out"
    target.mkdir()
    (target / "mine").write_text("mine")
    done = kept.run(*restoring(kept))
    assert (done.code, done.error) == (1, "target-exists")
    assert "--overwrite" in done.json["error"]["remedy"]
    assert [path.name for path in target.iterdir()] == ["mine"]

    (target / "messages.db").write_text("in the way")
    kept.ok(*restoring(kept, "--overwrite"))
    assert (target / "mine").read_text() == "mine"
    assert len(rows(target / "messages.db")) == 200


def test_a_chosen_file_never_replaces_one(kept: Station) -> None:
    target = kept.room / "out"
    (target / "media").mkdir(parents=True)
    (target / "media" / "one.jpg").write_text("mine")
    assert kept.run(*restoring(kept, "media/one.jpg")).error == "target-exists"
    kept.ok(*restoring(kept, "media/two.jpg"))
    assert (target / "media" / "one.jpg").read_text() == "mine"
    assert sorted(path.name for path in target.rglob("*")) == ["media", "one.jpg", "two.jpg"]


def test_into_the_source(kept: Station) -> None:
    done = kept.run("restore", "latest", "--target", kept.source / "restored", "--key-file", kept.key)
    assert (done.code, done.error) == (2, "target-inside-source")


def test_a_path_that_is_not_in_the_snapshot(kept: Station) -> None:
    done = kept.run(*restoring(kept, "media/one.jpeg"))
    assert (done.code, done.error) == (1, "path-not-in-snapshot")
    assert "Did you mean media/one.jpg?" in done.json["error"]["text"]
    assert not (kept.room / "out").exists()


def test_paths_may_be_typed_as_they_were_on_the_machine(kept: Station) -> None:
    kept.ok(*restoring(kept, kept.source / "media" / "two.jpg"))
    assert [path.name for path in (kept.room / "out").rglob("*.jpg")] == ["two.jpg"]


def test_a_dry_run_writes_nothing(kept: Station) -> None:
    done = kept.ok(*restoring(kept, "--dry-run"))
    assert (done["files"], done["restored"]) == (3, None)
    assert not (kept.room / "out").exists()


def test_neither_configuration_nor_state_is_needed(kept: Station) -> None:
    kept.config.unlink()
    (kept.state).rename(kept.room / "lost")
    assert len(rows(kept.restore("latest", "out") / "messages.db")) == 200


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_short_it_goes_on(station: Station, stop: signal.Signals) -> None:
    for number in range(40):
        (station.source / f"{number:02d}").write_bytes(os.urandom(1 << 20))
    station.backup()

    def begin() -> subprocess.Popen[str]:
        shutil.rmtree(station.room / "out", ignore_errors=True)
        return station.start(*restoring(station))

    # Its staging directory lies beside the target, which is not there yet.
    process = met(begin, lambda: any(path.name.startswith(".") and path.is_dir() for path in station.room.iterdir()))
    process.send_signal(stop)
    process.send_signal(signal.SIGCONT)
    done = finish(process)
    assert done.code in ((-9,) if stop is signal.SIGKILL else (6,))
    assert not (station.room / "out").exists()
    station.ok(*restoring(station))
    assert describe(station.room / "out") == describe(station.source)
    assert not [path for path in station.room.iterdir() if path.name.startswith(".")]


def test_looking_into_a_snapshot(kept: Station) -> None:
    names = [entry["path"] for entry in kept.ok("ls", "latest", "media", "--key-file", kept.key)["entries"]]
    assert names == ["media/one.jpg", "media/two.jpg"]
    for name in ("media/one.jpg", "messages.db"):
        words = kept.argv("cat", "latest", name, "--key-file", kept.key)
        body = subprocess.run(words, capture_output=True, check=True).stdout
        assert body == (kept.source / name).read_bytes()
    assert kept.run("cat", "latest", "media", "--key-file", kept.key, json=False).code == 2
    assert kept.run("ls", "latest", "medai", "--key-file", kept.key).error == "path-not-in-snapshot"


def test_snapshots_by_every_name(kept: Station) -> None:
    fill(kept.source / "messages.db", 10)
    kept.backup()
    unlock = ["--key-file", kept.key]
    second, first = kept.ok("snapshots", *unlock)["snapshots"]
    assert (second["seq"], first["seq"]) == (2, 1)
    for name in ("latest", second["id"][:8], "chat:2", second["time"]):
        assert kept.ok("ls", name, *unlock)["seq"] == 2, name
    assert kept.ok("ls", first["time"], *unlock)["seq"] == 1
    done = kept.run("ls", "99", *unlock)
    assert (done.code, done.error) == (2, "no-such-snapshot")
    assert "The newest is 2 of" in done.json["error"]["remedy"]
    assert kept.run("ls", "whatever", *unlock).code == 2


def test_several_sources_must_be_told_apart(kept: Station) -> None:
    other = kept.room / "other"
    other.mkdir()
    (other / "note").write_text("a note")
    kept.configure(kept.source, other)
    kept.ok("backup")
    done = kept.run("ls", "latest", "--key-file", kept.key)
    assert (done.code, done.error) == (2, "several-snapshots")
    assert kept.ok("ls", "other:latest", "--key-file", kept.key)["entries"][0]["path"] == "note"
    assert kept.ok("ls", "latest", "--source", "chat", "--key-file", kept.key)["source"] == "chat"
    assert "Did you mean 'other'?" in kept.run("ls", "othre:1", "--key-file", kept.key).json["error"]["text"]


@pytest.mark.parametrize("where", ["disk", "disk/restored", "state/restored", "link/restored"])
def test_plain_files_never_go_where_the_vault_is(kept: Station, where: str) -> None:
    """What synchronises the folder of the vault would carry them away, readable."""
    (kept.room / "link").symlink_to(kept.storage())
    before = sorted(kept.storage().rglob("*"))
    done = kept.run("restore", "latest", "--overwrite", "--target", kept.room / where, "--key-file", kept.key)
    assert (done.code, done.error) == (2, "target-inside-vault")
    assert sorted(kept.storage().rglob("*")) == before


def test_the_vault_named_by_hand_takes_no_plain_files_either(kept: Station) -> None:
    words = ["restore", "latest", "--from", kept.storage(), "--key-file", kept.key, "--target", kept.storage() / "out"]
    assert kept.run(*words).error == "target-inside-vault"


def test_a_name_that_is_too_long_is_the_targets(kept: Station) -> None:
    done = kept.run("restore", "latest", "--target", kept.room / ("n" * 300), "--key-file", kept.key)
    assert (done.code, done.error) == (1, "target-unwritable")
    assert "File name too long" in done.json["error"]["text"]
    assert not [path for path in kept.room.iterdir() if path.name.startswith(".")]


def test_a_file_in_the_way_is_not_a_case_for_overwrite(kept: Station) -> None:
    (kept.room / "out").write_text("mine")
    done = kept.run(*restoring(kept, "--overwrite"))
    assert (done.code, done.error) == (1, "target-exists")
    assert "--overwrite" not in done.json["error"]["remedy"]
    assert (kept.room / "out").read_text() == "mine"


def test_the_current_directory_was_removed(kept: Station) -> None:
    gone = kept.room / "gone"
    gone.mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    words = kept.argv("restore", "latest", "--json", "--target", "out", "--key-file", kept.key)
    words.insert(1, "-P")  # Python itself would look there for modules
    done = subprocess.run(["sh", "-c", script, str(gone), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "target-unwritable")
