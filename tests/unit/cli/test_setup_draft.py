"""What a person answers, and the configuration that comes of it."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from chatkeep.config.applications import APPLICATIONS, Application
from chatkeep.config.proposal import ProposedProvider
from chatkeep.daemon.cli import setup_questions
from chatkeep.daemon.cli.errors import NothingToKeep
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.setup_draft import Asked, Candidate, drafted, from_options, same_disk, understood
from chatkeep.daemon.cli.setup_options import Chosen
from chatkeep.daemon.cli.setup_plan import Name, State, Step
from chatkeep.daemon.cli.setup_questions import plugged_in
from chatkeep.daemon.cli.setup_report import Shown, plan_lines
from chatkeep.daemon.cli.setup_search import Amount, Finding
from chatkeep.daemon.cli.setup_storage import SecretFiles, Storing

FILE = Path("/nowhere/chatkeep.yaml")
MNT = Chosen(ProposedProvider("folder", "folder", {"path": Path("/mnt/backup")}))
OUT = Output()


def given(*sources: Path, store: Path, every: bool = False) -> Asked:
    return Asked(sources, every, Storing(store), SecretFiles(FILE.parent), tries=True)


def application(name: str) -> Application:
    return next(one for one in APPLICATIONS if one.name == name)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("all", [1, 2, 3]),
        (" ALL ", [1, 2, 3]),
        ("none", []),
        ("2", [2]),
        ("3 1", [1, 3]),
        ("1,2, 3", [1, 2, 3]),
        ("2 2", [2]),
        ("0", None),
        ("4", None),
        ("1 4", None),
        ("-1", None),
        ("1-3", None),
        ("one", None),
        ("", None),
        ("²", None),
        ("99999999999999999999", None),
    ],
)
def test_which_numbers_are_meant(said: str, meant: list[int] | None) -> None:
    assert understood(said, 3) == meant


def test_one_application_twice_has_two_names() -> None:
    signal = application("Signal")
    kept = [Finding(Path(f"/home/a/{place.path}"), signal, place) for place in signal.places[:3]]
    draft = drafted(FILE, kept, MNT)
    assert [source.name for source in draft.config.sources] == ["Signal", "Signal-flatpak", "Signal-snap"]
    assert draft.text.count("Signal encrypts its database") == 3


def test_the_size_of_the_first_snapshot_is_no_promise_for_what_was_not_counted() -> None:
    signal, chat = Finding(Path("/home/a/Signal"), application("Signal")), Finding(Path("/home/a/chat"), None)
    for kept, whole, size in (
        ([signal], True, "of about 5.00 kB"),
        ([signal], False, "of more than 5.00 kB"),
        ([signal, chat], True, "of more than 5.00 kB"),
    ):
        draft = drafted(FILE, kept, MNT)
        shown = Shown(draft.config, FILE, draft.text, [Candidate(signal, Amount(2, 5000, whole))])
        step = Step(Name.SNAPSHOT, State.TO_DO)
        assert size in "\n".join(plan_lines(Output(), shown, [step]))


def test_a_name_that_cannot_be_one_is_replaced() -> None:
    kept = [Finding(Path(f"/home/a/{name}"), None) for name in ("-x", "x ", "chat")]
    names = [source.name for source in drafted(FILE, kept, MNT).config.sources]
    assert names == ["source", "source-2", "chat"]


def test_a_directory_named_twice_is_kept_once(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "same").symlink_to("chat")
    draft = from_options(OUT, FILE, (), given(tmp_path / "chat", tmp_path / "same", store=tmp_path / "vault"))
    assert [source.path for source in draft.config.sources] == [tmp_path / "chat"]


def test_what_cannot_be_a_source(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    odd = tmp_path / os.fsdecode(b"chat \xff")
    odd.mkdir()
    for path in (tmp_path / "file", tmp_path / "missing", odd):
        with pytest.raises(click.BadParameter):
            from_options(OUT, FILE, (), given(path, store=tmp_path / "vault"))
    with pytest.raises(NothingToKeep):
        from_options(OUT, FILE, (), given(store=tmp_path / "vault", every=True))


def test_paths_are_absolute_and_know_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat").mkdir()
    draft = from_options(OUT, FILE, (), given(Path("~/chat"), store=Path("vault")))
    assert "path: ~/chat" in draft.text
    assert "path: ~/vault" in draft.text
    assert draft.config.sources[0].path == tmp_path / "chat"


def test_a_disk_that_is_plugged_in_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setattr(setup_questions, "_MEDIA", (f"{tmp_path}/{{user}}",))
    assert plugged_in() == ""
    (tmp_path / "ann/Backup").mkdir(parents=True)
    assert plugged_in() == ""  # a directory, and no disk
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path / "ann/Backup"))
    assert plugged_in() == str(tmp_path / "ann/Backup/chatkeep")
    monkeypatch.setenv("USER", "")
    assert plugged_in() == ""


def test_whether_one_disk_holds_both(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    kept = [Finding(tmp_path / "chat", None)]
    here = Chosen(ProposedProvider("folder", "folder", {"path": tmp_path / "not/there/yet"}))
    elsewhere = Chosen(
        ProposedProvider("folder", "folder", {"path": Path("/proc/vault")})
    )  # certainly another file system
    assert same_disk(drafted(FILE, kept, here).config)
    assert not same_disk(drafted(FILE, kept, elsewhere).config)
