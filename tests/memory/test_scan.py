"""The search itself: what it finds, where, and how it says so."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.memory_scan import Scanner, flags, regions

# Puts what it reads into each kind of memory that a process has, and waits.
PROGRAM = """
import mmap, os, sys
where, kept = sys.argv[1], None
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
if where == "object":
    kept = sys.stdin.buffer.read(32)
else:
    if where == "private":
        kept, at = mmap.mmap(-1, 1 << 20, flags=private), (1 << 20) - 32
    elif where == "shared":
        kept, at = mmap.mmap(-1, 1 << 20), 100
    elif where == "file":
        file = open(sys.argv[2], "r+b")
        kept, at = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE), 50
    elif where == "large":
        kept, at = mmap.mmap(-1, 64 << 20, flags=private), (8 << 20) - 16
    # Straight to where it is to be: what goes through an object is found there, and on the stack.
    assert os.readv(0, [memoryview(kept)[at : at + 32]]) == 32
print("ready", flush=True)
sys.stdin.buffer.read(1)
"""


def holding(secret: bytes, where: str, *more: object) -> subprocess.Popen[bytes]:
    """A process that has it there."""
    argv = [sys.executable, "-c", PROGRAM, where, *map(str, more)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(secret)
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("where", "region"),
    [("object", None), ("private", ""), ("shared", "zero (deleted)"), ("file", "file"), ("large", "")],
)
def test_every_kind_of_memory(tmp_path: os.PathLike[str], where: str, region: str | None) -> None:
    secret, file = secrets.token_bytes(32), os.path.join(tmp_path, "file")
    with open(file, "wb") as stream:
        stream.write(bytes(4096))
    with holding(secret, where, file) as process:
        found = Scanner({"it": secret, "not there": secrets.token_bytes(32)}).look(process.pid)
        process.communicate(b"\n")
    assert found.names == {"it"}
    whole = [hit for hit in found.hits if hit.spelling == "raw"]
    assert whole
    if region is not None:
        assert [hit.region.name.rpartition("/")[2] for hit in whole] == [region], found.told()


@pytest.mark.parametrize(
    "spell",
    [
        bytes,
        lambda secret: secret[:16],
        lambda secret: secret[16:],
        lambda secret: secret.hex().encode(),
        lambda secret: secret.hex().upper().encode(),
        lambda secret: base64.b64encode(secret),
        lambda secret: base64.b64encode(b"k" + secret),
        lambda secret: base64.b64encode(b"ke" + secret),
        lambda secret: base64.urlsafe_b64encode(b"key" + secret),
        lambda secret: base64.urlsafe_b64encode(b"1" + secret + b"2"),
        lambda secret: base64.urlsafe_b64encode(b"12" + secret[:16]),
        lambda secret: repr(list(secret)).encode(),
    ],
)
def test_every_spelling(spell: Callable[[bytes], bytes]) -> None:
    for _ in range(50):
        secret = secrets.token_bytes(32)
        scanner = Scanner({"it": secret, "other": secrets.token_bytes(32)})
        assert scanner.in_bytes(b"before" + spell(secret) + b"after") == {"it"}
        assert not scanner.in_bytes(b"before" + spell(secrets.token_bytes(32)) + b"after")


def test_a_large_process_takes_little_time(tell: Callable[[str], None]) -> None:
    names = {f"secret {number}": secrets.token_bytes(32) for number in range(80)}
    scanner = Scanner(names)
    with holding(names["secret 7"], "large") as process:
        begun = time.process_time()
        found = scanner.look(process.pid)
        took = time.process_time() - begun
        process.communicate(b"\n")
    assert found.bytes > 64 << 20
    assert found.names == {"secret 7"}
    assert took < 1.0  # of this process' own work: the machine may have other things to do
    tell(f"{found.bytes >> 20} MiB for {found.spelled} spellings of {found.secrets} secrets in {took:.2f} s")


def test_a_process_that_is_gone_is_no_process_without_secrets() -> None:
    process = holding(bytes(32), "object")
    process.communicate(b"\n")
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        Scanner({"it": secrets.token_bytes(32)}).look(process.pid)


def test_flags_are_those_of_the_kernel() -> None:
    with holding(bytes(32), "private") as process:
        found = flags(process.pid)
        assert set(regions(process.pid)) <= set(found)
        process.communicate(b"\n")
    assert all("rd" in each for each in found.values())
    assert not any("lo" in each for each in found.values())
