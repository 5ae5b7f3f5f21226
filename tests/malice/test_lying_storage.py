"""Storage that lies about lengths, ranges, sizes and listings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

import pytest

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault import fetch, snapshots
from chatkeep.daemon.vault.names import ManifestName, PackName
from chatkeep.daemon.vault.unlock import unlock
from chatkeep.daemon.verify import scrub as scrubbing
from chatkeep.daemon.verify.scrub import scrub
from chatkeep.providers import base
from tests.malice.conftest import Attempts
from tests.support.hostile_vault import HostileVault, ask, check_error
from tests.support.limits import MIB, bounded
from tests.support.memory_provider import MemoryProvider
from tests.support.vaults import recovery

Answering = Callable[[bytes, bytes, int], bytes]
"""What a get returns, made of the right answer, the whole object and the offset that was asked for."""

ANSWERS: dict[str, Answering] = {
    "one byte short": lambda right, *_: right[:-1],
    "half": lambda right, *_: right[: len(right) // 2],
    "nothing": lambda *_: b"",
    "one byte more": lambda right, *_: right + b"\0",
    "twice": lambda right, *_: right + right,
    "ten megabytes more": lambda right, *_: right + bytes(10 << 20),
    "ten megabytes before": lambda right, *_: bytes(10 << 20) + right,
    "always the whole object": lambda _, whole, *__: whole,
    "always the beginning": lambda right, whole, _: whole[: len(right)],
    "always the end": lambda right, whole, _: whole[len(whole) - len(right) :],
    "one byte further": lambda right, whole, offset: whole[max(0, offset) + 1 :][: len(right)],
    "backwards": lambda right, *_: right[::-1],
    "zeros": lambda right, *_: bytes(len(right)),
    "noise": lambda right, *_: os.urandom(len(right)),
    "text of an error": lambda *_: b"<html>404 Not Found</html>",
}


class Lying(MemoryProvider):
    """Answers some gets wrongly, and says of every object what it likes."""

    def __init__(
        self, answer: Answering | None = None, about: str = "", every: int = 1, size: int | None = None
    ) -> None:
        super().__init__()
        self.answer, self.about, self.every, self.size = answer, about, every, size
        self.lies = self.asked = 0

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        right = super().get(name, offset, length)
        self.asked += self.about in name
        if self.answer is None or self.about not in name or self.asked % self.every:
            return right
        self.lies += 1
        return self.answer(right, self.objects[name], offset)

    def stat(self, name: str) -> base.ObjectStat:
        found = super().stat(name)
        return found if self.size is None else base.ObjectStat(name, self.size, None)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        for found in super().list(prefix):
            yield found if self.size is None else base.ObjectStat(found.name, self.size, float("nan"))


@pytest.mark.parametrize("what", ANSWERS)
def test_gets_that_are_not_what_was_asked_for(vault: HostileVault, attempts: Attempts, what: str) -> None:
    for about in attempts.all(("epochs/", "slots/", "devices/", "/p/", "/s/", "/c/", "")):
        for every in (1, 2, 3):
            provider = Lying(ANSWERS[what], about, every)
            provider.objects = dict(vault.objects)
            # A longer answer to a range, out of which the right bytes are taken, does no harm and need not be noticed.
            ask(vault, provider, noticed=False)
            assert provider.lies or every > 1


@pytest.mark.parametrize("size", [-1, 0, 1, 1 << 31, 1 << 63, 1 << 200])
def test_sizes_that_are_not_true(vault: HostileVault, attempts: Attempts, size: int) -> None:
    for _ in attempts.all(range(1)):
        provider = Lying(size=size)
        provider.objects = dict(vault.objects)
        answer = ask(vault, provider, noticed=False)
        assert (answer.lost, answer.told) == (0, [])
        for problem in scrub(provider, vault.vault_id).findings:
            check_error(problem)


class Listing(MemoryProvider):
    """Lists more than it has."""

    def __init__(self, more: Callable[[str], Iterator[str]]) -> None:
        super().__init__()
        self.more = more

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        yield from super().list(prefix)
        for name in self.more(prefix):
            if name.startswith(prefix):
                yield base.ObjectStat(name, 10, None)


def junk(count: int | None, pattern: str = "{prefix}junk-{number}") -> Callable[[str], Iterator[str]]:
    head = pattern.split("{", 1)[0]

    def names(prefix: str) -> Iterator[str]:
        if not head.startswith(prefix) and not prefix.startswith(head):
            return  # none of these can begin so
        number = 0
        while count is None or number < count:
            number += 1
            yield pattern.format(prefix=prefix, number=number, hash=f"{number:064x}", id=f"{number:032x}")

    return names


def listing(vault: HostileVault, more: Callable[[str], Iterator[str]]) -> str:
    provider = Listing(more)
    provider.objects = dict(vault.objects)
    said = []
    for act in (
        lambda: ask(vault, provider, noticed=False, lossy=True).told,
        lambda: unlock(provider, recovery()).findings,
        lambda: scrub(provider, vault.vault_id).findings,
    ):
        try:
            said.append(f"{len(act())} findings")
        except ChatkeepError as exc:
            check_error(exc)
            said.append(exc.code)
    return ", ".join(said)


def shapes(vault: HostileVault) -> dict[str, str]:
    """Names that storage can make up, with holes for numbers."""
    device = vault.devices["ben"].device_id
    manifest = str(ManifestName(device, b"s" * 16, 1, bytes(32))).replace("0" * 64, "{hash}")
    return {
        "of nobody": "{prefix}junk-{number}",
        "outside the grammar": "{prefix}../{number}",
        "of slots": "slots/{id}.json",
        "of devices": "devices/{id}.json",
        "of epochs": "epochs/00000004-{hash}",
        "of vaults": "vault/{id}",
        "of streams": f"d/{device.hex()}/s/{{id}}/000000000001-{'0' * 64}",
        "of rival manifests": manifest,
        "of manifests to come": f"d/{device.hex()}/s/{'5' * 32}/{{number:012d}}-{'0' * 64}",
        "of checkpoints": f"d/{device.hex()}/c/{{number:012d}}-{'0' * 64}",
        "of packs": str(PackName(device, bytes(32))).replace("0" * 64, "{hash}"),
    }


MANY = ("of nobody", "outside the grammar", "of slots", "of vaults")


def test_names_without_number(vault: HostileVault, attempts: Attempts, report: Callable[[str], None]) -> None:
    """With `--long` 200,000, in each of some fifteen listings; fewer of those whose objects are asked for."""
    for what, pattern in attempts.all(shapes(vault).items()):
        number = 300
        if attempts.whole:
            number = 200_000 if what in MANY else 2000 if "streams" in what else 20_000
        used = bounded(
            functools.partial(listing, vault, junk(number, pattern)),
            memory=1400 * MIB if attempts.whole else 200 * MIB,
            seconds=600 if attempts.whole else 20,
            space=4096 * MIB,
        )
        report(f"{number:,} names {what}: {used.memory / MIB:.0f} MiB, {used.seconds:.1f} s: {used.said}")


def test_listings_without_end(vault: HostileVault, attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    if not attempts.whole:
        monkeypatch.setattr(fetch, "MOST_NAMES", 2000)
        monkeypatch.setattr(snapshots, "MOST_LISTED", 2000)
        monkeypatch.setattr(scrubbing, "MOST_LISTED", 2000)
    for _, pattern in attempts.all([*shapes(vault).items()][:2]):
        used = bounded(
            functools.partial(listing, vault, junk(None, pattern)), memory=200 * MIB, seconds=120, space=2048 * MIB
        )
        assert used.said.startswith("malformed") or "1 findings" in used.said or "malformed" in used.said
