"""Names that a thief of a writer credential signs, shown to a person: nothing in them drives the terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from chatkeep.daemon.keys.recovery import RecoveryKey
from chatkeep.providers.folder import FolderProvider
from tests.malice.conftest import Attempts
from tests.malice.test_hostile_trees import DIR, FILE, LINK, STREAM, Forger
from tests.support.hostile_vault import HostileVault

ESCAPES = "[/red][bold]x\x1b[31m\x1b]0;title\x07\n\r\b\u202e\u2066\x9b"
"""Markup of the library that draws, a colour, a window title, a bell, other lines, text from right to left."""


@pytest.mark.parametrize("words", [["snapshots"], ["ls"], ["restore"], ["restore", "--json"], ["verify", "--deep"]])
def test_names_do_not_drive_the_terminal(
    vault: HostileVault, tmp_path: Path, attempts: Attempts, words: list[str]
) -> None:
    forger = Forger(vault)
    name = ESCAPES.encode()
    objects = forger.tree(
        (name, DIR, {}),
        (name + b"/" + name, FILE, {"xattrs": [[name, b""]], "user": name, "group": name}),
        (b"link", LINK, {"target": name}),
        (b"pending" + name, FILE, {"flags": 1}),
        (b"size" + name, FILE, {"size": 1}),
    )
    _, snapshot = forger.read(objects)
    body = msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot.manifest))
    body[3:6] = [ESCAPES, name, ESCAPES]
    manifest, raw = forger.thief.manifest(STREAM, 1, bytes(32), body)
    disk = FolderProvider("disk", tmp_path / "disk", create=True)
    for own, content in vault.objects.items() | {one for one in objects.items() if "/s/" not in one[0]}:
        disk.put(own, content)
    disk.put(manifest, raw)
    key = tmp_path / "key"
    key.write_text("\n".join(RecoveryKey(bytearray(b"7" * 56)).lines))
    key.chmod(0o600)
    places = [manifest.rsplit("-", 1)[1][:12]] if words[0] in ("ls", "restore") else []
    target = ["--target", str(tmp_path / "out")] if words[0] == "restore" else []
    for command in attempts.all([[*words, *places, *target, "--from", str(tmp_path / "disk"), "--key-file", str(key)]]):
        done = subprocess.run(
            [sys.executable, "-m", "chatkeep.daemon.cli.main", *command],
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
            check=False,
        )
        said = (done.stdout + done.stderr).decode()
        assert "Traceback" not in said, said[-2000:]
        assert done.returncode in (0, 5)
        assert "x" in said
        assert not {own for own in said if not own.isprintable()} - {"\n", "\t"}
