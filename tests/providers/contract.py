"""What every provider must do, as tests: the clauses that need nothing but an open, empty provider.

`test_conformance.py` runs them at every station, `test_broken_providers.py` on providers that are wrong on purpose. So
a clause is a plain method that asserts. A name that ends with a hash is only ever put with the body of that hash: a
provider may declare it to its storage, which then refuses any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from chatkeep.providers.base import Provider
from tests.providers.stations import Lack

HASH = "0123456789abcdef" * 4
BODY = b"body"


def pack(body: bytes) -> str:
    """The name of a pack of these bytes."""
    return f"d/{'a1' * 16}/p/{hashlib.sha256(body).hexdigest()}"


PACK = pack(BODY)

HOSTILE_NAMES = (
    "",
    "/",
    "/etc/passwd",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    ".hidden",
    "a/.tmp",
    "a.",
    "a./b",
    "A",
    "d/ABC",
    "a b",
    "a\\b",
    "a:b",
    "a%2fb",
    "a_b",
    "a~1",
    "a*",
    "a?b",
    "a#b",
    "a\0b",
    "a\nb",
    "a\n",
    "ä",
    "\u212a",  # the Kelvin sign: lower case makes it a k
    "e\u0301",
    "\udc80",
    "a" * 201,
    "/".join(["a"] * 101),
)


def raised_by(call: Callable[[], object]) -> base.ProviderError:
    """The provider error of a call; anything else, or nothing, fails the clause."""
    try:
        call()
    except base.ProviderError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{error!r} left the provider untranslated") from error
    raise AssertionError("no error")


def is_missing(provider: Provider, name: str) -> None:
    """Asserts that both ways to ask say that the object is not there, under the object's name."""
    for call in (lambda: provider.get(name), lambda: provider.get(name, -1), lambda: provider.stat(name)):
        error = raised_by(call)
        assert type(error) is base.ObjectNotFound
        assert error.params["object"] == name
        assert error.params["provider"] == provider.name


def names(provider: Provider, prefix: str = "") -> list[str]:
    """What a listing shows, in order, repetitions included."""
    return sorted(found.name for found in provider.list(prefix))


