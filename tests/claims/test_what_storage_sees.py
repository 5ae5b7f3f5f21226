"""What storage learns beside sizes: nothing from bytes, from names, or from a file that it or a peer already knows."""

from __future__ import annotations

import base64
import collections
import random
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from chatkeep.daemon.backup.anew import begin_anew
from chatkeep.daemon.vault.labels import (
    HASH_SIZE,
    MANIFEST_HEADER,
    PACK_CAPSULE,
    PACK_END,
    PACK_FOOTER,
    PACK_PUBLIC,
    SIGNATURE_SIZE,
)
from tests.support.guessing import sizes, watched
from tests.support.sources import Clock, fill
from tests.support.whole import Device

TAIL = 4096
SENT = (3_000, 90_000, 400_000, 2_500_000)
"""Bytes of files that a peer sends: within one pack's smallest size, some steps, several chunks."""

Room = Callable[[str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with a database and some files that are in the vault before anything is watched."""
    path = tmp_path / "chat"
    (path / "Media").mkdir(parents=True)
    fill(path / "messages.db", 50)
    for size in SENT:
        (path / "Media" / f"known-{size}.jpg").write_bytes(known(size))
    return path


def known(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def seen(objects: dict[str, bytes]) -> list[tuple[str, int, bytes]]:
    """Everything that storage sees of a snapshot but noise: places of objects, sizes, and fields in the clear.

    Hashes and ciphertext are masked (the tests of noise are about them), and so are the number of the snapshot and its
    link, which say how many came before.
    """
    found = []
    for name, body in objects.items():
        place = re.sub(r"[0-9a-f]{64}", "hash", re.sub(r"\d{12}-", "seq-", name))
        if "/p/" in name:
            public = len(body) - PACK_FOOTER + PACK_CAPSULE
            clear = body[:8] + body[public : public + PACK_PUBLIC] + body[-len(PACK_END) :]
        else:
            clear = body[:76] + body[116:MANIFEST_HEADER]  # but seq and the hash of the one before
        found.append((place, len(body), clear))
    return sorted(found)


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_snapshots_of_few_and_of_many_blobs_look_the_same(tmp_path: Path, source: Path) -> None:
    """One file or thirty, if they fill the same step: the number of files, and of blobs, is nowhere to be seen."""
    device = Device.make(tmp_path / "state", Clock())
    looks = []
    with watched(device, source) as watching:
        watching.back_up()
        for parts in (1, 5, 30):
            for number in range(parts):
                (source / f"{parts}-{number}").write_bytes(random.Random(number).randbytes(50_000 // parts))
            looks.append(seen(watching.back_up()))
        (source / "large").write_bytes(random.Random(1).randbytes(70_000))
        larger = seen(watching.back_up())
    assert looks[0] == looks[1] == looks[2]
    assert larger != looks[0]  # the comparison sees what there is to see
    assert [size for _, size, _ in larger] == [32768, 98304, 8192]


@pytest.mark.parametrize("size", SENT)
def test_a_file_that_is_in_the_vault_already_costs_what_a_new_one_does(tmp_path: Path, source: Path, size: int) -> None:
    """A peer sends a file and watches the upload: it does not tell whether the victim has that file."""
    device = Device.make(tmp_path / "state", Clock())
    with watched(device, source) as watching:
        watching.back_up()
        (source / "Media" / "sent-1.jpg").write_bytes(known(size))
        duplicate = seen(watching.back_up())
        (source / "Media" / "sent-2.jpg").write_bytes(random.Random(-size).randbytes(size))
        fresh = seen(watching.back_up())
        (source / "Media" / f"known-{size}.jpg").unlink()
        watching.back_up()
        (source / "Media" / "sent-3.jpg").write_bytes(known(size))
        again = seen(watching.back_up())
    assert duplicate == fresh == again
    assert sum(length for place, length, _ in fresh if "/p/" in place) > size


def test_two_copies_in_one_snapshot_cost_what_two_files_do(tmp_path: Path, source: Path) -> None:
    device = Device.make(tmp_path / "state", Clock())
    looks = []
    with watched(device, source) as watching:
        watching.back_up()
        for round_, seeds in enumerate(((1, 1), (2, 3))):
            for number, seed in enumerate(seeds):
                (source / f"sent-{round_}-{number}").write_bytes(random.Random(seed).randbytes(300_000))
            looks.append(seen(watching.back_up()))
    assert looks[0] == looks[1]


def test_nor_does_it_cost_less_when_the_records_were_lost(tmp_path: Path, source: Path) -> None:
    """A new chain refers to what is known to be there, each copy once: the peer's is sent like any other file."""
    looks = []
    for name, content in (("duplicate", known(400_000)), ("fresh", random.Random(7).randbytes(400_000))):
        device = Device.make(tmp_path / name, Clock())
        device.back_up(source)
        with device.open_state() as state:
            begin_anew(state, state.lineage.active(), [device.provider.name])
            assert state.known.count() > 0
        sent = source / "Media" / "sent.jpg"
        sent.write_bytes(content)
        with watched(device, source) as watching:
            looks.append(sizes(watching.back_up()))
        sent.unlink()
    assert looks[0] == looks[1]
    assert 400_000 < sum(looks[0]) < 600_000  # the peer's file, and nothing else of three megabytes


def test_nothing_changed_is_no_object(tmp_path: Path, source: Path) -> None:
    """And so an object tells that something changed: times of uploads are times of activity."""
    device = Device.make(tmp_path / "state", Clock())
    with watched(device, source) as watching:
        assert len(watching.back_up()) > 1
        requests = len(device.provider.verbs)
        for _ in range(3):
            assert watching.back_up() == {}
        assert device.provider.verbs[requests:] == []
        fill(source / "messages.db", 1)
        assert sizes(watching.back_up()) == [32768, 8192]


# -- noise ------------------------------------------------------------------------------------------------------------


def chi_square(part: bytes) -> float:
    """Pearson's statistic of its bytes against noise: about 255 give or take 23."""
    expected = len(part) / 256
    counts = collections.Counter(part)
    return sum((counts[value] - expected) ** 2 / expected for value in range(256))


def is_noise(part: bytes) -> bool:
    # Eight deviations: a test that failed by chance once in 10^12 runs would be one too many already.
    return abs(chi_square(part) - 255) < 8 * 22.6


def end_of_pack(body: bytes) -> bytes:
    """The last 4 KiB that are sealed, without the fields in the clear behind them: end of pad, directory, capsule."""
    capsule_end = len(body) - PACK_FOOTER + PACK_CAPSULE
    return body[capsule_end - TAIL : capsule_end]


@pytest.mark.parametrize("files", [1, 40])
def test_the_end_of_a_pack_is_noise(tmp_path: Path, source: Path, files: int) -> None:
    """Pad, directory and capsule: nothing shows where one ends and the next begins."""
    for number in range(files):
        (source / f"zeros-{number}").write_bytes(b"\1" * 700)
    device = Device.make(tmp_path / "state", Clock())
    device.back_up(source)
    packs = [body for name, body in device.provider.objects.items() if "/p/" in name]
    assert len(packs) == 2
    for body in packs:
        assert is_noise(end_of_pack(body))
        assert is_noise(body[8:-PACK_FOOTER])
        commit = body[-len(PACK_END) - HASH_SIZE : -len(PACK_END)]
        assert len(set(commit)) > 16
    manifests = [body for name, body in device.provider.objects.items() if "/s/" in name]
    assert all(is_noise(body[MANIFEST_HEADER:-SIGNATURE_SIZE]) for body in manifests)
    # What the test would say of a pad outside the encryption, and of a directory in the clear.
    spoiled = bytearray(end_of_pack(packs[0]))
    spoiled[100:300] = bytes(200)
    assert not is_noise(bytes(spoiled))


# -- content and names ------------------------------------------------------------------------------------------------

SAID = "the meeting is at the old harbour"
FOLDER = "Holiday on Elba"
PHOTO = "IMG-20260131-WA0007.jpg"


def spellings(text: str) -> list[bytes]:
    """As it could be stored by mistake: as it is, in wide characters, in hex, in base64 at each of three offsets."""
    raw = text.encode()
    coded = [base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]
    return [raw, text.encode("utf-16-le"), raw.hex().encode(), *coded]


def occurrences(texts: Sequence[str], bodies: Sequence[bytes]) -> set[str]:
    return {text for text in texts for spelling in spellings(text) if any(spelling in body for body in bodies)}


def test_neither_content_nor_names_are_in_storage(tmp_path: Path, source: Path) -> None:
    (source / FOLDER).mkdir()
    (source / FOLDER / PHOTO).write_bytes(known(5000))
    (source / "notes.txt").write_text(SAID * 5)
    device = Device.make(tmp_path / "state", Clock())
    device.back_up(source, name="a name of a source")
    looked_for = [SAID, FOLDER, PHOTO, "messages.db", "a name of a source", "SQLite format 3", "CREATE TABLE"]
    looked_for += [socket.gethostname(), str(source)] if len(socket.gethostname()) > 5 else [str(source)]
    stored = [*device.provider.objects.values(), *(name.encode() for name in device.provider.objects)]
    assert occurrences(looked_for, stored) == set()
    # The same search where they are: names of files in the records of this machine, all of it in the source.
    kept = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {FOLDER, PHOTO, "messages.db"} <= occurrences(looked_for, kept)
    assert {SAID, "SQLite format 3"} <= occurrences(
        looked_for, [p.read_bytes() for p in source.iterdir() if p.is_file()]
    )


def test_names_of_objects_are_random_or_hashes_and_numbers_in_order(tmp_path: Path, source: Path) -> None:
    """No time, no size, no kind of content: a name is made of ids, hashes, and the number of a snapshot."""
    device = Device.make(tmp_path / "state", Clock())
    device.back_up(source)
    (source / "new").write_bytes(b"x")
    device.back_up(source)
    shape = re.compile(
        r"vault/[0-9a-f]{32}|epochs/\d{8}-[0-9a-f]{64}|slots/[0-9a-f]{32}\.json|devices/[0-9a-f]{32}\.json"
        r"|d/[0-9a-f]{32}/p/[0-9a-f]{64}|d/[0-9a-f]{32}/s/[0-9a-f]{32}/\d{12}-[0-9a-f]{64}"
    )
    names = list(device.provider.objects)
    assert all(shape.fullmatch(name) for name in names)
    assert sorted(int(name.rsplit("/", 1)[1][:12]) for name in names if "/s/" in name) == [1, 2]
