"""Trees that a thief of a writer credential signs, restored: whatever they hold, nothing outside the target changes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.restore import beneath
from chatkeep.daemon.restore.apply import Choices
from chatkeep.daemon.restore.attributes import Attributes
from chatkeep.daemon.restore.beneath import Beneath
from chatkeep.daemon.restore.snapshot import plan, restore
from chatkeep.daemon.vault.reader import Snapshot, VaultReader
from chatkeep.daemon.vault.snapshots import Stream
from tests.malice.conftest import Attempts
from tests.support.forging import ForgedBlob, Thief, extent, file_record, part
from tests.support.hostile_vault import HostileVault, check_error
from tests.support.restoring import unlock_directories

STREAM = b"a stream of lies"
DIR, FILE, LINK, BASE = 0, 1, 2, 3
EVIL = b"evil"


@pytest.fixture(params=["openat2", "without"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel's own check, and a kernel that does not know the call."""
    monkeypatch.setattr(Beneath, "openat2", None)
    if request.param == "without":

        def unknown(dir_fd: int, path: bytes, flags: int) -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(beneath, "_openat2", unknown)
    return str(request.param)


def outside_of(place: Path) -> dict[str, tuple[object, ...]]:
    """Everything beside and above the target, with all that a restore could change."""
    found: dict[str, tuple[object, ...]] = {}
    top = place.parent
    for above, directories, files in os.walk(top):
        if Path(above) == place:
            directories.clear()
            continue
        for name in [*directories, *files]:
            path = os.path.join(above, name)
            facts = os.lstat(path)
            content: object = None
            if stat.S_ISREG(facts.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            changed = (facts.st_nlink, facts.st_mtime_ns, facts.st_ctime_ns) if Path(path) != place else ()
            found[path] = (facts.st_ino, facts.st_mode, facts.st_uid, *changed, content)
    return found


class Forger:
    """Makes trees out of (path, kind, fields); a file's content is `evil`."""

    def __init__(self, vault: HostileVault) -> None:
        self.vault = vault
        self.thief = Thief(vault.devices["ben"])
        self.name, self.raw, sha256 = self.thief.pack([ForgedBlob(1, EVIL)])
        self.sha256, self.id = sha256, self.thief.ids.id(1, EVIL)  # type: ignore[arg-type]

    def tree(self, *paths: tuple[bytes, int, dict[str, object]]) -> dict[str, bytes]:
        entries, files, contents = [], [], []
        for number, (path, kind, fields) in enumerate(paths, 1):
            own = int(fields.pop("id", number))  # type: ignore[call-overload]
            entries.append([path, own])
            if own == number:
                size = fields.pop("size", len(EVIL) if kind == FILE else 0)
                files.append(file_record(number, kind, size=size, **fields))
                if kind == FILE:
                    contents.append([number, len(EVIL), 0, extent(len(EVIL), 1, 0, self.id)])
        made = part(entries, files, contents, packs=self.sha256)
        return {self.name: self.raw} | self.thief.snapshot(STREAM, made)

    def read(self, objects: dict[str, bytes]) -> tuple[VaultReader, Snapshot]:
        reader = VaultReader([self.vault.storage(objects)], self.vault.opened)
        (snapshot,) = reader.snapshots(reader.chain(Stream(self.thief.credential.device_id, STREAM)))
        return reader, snapshot

    def restore(self, objects: dict[str, bytes], target: Path, choices: Choices) -> str:
        """What came of it: the error's code, or how much was left out."""
        reader, snapshot = self.read(objects)
        try:
            report = restore(reader, snapshot, plan(reader, snapshot), os.fsencode(target), choices)
        except ChatkeepError as exc:
            check_error(exc)
            return exc.code
        for _, problem in report.damaged:
            check_error(problem)
        return f"{report.files} restored"


Paths = list[tuple[bytes, int, dict[str, object]]]


GOOD: tuple[bytes, int, dict[str, object]] = (b"good", FILE, {})


def outside() -> Iterator[tuple[str, Paths]]:
    """Paths that lead out."""
    for path in (
        *(b"..", b"../secret", b"../outside/secret", b"/etc/x", b"a/../../outside/new", b"a/..", b"a\0b", b"a//b"),
        *(b"/", b"./a", b"a/.", b"x" * 256, b"a/" * 2100 + b"b", b"a" * 5000, b".", b"a/../good", b"\0", b"a/"),
    ):
        for kind in (DIR, FILE, LINK):
            yield f"{path[:40]!r} as {kind}", [GOOD, (path, kind, {"target": b"/etc"} if kind == LINK else {})]


def with_links() -> Iterator[tuple[str, Paths]]:
    """Links that lead out, and what would go through them."""
    for target in (
        b"../outside",
        b"/",
        b".",
        b"..",
        b"../../..",
        b"../outside/secret",
        b"/proc/self/cwd",
        b"/dev/fd/3",
    ):
        yield (
            f"a file through a link to {target!r}",
            [
                (b"door", LINK, {"target": target}),
                (b"door/secret", FILE, {}),
                (b"door/outside", DIR, {}),
                (b"door/outside/secret", FILE, {}),
                GOOD,
            ],
        )
        yield (
            f"a link to {target!r} for a directory that others need",
            [
                (b"d", DIR, {}),
                (b"d/x", LINK, {"target": target}),
                (b"d/x/y", FILE, {}),
                (b"z", LINK, {"target": target}),
                GOOD,
            ],
        )
        yield (
            f"beside a database, a link to {target!r}",
            [
                (b"db", BASE, {"flags": 1}),
                (b"db-wal", LINK, {"target": target}),
                (b"db-journal", LINK, {"target": target}),
                (b"db-shm", LINK, {"target": target}),
                GOOD,
            ],
        )
        yield f"the source itself is a link to {target!r}", [(b"", LINK, {"target": target}), GOOD]


def in_shapes() -> Iterator[tuple[str, Paths]]:
    """What no source looks like."""
    yield (
        "links in a chain",
        [
            (b"a", LINK, {"target": b"b"}),
            (b"b", LINK, {"target": b"../outside"}),
            (b"a/secret", FILE, {}),
            GOOD,
        ],
    )
    yield (
        "links in a circle",
        [(b"a", LINK, {"target": b"b"}), (b"b", LINK, {"target": b"a"}), (b"a/x", FILE, {}), GOOD],
    )
    yield "file and directory", [(b"a", FILE, {}), (b"a/b", FILE, {}), (b"a/b/c", FILE, {}), GOOD]
    yield "a directory in itself", [(b"a", DIR, {}), (b"a/a", DIR, {"id": 1}), (b"a/a/a", DIR, {"id": 1}), GOOD]
    yield "a directory and a file of one id", [(b"a", DIR, {}), (b"b", FILE, {"id": 1}), (b"a/b", FILE, {}), GOOD]
    yield (
        "names of one link",
        [(b"a", LINK, {"target": b"../outside"}), (b"b", LINK, {"id": 1}), (b"b/x", FILE, {}), GOOD],
    )
    yield "a file that is a name of the source", [(b"", DIR, {}), (b"a", DIR, {"id": 1}), (b"a/b", FILE, {}), GOOD]
    yield "the source is a file", [(b"", FILE, {}), GOOD]
    yield "capitals", [(b"Good", FILE, {}), (b"GOOD", FILE, {}), (b"good/x", FILE, {}), GOOD]


def with_attributes() -> Iterator[tuple[str, Paths]]:
    """Modes, owners, extended attributes, times."""
    for mode in (0o4755, 0o2755, 0o1777, 0o7777, 0, 0o777):
        yield f"mode {mode:o}", [(b"d", DIR, {"mode": mode}), (b"d/f", FILE, {"mode": mode}), GOOD]
    for owner in (0, 1, 65534, (1 << 32) - 1, (1 << 32) - 2):
        yield (
            f"owner {owner}",
            [(b"d", DIR, {"uid": owner, "gid": owner, "user": b"root"}), (b"d/f", FILE, {"uid": owner}), GOOD],
        )
    for name in (b"root", b"\xff", b"a\nb", b"x" * 5000, b"-1", b"0"):
        yield f"user {name[:10]!r}", [(b"f", FILE, {"user": name, "group": name}), GOOD]
    for name in (
        *(b"security.capability", b"security.selinux", b"security.ima", b"trusted.overlay.opaque", b"trusted.x"),
        *(
            b"system.posix_acl_access",
            b"system.posix_acl_default",
            b"system.",
            b"user.",
            b"user.\xff",
            b"x",
            b"user.a/b",
        ),
        *(b"user." + b"y" * 250, b"btrfs.compression", b"\x1b[2J", b"com.apple.quarantine"),
    ):
        for value in (b"", b"\x01\0\0\x02" + bytes(16), bytes(70_000)):
            yield (
                f"attribute {name[:30]!r} of {len(value)}",
                [
                    (b"d", DIR, {"xattrs": [[name, value]]}),
                    (b"d/f", FILE, {"xattrs": [[name, value]] * 3}),
                    (b"l", LINK, {"xattrs": [[name, value]], "target": b"../outside/secret"}),
                    GOOD,
                ],
            )
    for mtime in (-(1 << 63) + 1, -1, 0, (1 << 63) - 1):
        yield f"time {mtime}", [(b"d", DIR, {"mtime": mtime}), (b"d/f", FILE, {"mtime": mtime}), GOOD]


def with_names() -> Iterator[tuple[str, Paths]]:
    """Names, link targets, sizes."""
    for target in (b"x" * 4095, b"x" * 4096, b"x" * 100_000, b"\xff\xfe", b"\n\x1b[31m"):
        yield f"a link of {len(target)}", [(b"l", LINK, {"target": target}), GOOD]
    for name in (
        b"\x1b[2J\x07",
        b"a\nb",
        b"-rf",
        b"~",
        b"*",
        b"\xff\xfe",
        b"CON",
        b"a" * 255,
        b".chatkeep-restore-",
        b" ",
    ):
        yield f"name {name[:20]!r}", [(name, FILE, {}), (name + b"d"[: 255 - len(name)], DIR, {}), GOOD]
    for size in (1, 5, 1 << 40, 1 << 62):
        yield f"size {size}", [(b"f", FILE, {"size": size}), GOOD]


TREES = {
    what: paths for make in (outside, with_links, in_shapes, with_attributes, with_names) for what, paths in make()
}
CHOICES = {
    "plain": Choices(salvage=True),
    "strict": Choices(),
    "all": Choices(overwrite=True, salvage=True, attributes=Attributes(ownership=True, special_bits=True)),
}


def fresh(place: Path) -> Path:
    return place / "out"


def empty(place: Path) -> Path:
    (place / "out").mkdir()
    return place / "out"


def trapped(place: Path) -> Path:
    """Somebody has put links where the tree will want directories and files."""
    (place / "out").mkdir()
    for name in ("a", "d", "door", "good", "db", "db-wal", "x"):
        (place / "out" / name).symlink_to(place.parent / "outside" / ("secret" if name == "good" else "."))
    return place / "out"


@pytest.mark.parametrize("how", CHOICES)
def test_hostile_trees(vault: HostileVault, place: Path, kernel: str, attempts: Attempts, how: str) -> None:
    forger = Forger(vault)
    before = outside_of(place)
    for what, paths in attempts.some(list(TREES.items()), 40):
        for target in (fresh, empty, trapped):
            try:
                objects = forger.tree(*[(path, kind, dict(fields)) for path, kind, fields in paths])
                forger.restore(objects, target(place), CHOICES[how])
            except Exception as exc:
                raise AssertionError(f"{what}, {target.__name__}") from exc
            assert outside_of(place) == before, f"{what}, {target.__name__}"
            special(place / "out", CHOICES[how])
            empty_out(place)
    assert Beneath.openat2 is (kernel == "openat2")


def special(top: Path, choices: Choices) -> None:
    """No set-id bits, no devices, no privileged attributes unless they were asked for."""
    for above, directories, files in os.walk(top):
        for name in [*directories, *files]:
            path = os.path.join(above, name)
            facts = os.lstat(path)
            kind = stat.S_IFMT(facts.st_mode)
            assert kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            if not choices.attributes.special_bits:
                assert not stat.S_IMODE(facts.st_mode) & 0o7000 or kind == stat.S_IFLNK
                assert not [own for own in os.listxattr(path, follow_symlinks=False) if own[:4] in ("secu", "trus")]
            if not choices.attributes.ownership:
                assert facts.st_uid == os.geteuid()


@pytest.mark.parametrize("target", [fresh, empty], ids=["fresh", "existing"])
@pytest.mark.parametrize("step", [pytest.param(b"d" * 200, marks=pytest.mark.long), b"e"])
def test_as_deep_as_a_path_may_be(
    vault: HostileVault,
    place: Path,
    kernel: str,
    attempts: Attempts,
    step: bytes,
    target: Callable[[Path], Path],
) -> None:
    """A thousand directories, two with `--long`: more than a program may call itself."""
    forger = Forger(vault)
    before = outside_of(place)
    count = (4090 if attempts.whole else 2000) // (len(step) + 1)
    for path in attempts.all((b"/".join([step] * count),)):
        said = forger.restore(forger.tree((path, FILE, {}), GOOD), target(place), Choices())
        assert said == "2 restored"
        assert os.listdir(place) == ["out"]
        assert sorted(os.listdir(place / "out")) == sorted([step.decode(), "good"])
        assert outside_of(place) == before
        subprocess.run(["rm", "-rf", place / "out"], check=True)


@pytest.mark.parametrize("kind", range(4, 256, 7))
def test_kinds_that_are_no_files(vault: HostileVault, place: Path, attempts: Attempts, kind: int) -> None:
    """Devices, pipes, sockets: no record can say them."""
    forger = Forger(vault)
    for target in attempts.all((fresh(place),)):
        assert forger.restore(forger.tree((b"dev", kind, {}), (b"good", FILE, {})), target, Choices()) == "malformed"
        assert os.listdir(place) == []


# --- somebody else who changes the target meanwhile

NORMAL: Paths = [
    (b"", DIR, {}),
    (b"dir", DIR, {}),
    (b"dir/inner", DIR, {"mode": 0o555}),
    (b"dir/inner/secret", FILE, {}),
    (b"dir/secret", FILE, {}),
    (b"dir/again", FILE, {"id": 5}),
    (b"dir/link", LINK, {"target": b"secret"}),
    (b"secret", FILE, {}),
]


class Switch:
    """At the step of that number, a directory becomes a link to one outside."""

    def __init__(self, victim: Path, outside: Path, at: int) -> None:
        self.victim, self.outside, self.at = victim, outside, at
        self.steps = 0
        self.done = False

    def step(self) -> None:
        self.steps += 1
        if self.steps >= self.at and not self.done:
            found = list(self.victim.parent.glob(self.victim.name))
            if found and not found[0].is_symlink():
                found[0].rename(found[0].with_name("moved-away"))
                found[0].symlink_to(self.outside)
                self.done = True


def like_a_target(outside: Path) -> Path:
    """With all the names that a restore makes, moves and removes."""
    for name in ("tree", "parts", "replaced", "inner"):
        (outside / name).mkdir()
        (outside / name / "secret").write_bytes(b"secret")
    (outside / "moving").write_bytes(b"")
    return outside


def empty_out(place: Path) -> None:
    """Nothing is left there."""
    for left in os.listdir(place):
        if (place / left).is_symlink():
            (place / left).unlink()
        else:
            unlock_directories(place / left)
            shutil.rmtree(place / left)


VICTIMS = ("out/dir", "out/dir/inner", "out", ".chatkeep-restore-*", "out/.chatkeep-restore-*", "out/dir/secret")


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("target", [fresh, empty], ids=["fresh", "existing"])
def test_a_directory_that_becomes_a_link_at_any_step(
    vault: HostileVault,
    place: Path,
    kernel: str,
    attempts: Attempts,
    monkeypatch: pytest.MonkeyPatch,
    victim: str,
    target: Callable[[Path], Path],
) -> None:
    """Before each step of a restore that touches the target: the link is never followed."""
    outside = like_a_target(place.parent / "outside")
    forger = Forger(vault)
    objects = forger.tree(*[(path, kind, dict(fields)) for path, kind, fields in NORMAL])
    reader, snapshot = forger.read(objects)
    made = plan(reader, snapshot)
    before = outside_of(place)
    at, opened = Beneath._parent, Beneath.open
    switch = Switch(place / victim, outside, 1 << 30)

    def parent(
        self: Beneath, path: bytes, *, hold: bool = False
    ) -> contextlib.AbstractContextManager[tuple[int, bytes]]:
        switch.step()
        return at(self, path, hold=hold)

    def open_it(self: Beneath, path: bytes, flags: int) -> int:
        switch.step()
        return opened(self, path, flags)

    monkeypatch.setattr(Beneath, "_parent", parent)
    monkeypatch.setattr(Beneath, "open", open_it)
    fired = 0

    def run(number: int) -> int:
        nonlocal switch, fired
        own = target(place)
        for name in ("dir", "dir/inner"):
            if own.exists():
                (own / name).mkdir()
        switch = Switch(place / victim, outside, number)
        choices = Choices(overwrite=True)
        with contextlib.suppress(ChatkeepError):
            restore(reader, snapshot, made, os.fsencode(own), choices)
        fired += switch.done
        after = {path: facts for path, facts in outside_of(place).items() if "/room" not in path}
        assert after == {path: facts for path, facts in before.items() if "/room" not in path}, number
        empty_out(place)
        return switch.steps

    steps = run(1 << 30)
    assert steps > 30
    for number in attempts.some(range(1, steps + 1), 6):
        run(number)
    exists = target is empty
    if not (victim.startswith("out/") and not exists) and not (victim.startswith(".chat") and exists):
        assert fired or victim == "out"