class ProviderContract:
    """The clauses.

    `many`: more objects than one page of the storage's listing holds; `lacks`: what it cannot do; `digest`: by which
    it refuses a damaged body.
    """

    many = 40
    lacks: frozenset[Lack] = frozenset()
    digest: str | None = None

    @pytest.fixture
    def provider(self) -> Any:
        raise NotImplementedError

    def test_put_is_read_back(self, provider: Provider) -> None:
        large = bytes(range(256)) * 5000
        for name, body in (
            (pack(large), large),
            ("vault/a", b""),
            (pack(b""), b""),
            ("slots/b.json", b"\n"),
            ("c", b"x"),
        ):
            provider.put(name, body)
            assert provider.get(name) == body
            assert type(provider.get(name)) is bytes
            assert provider.stat(name).name == name
            assert provider.stat(name).size == len(body)

    def test_missing_object(self, provider: Provider) -> None:
        is_missing(provider, PACK)
        provider.put(PACK, BODY)
        for near in (PACK[:-1], PACK + "0", "d", f"d/{'a1' * 16}", f"{PACK}/a"):
            is_missing(provider, near)

    def test_ranges(self, provider: Provider) -> None:
        body = bytes(range(100))
        provider.put("a", body)
        for offset in (0, 1, 50, 99, 100, 101, 1000, -1, -50, -99, -100, -101, -1000):
            for length in (None, 0, 1, 49, 50, 51, 99, 100, 101, 1000):
                rest = body[max(offset, -100) :]
                assert provider.get("a", offset, length) == (rest if length is None else rest[:length]), (
                    offset,
                    length,
                )
        with pytest.raises(ValueError):
            provider.get("a", 0, -1)

    def test_ranges_of_an_empty_object(self, provider: Provider) -> None:
        provider.put("a", b"")
        for offset, length in ((0, None), (0, 1), (5, 5), (-1, None), (-5, 2)):
            assert provider.get("a", offset, length) == b""

    def test_same_bytes_again(self, provider: Provider) -> None:
        for _ in range(3):
            provider.put(PACK, BODY)
            provider.put("a", BODY)
        assert provider.get(PACK) == provider.get("a") == BODY
        assert names(provider) == ["a", PACK]

    def test_other_bytes_are_refused(self, provider: Provider) -> None:
        provider.put("slots/a.json", BODY)
        for other in (b"bodz", b"bod", b"body ", b"", b"a longer body"):
            assert type(raised_by(partial(provider.put, "slots/a.json", other))) is base.ObjectConflict
            assert provider.get("slots/a.json") == BODY
            assert provider.stat("slots/a.json").size == 4

    def test_bytes_that_are_not_what_the_name_says(self, provider: Provider) -> None:
        """Nobody need notice, and whoever does must not make the caller try for ever."""
        lying = pack(b"others")
        with contextlib.suppress(base.ObjectDamaged):
            provider.put(lying, BODY)
            assert provider.get(lying) == BODY
        provider.delete(lying)
        is_missing(provider, lying)

    def test_delete(self, provider: Provider) -> None:
        provider.delete("never/there")
        provider.put(PACK, BODY)
        provider.put("other", b"stays")
        for _ in range(2):
            provider.delete(PACK)
            is_missing(provider, PACK)
        assert names(provider) == ["other"]

    def test_a_deleted_name_is_free(self, provider: Provider) -> None:
        provider.put("a/b", b"old")
        assert provider.get("a/b") == b"old"
        provider.delete("a/b")
        provider.put("a/b", b"newer")
        assert provider.get("a/b") == b"newer"
        assert provider.stat("a/b").size == 5

    def test_list_by_prefix(self, provider: Provider) -> None:
        one, other = (pack(body).replace("a1" * 16, "a") for body in (b"1", b"2"))  # d/a/p/6b86..., d/a/p/d473...
        sizes = {one: 1, other: 1, "d/a/s/1": 2, "d/ab/s/1": 3, "d/b/s/1": 4, "devices/a.json": 5, "epochs/1-a": 6}
        for name, size in sizes.items():
            provider.put(name, {one: b"1", other: b"2"}.get(name, b"x" * size))
        inside = [one[: len("d/a/p/") + digits] for digits in (1, 2, 3, 10, 63, 64)]
        for prefix in ("", "d", "d/", "d/a", "d/a/", "d/a/p", "d/a/p/", "d/a/p/d", "e", "x", "d/a/p/6a", *inside):
            assert names(provider, prefix) == sorted(name for name in sizes if name.startswith(prefix)), prefix
        for prefix in (one + "0", one + "/"):
            assert names(provider, prefix) == []
        assert {found.name: found.size for found in provider.list("")} == sizes

    def test_list_of_many(self, provider: Provider) -> None:
        stored = {pack(b"%d" % number): b"%d" % number for number in range(self.many)}
        stored |= {f"d/{'a1' * 16}/s/b/{number:012}": b"" for number in range(self.many)}
        for name, body in stored.items():
            provider.put(name, body)
        assert names(provider, "d/") == sorted(stored)
        assert names(provider, f"d/{'a1' * 16}/p") == sorted(name for name, body in stored.items() if body)

    def test_listing_dropped_half_way(self, provider: Provider) -> None:
        for number in range(5):
            provider.put(f"a/{number}", b"")
        listing = iter(provider.list("a"))
        next(listing)
        del listing
        assert len(names(provider)) == 5

    def test_hostile_names(self, provider: Provider) -> None:
        for name in HOSTILE_NAMES:
            calls = (
                partial(provider.put, name, b"x"),
                partial(provider.get, name),
                partial(provider.stat, name),
                partial(provider.delete, name),
            )
            for call in calls:
                assert type(raised_by(call)) is base.InvalidName, name
        assert names(provider) == []

    def test_hostile_prefixes(self, provider: Provider) -> None:
        for prefix in ("/", "..", "../", "a/../", "a//", "A", ".", "a/.", "a b", "a\0", "ä", "a" * 201):
            assert type(raised_by(partial(names, provider, prefix))) is base.InvalidName

    def test_names_at_the_limit(self, provider: Provider) -> None:
        for name in ("a" * 200, "/".join(["a"] * 100) + "b", "0", "-", "a-b.c.json", "a..b"):
            provider.put(name, b"x")
            assert provider.get(name) == b"x"
            assert names(provider, name) == [name]

    def test_racing_puts_of_the_same_bytes(self, provider: Provider) -> None:
        body = random.Random(1).randbytes(300_000)
        assert self._race([lambda: provider.put(pack(body), body)] * 8) == [None] * 8
        assert provider.get(pack(body)) == body
        assert names(provider) == [pack(body)]

    def test_racing_puts_of_other_bytes(self, provider: Provider) -> None:
        for turn in range(5):
            name = f"a/{turn}"
            bodies = [bytes([each]) * 50_000 for each in range(8)]
            outcomes = self._race([partial(provider.put, name, body) for body in bodies])
            winners = [body for body, error in zip(bodies, outcomes, strict=True) if error is None]
            if Lack.EXCLUSIVE_CREATE in self.lacks:  # what stands is whole, and of one who was not refused
                assert provider.get(name) in winners
            else:
                assert [type(error) for error in outcomes if error is not None] == [base.ObjectConflict] * 7
                assert [provider.get(name)] == winners

    def test_a_reader_sees_all_or_nothing(self, provider: Provider) -> None:
        body = random.Random(2).randbytes(2_000_000)
        done = threading.Event()
        seen: list[bytes | int] = []

        def look() -> None:
            while not done.is_set():
                for call in (lambda: provider.get("a/b"), lambda: provider.stat("a/b").size):
                    # Unavailable: a server that stumbles over an object that goes while it looks. That shows nothing.
                    with contextlib.suppress(base.ObjectNotFound, base.Unavailable):
                        seen.append(call())
                with contextlib.suppress(base.Unavailable):
                    seen.extend(found.size for found in provider.list("a"))

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(look) for _ in range(2)]
            try:
                for _ in range(4):
                    before = len(seen)
                    provider.put("a/b", body)
                    until = time.monotonic() + 20
                    while len(seen) == before and time.monotonic() < until and not any(each.done() for each in readers):
                        done.wait(0.002)
                    provider.delete("a/b")
            finally:
                done.set()
            for reader in readers:
                reader.result()
        assert seen, "nobody looked while it was there"
        assert all(each in (body, len(body)) for each in seen)

    def test_one_name_inside_another(self, provider: Provider) -> None:
        for first, second in (("x", "x/y"), ("z/y", "z")):
            provider.put(first, b"1")
            if Lack.NAME_IN_NAME in self.lacks:
                assert type(raised_by(partial(provider.put, second, b"2"))) is base.InvalidName
                is_missing(provider, second)
                provider.delete(second)
            else:
                provider.put(second, b"2")
                assert provider.get(second) == b"2"
            assert provider.get(first) == b"1"

    def test_probe_reports_and_leaves_nothing(self, provider: Provider) -> None:
        seen = provider.probe()
        assert seen.exclusive_create == (Lack.EXCLUSIVE_CREATE not in self.lacks)
        assert seen.lists_at_once
        assert (seen.deletes, seen.reads, seen.lists) == (True, True, True)
        assert seen.clock_ahead is None or abs(seen.clock_ahead) < 60
        assert seen.modified == (seen.clock_ahead is not None) == (Lack.TIMES not in self.lacks)
        assert seen.refuses_damage == self.digest
        assert names(provider, "probe/") == []

    def test_modified_is_a_time(self, provider: Provider) -> None:
        provider.put("a", b"")
        modified = provider.stat("a").modified
        assert (modified is None) == (Lack.TIMES in self.lacks)
        assert modified is None or modified > 1.6e9
        for found in provider.list("a"):  # some tell whole seconds in one of the two
            assert modified is None or (found.modified is not None and abs(found.modified - modified) <= 1)

    def test_errors_say_what_may_be_done(self, provider: Provider) -> None:
        provider.put("a", b"1")
        for call in (lambda: provider.get("b"), lambda: provider.put("a", b"2"), lambda: provider.get("..")):
            error = raised_by(call)
            assert error.disposition is Disposition.FATAL
            assert str(error).startswith(error.code)

    def test_close_twice(self, provider: Provider) -> None:
        provider.close()
        provider.close()

    @staticmethod
    def _race(calls: list[Callable[[], None]]) -> list[base.ProviderError | None]:
        """Starts all calls at one instant; what each raised. Anything but a conflict fails the clause."""
        barrier = threading.Barrier(len(calls))

        def run(call: Callable[[], None]) -> base.ProviderError | None:
            barrier.wait(10)
            try:
                call()
            except base.ObjectConflict as error:
                return error
            return None

        with ThreadPoolExecutor(len(calls)) as pool:
            return [future.result() for future in [pool.submit(run, call) for call in calls]]
