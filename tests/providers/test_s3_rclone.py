"""`rclone serve s3`: a gateway to a file system, which has no conditional put and shows half of what is being written.

Every clause of the contract is tried on it. Those that it cannot meet are here, with what is left of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from chatkeep.providers import base
from chatkeep.providers.base import Provider
from chatkeep.providers.learned import FRESH
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.s3.provider import S3Provider
from tests.providers.contract import ProviderContract, is_missing, names, raised_by
from tests.providers.stations import Lack
from tests.support import s3_servers
from tests.support.fault_proxy import Fault, FaultProxy

WRITES = r"^PUT /[^/?]+/(?!probe/)"
BODY = random.Random(6).randbytes(300_000)
NAME = f"d/a/p/{hashlib.sha256(BODY).hexdigest()}"


class TestContract(ProviderContract):
    many = 70
    lacks = frozenset({Lack.EXCLUSIVE_CREATE})
    digest = "md5"

    @pytest.fixture
    def provider(self) -> Iterator[Provider]:
        with contextlib.closing(s3_servers.rclone().fresh(page=30)) as provider:
            yield provider

    def test_racing_puts_of_other_bytes(self, provider: Provider) -> None:
        """Two at once overwrite each other, which the probe says; one after the other they do not."""
        assert not provider.probe().exclusive_create
        provider.put("a/0", b"first")
        assert type(raised_by(partial(provider.put, "a/0", b"other"))) is base.ObjectConflict
        assert provider.get("a/0") == b"first"

    def test_racing_puts_of_the_same_bytes(self, provider: Provider) -> None:
        """Who races sees half of what another writes, or is answered with 500. What stands in the end is whole."""
        with ThreadPoolExecutor(8) as pool:
            racing = [pool.submit(provider.put, NAME, BODY) for _ in range(8)]
        ends = [type(each.exception()) for each in racing]
        assert set(ends) <= {type(None), base.ObjectConflict, base.Unavailable}
        assert type(None) in ends
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
        assert names(provider) == [NAME]

    def test_a_reader_sees_all_or_nothing(self, provider: Provider) -> None:
        """A reader can see half. One that comes after the put does not."""
        for _ in range(3):
            provider.put("a/b", BODY)
            assert provider.get("a/b") == BODY
            provider.delete("a/b")
            is_missing(provider, "a/b")

    def test_one_name_inside_another(self, provider: Provider) -> None:
        """It answers 500, like for anything else that goes wrong in it."""
        provider.put("x", b"1")
        assert type(raised_by(partial(provider.put, "x/y", b"2"))) is base.Unavailable
        assert provider.get("x") == b"1"


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(s3_servers.rclone().port) as proxy:
        yield proxy


@pytest.fixture
def bad_line(proxy: FaultProxy) -> Iterator[S3Provider]:
    server = s3_servers.rclone()
    with contextlib.closing(server.provider(server.bucket(), MemoryMemo(), url=proxy.url, read=2.0)) as provider:
        provider.put("first", b"what it can do is asked here")
        yield provider


@pytest.mark.parametrize("name", [NAME, "a/b"])
def test_half_of_a_put_that_broke_is_replaced(proxy: FaultProxy, bad_line: S3Provider, name: str) -> None:
    fault = Fault("reset", on=WRITES)
    proxy.set(fault)
    assert type(raised_by(partial(bad_line.put, name, BODY))) is base.Unavailable
    assert fault.fired == 1
    bad_line.put(name, BODY)
    assert bad_line.get(name) == BODY
    assert type(raised_by(partial(bad_line.put, name, BODY[::-1]))) in (base.ObjectConflict, base.ObjectDamaged)
    assert bad_line.get(name) == BODY


@pytest.mark.parametrize("name", [NAME, "a/b"])
def test_a_put_whose_reply_was_lost(proxy: FaultProxy, bad_line: S3Provider, name: str) -> None:
    fault = Fault("lost", on=WRITES)
    proxy.set(fault)
    assert type(raised_by(partial(bad_line.put, name, BODY))) is base.Unavailable
    assert fault.fired == 1
    bad_line.put(name, BODY)
    assert bad_line.get(name) == BODY
    assert type(raised_by(partial(bad_line.put, "first", b"other bytes"))) is base.ObjectConflict


@pytest.mark.parametrize("name", [NAME, "a/b"])
def test_a_bit_that_flipped_on_the_way_is_refused_by_the_md5(
    proxy: FaultProxy, bad_line: S3Provider, name: str
) -> None:
    fault = Fault("flip-request", on=WRITES)
    proxy.set(fault)
    assert type(raised_by(partial(bad_line.put, name, BODY))) is base.Unavailable
    assert fault.fired == 1
    is_missing(bad_line, name)
    bad_line.put(name, BODY)
    assert bad_line.get(name) == BODY


def test_what_was_learned_of_another_program_at_the_address_is_asked_again(
    proxy: FaultProxy, bad_line: S3Provider
) -> None:
    """A server that keeps to a condition was replaced by one that takes it and overwrites."""
    bad_line.put("a", b"first")
    learned = bad_line.learned.last()
    assert learned is not None
    assert not learned.conditional
    for when in (time.time() - FRESH - 1, time.time() + 3600):  # and by a clock that was ahead
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bad_line.learned, "_now", lambda when=when: when)
            bad_line.learned.keep(dataclasses.replace(learned, conditional=True))
        assert type(raised_by(partial(bad_line.put, "a", b"other"))) is base.ObjectConflict
        assert bad_line.get("a") == b"first"
    asked = [each for each in proxy.seen if "/probe/" in each]
    assert len(asked) > 10
    assert not bad_line._facts().conditional
    bad_line.put("b", b"fresh")
    assert [each for each in proxy.seen if "/probe/" in each] == asked
