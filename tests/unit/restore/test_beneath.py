from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.errors import NoSpace, TargetUnwritable, UnsafePath, writing
from chatkeep.daemon.vault.errors import Malformed


@pytest.fixture(params=["openat2", "walk"])
def top(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beneath]:
    """A directory with a link out of it, once through the kernel's own check and once without."""
    (tmp_path / "outside" / "inner").mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (tmp_path / "top" / "real").mkdir(parents=True)
    (tmp_path / "top" / "out").symlink_to("../outside")
    (tmp_path / "top" / "inside").symlink_to("real")
    (tmp_path / "top" / "file").write_bytes(b"file")
    monkeypatch.setattr(Beneath, "openat2", None if request.param == "openat2" else False)
    with Beneath(tmp_path / "top") as beneath:
        if request.param == "openat2":
            assert Beneath.openat2, "this kernel is too old to test the call"
        yield beneath


STEPS: list[Callable[[Beneath, bytes], object]] = [
    lambda top, path: top.create(path),
    lambda top, path: top.make_directory(path),
    lambda top, path: top.symlink(b"x", path),
    lambda top, path: top.open(path, os.O_RDONLY),
    lambda top, path: top.lstat(path),
    lambda top, path: top.unlink(path),
    lambda top, path: top.link(b"file", top, path),
    lambda top, path: top.rename(b"file", top, path),
    lambda top, path: top.rename(path, top, b"new"),
]


@pytest.mark.parametrize("step", range(len(STEPS)))
@pytest.mark.parametrize(
    "path", [b"out/secret", b"out/inner/new", b"inside/new", b"real/../../outside/secret", b"/etc/x"]
)
def test_no_step_leaves_the_directory(top: Beneath, tmp_path: Path, step: int, path: bytes) -> None:
    before = sorted(str(own) for own in (tmp_path / "outside").rglob("*"))
    with pytest.raises((Malformed, OSError)):
        STEPS[step](top, path)
    assert sorted(str(own) for own in (tmp_path / "outside").rglob("*")) == before
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
    assert list((tmp_path / "top" / "real").iterdir()) == []


@pytest.mark.parametrize("link", [b"out", b"inside"])
def test_a_link_itself_is_never_opened_or_created_over(top: Beneath, link: bytes) -> None:
    with pytest.raises(UnsafePath), writing(link):
        top.open(link, os.O_RDONLY)
    with pytest.raises(FileExistsError):
        top.create(link)
    with pytest.raises(FileExistsError):
        top.make_directory(link)


def test_steps_inside_work(top: Beneath, tmp_path: Path) -> None:
    assert top.make_directory(b"real/deep")
    assert not top.make_directory(b"real/deep")
    os.close(top.create(b"real/deep/a"))
    top.link(b"real/deep/a", top, b"b")
    top.symlink(b"/etc/passwd", b"real/deep/l")
    top.rename(b"b", top, b"real/c")
    assert top.lstat(b"real/missing/x") is None
    facts = top.lstat(b"real/c")
    assert facts is not None
    assert facts.st_nlink == 2
    top.unlink(b"real/c")
    assert sorted(os.listdir(tmp_path / "top" / "real" / "deep")) == ["a", "l"]
    top.unlink(b"real/deep/a")
    top.unlink(b"real/deep/l")
    top.remove_directory(b"real/deep")


def test_a_directory_that_a_link_replaces_is_still_the_old_one(top: Beneath, tmp_path: Path) -> None:
    os.close(top.create(b"real/a"))
    (tmp_path / "top" / "real").rename(tmp_path / "top" / "moved")
    (tmp_path / "top" / "real").symlink_to("../outside")
    os.close(top.create(b"real/b"))
    assert sorted(os.listdir(tmp_path / "top" / "moved")) == ["a", "b"]
    top.forget()
    with pytest.raises(OSError):
        top.create(b"real/c")


def test_more_directories_than_are_held_open(top: Beneath) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        top.make_directory(b"%d" % number)
        os.close(top.create(b"%d/a" % number))
    for number in range(199):
        top.rename(b"%d/a" % number, top, b"%d/b" % (199 - number))
    assert len(os.listdir("/proc/self/fd")) - before < 100


@pytest.mark.parametrize(
    ("number", "error"), [(28, NoSpace), (122, NoSpace), (40, UnsafePath), (18, UnsafePath), (13, TargetUnwritable)]
)
def test_errors_of_the_system_are_named(number: int, error: type[Exception]) -> None:
    with pytest.raises(error), writing(b"a"):
        raise OSError(number, "x")
