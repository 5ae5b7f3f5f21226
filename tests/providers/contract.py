"""What every provider must do, as tests. A provider's test class inherits these and supplies one fixture, `provider`.

`test_broken_providers.py` runs the same clauses on providers that are wrong on purpose, so a clause is a plain method
that asserts and takes nothing but an open, empty provider.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from chatkeep.providers.base import Provider

HASH = "0123456789abcdef" * 4
PACK = f"d/{'a1' * 16}/p/{HASH}"

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
    """The clauses. `many`: more objects than one page of the storage's listing holds."""

    many = 40

    @pytest.fixture
    def provider(self) -> Any:
        raise NotImplementedError

    def test_put_is_read_back(self, provider: Provider) -> None:
        for name, body in ((PACK, bytes(range(256)) * 5000), ("vault/a", b""), ("slots/b.json", b"\n"), ("c", b"x")):
            provider.put(name, body)
            assert provider.get(name) == body
            assert type(provider.get(name)) is bytes
            assert provider.stat(name).name == name
            assert provider.stat(name).size == len(body)

    def test_missing_object(self, provider: Provider) -> None:
        is_missing(provider, PACK)
        provider.put(PACK, b"x")
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
            provider.put(PACK, b"body")
        assert provider.get(PACK) == b"body"
        assert names(provider) == [PACK]

    def test_other_bytes_are_refused(self, provider: Provider) -> None:
        provider.put(PACK, b"body")
        for other in (b"bodz", b"bod", b"body ", b"", b"a longer body"):
            assert type(raised_by(partial(provider.put, PACK, other))) is base.ObjectConflict
            assert provider.get(PACK) == b"body"
            assert provider.stat(PACK).size == 4

    def test_delete(self, provider: Provider) -> None:
        provider.delete("never/there")
        provider.put(PACK, b"body")
        provider.put("other", b"stays")
        for _ in range(2):
            provider.delete(PACK)
            is_missing(provider, PACK)
        assert names(provider) == ["other"]

    def test_a_deleted_name_is_free(self, provider: Provider) -> None:
        provider.put(PACK, b"old")
        assert provider.get(PACK) == b"old"
        provider.delete(PACK)
        provider.put(PACK, b"newer")
        assert provider.get(PACK) == b"newer"
        assert provider.stat(PACK).size == 5

    def test_list_by_prefix(self, provider: Provider) -> None:
        stored = [
            "d/a/p/" + HASH,
            "d/a/p/" + "f" * 64,
            "d/a/s/1",
            "d/ab/s/1",
            "d/b/s/1",
            "devices/a.json",
            "epochs/1-a",
        ]
        for name in stored:
            provider.put(name, name.encode())
        for prefix in ("", "d", "d/", "d/a", "d/a/", "d/a/p", "d/a/p/", "d/a/p/0", "d/a/p/01", "d/a/p/0123", "d/a/p/f"):
            assert names(provider, prefix) == sorted(name for name in stored if name.startswith(prefix)), prefix
        for prefix in ("d/a/p/" + HASH, "e", "x", "d/a/p/02", "d/a/p/" + HASH + "0", "d/a/p/" + HASH + "/"):
            assert names(provider, prefix) == [name for name in stored if name.startswith(prefix)], prefix
        assert {found.name: found.size for found in provider.list("d")} == {
            name: len(name) for name in stored if name.startswith("d")
        }

    def test_list_of_many(self, provider: Provider) -> None:
        stored = [f"d/a/p/{number * 2654435761 % 2**32:08x}{number:056x}" for number in range(self.many)]
        stored += [f"d/a/s/b/{number:012}" for number in range(self.many)]
        for name in stored:
            provider.put(name, b"")
        assert names(provider, "d/") == sorted(stored)
        assert names(provider, "d/a/p") == sorted(stored[: self.many])

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
        self._race([lambda: provider.put(PACK, body)] * 8)
        assert provider.get(PACK) == body
        assert names(provider) == [PACK]

    def test_racing_puts_of_other_bytes(self, provider: Provider) -> None:
        for turn in range(5):
            name = f"a/{turn}"
            bodies = [bytes([each]) * 50_000 for each in range(8)]
            outcomes = self._race([partial(provider.put, name, body) for body in bodies])
            winners = [body for body, error in zip(bodies, outcomes, strict=True) if error is None]
            assert [type(error) for error in outcomes if error is not None] == [base.ObjectConflict] * 7
            assert [provider.get(name)] == winners

    def test_a_reader_sees_all_or_nothing(self, provider: Provider) -> None:
        body = random.Random(2).randbytes(2_000_000)
        done = threading.Event()
        seen: list[bytes | int] = []

        def look() -> None:
            while not done.is_set():
                for call in (lambda: provider.get("a/b"), lambda: provider.stat("a/b").size):
                    with contextlib.suppress(base.ObjectNotFound):
                        seen.append(call())
                seen.extend(found.size for found in provider.list("a"))

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(look) for _ in range(2)]
            try:
                for _ in range(4):
                    provider.put("a/b", body)
                    provider.delete("a/b")
            finally:
                done.set()
            for reader in readers:
                reader.result()
        assert all(each in (body, len(body)) for each in seen)

    def test_one_name_inside_another(self, provider: Provider) -> None:
        for first, second in (("x", "x/y"), ("z/y", "z")):
            provider.put(first, b"1")
            try:
                provider.put(second, b"2")
            except base.InvalidName:  # a file system cannot hold both
                is_missing(provider, second)
                provider.delete(second)
            else:
                assert provider.get(second) == b"2"
            assert provider.get(first) == b"1"

    def test_probe_reports_and_leaves_nothing(self, provider: Provider) -> None:
        seen = provider.probe()
        assert seen.exclusive_create
        assert seen.deletes
        assert seen.clock_ahead is None or abs(seen.clock_ahead) < 60
        assert seen.modified == (seen.clock_ahead is not None)
        assert names(provider, "probe/") == []

    def test_modified_is_a_time(self, provider: Provider) -> None:
        provider.put("a", b"")
        modified = provider.stat("a").modified
        assert modified is None or modified > 1.6e9
        assert [found.modified for found in provider.list("a")] == [modified]

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
