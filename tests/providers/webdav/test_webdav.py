"""What is particular to WebDAV, on Apache and wsgidav: ways to log in, servers that differ, collections, the root."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.learned import FRESH
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.webdav import STALE_AFTER, WebdavProvider
from chatkeep.providers.webdav_wire import Password, Wire
from tests.providers.contract import is_missing, names, raised_by
from tests.providers.webdav.places import BODY, NUMBERS, Open, files_in, folder_of, fresh
from tests.support import apache, wsgidav_server
from tests.support.fault_proxy import Fault, FaultProxy, broken

LOCK = (
    b'<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
    b"</lockinfo>"
)


# Whole or absent, and never in place of other bytes


def test_a_put_that_breaks_off_leaves_nothing(server: apache.Apache, opened: Open) -> None:
    """wsgidav writes into the file as the body arrives, so half of it stands under the name that was put to."""
    url = fresh(server)
    provider = opened(url)
    with contextlib.suppress(httpx.HTTPError), httpx.Client(auth=(apache.USER, apache.PASSWORD)) as client:

        def half() -> Iterator[bytes]:
            yield BODY
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not files_in(folder_of(server, url)):
                time.sleep(0.01)
            raise httpx.WriteError("cut")

        client.put(f"{url}/direct", content=half(), headers={"Content-Length": str(2 * len(BODY))})
    if isinstance(server, wsgidav_server.Wsgidav):
        assert provider.stat("direct").size in range(2 * len(BODY))
    told: list[int] = []

    class Cut(Exception):
        pass

    def cut(size: int) -> None:
        told.append(size)
        if len(told) == 4:
            raise Cut

    with pytest.raises(Cut):
        provider.put_paced("d/a", BODY, cut)
    is_missing(provider, "d/a")
    assert names(provider, "d/") == []
    provider.put("d/a", BODY)
    assert provider.get("d/a") == BODY


def test_a_server_that_replaces_is_found_out(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    with pydav.switched("overwrites", overwrites=True) as fired:
        provider = opened(fresh(pydav))
        provider.put("a/b", b"first")
        assert fired() >= 1
        assert not provider._known_habits().refuses
        assert type(raised_by(partial(provider.put, "a/b", b"other"))) is base.ObjectConflict
        assert provider.get("a/b") == b"first"
        provider.put("a/b", b"first")


def test_a_server_that_replaces_since(
    pydav: wsgidav_server.Wsgidav, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other software may stand at an address. What was found out is asked again after a week."""
    provider = opened(fresh(pydav))
    provider.put("a/b", b"first")
    assert provider._known_habits().refuses
    with pydav.switched("overwrites", overwrites=True) as fired:
        before = fired()
        monkeypatch.setattr(provider._habits, "_now", lambda: time.time() + FRESH)
        assert type(raised_by(partial(provider.put, "a/b", b"other"))) is base.ObjectConflict
        assert fired() > before
        assert not provider._known_habits().refuses
    assert provider.get("a/b") == b"first"


def test_writers_that_race_at_a_server_that_replaces(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    with pydav.switched("overwrites", overwrites=True) as fired:
        provider = opened(fresh(pydav))
        provider.put("a/first", b"")
        barrier = threading.Barrier(8)

        def put(number: int) -> type[base.ProviderError] | None:
            barrier.wait(10)
            try:
                provider.put("a/b", bytes([number]) * 1000)
            except base.ObjectConflict as error:
                return type(error)
            return None

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(put, range(8)))
        assert fired() >= 2
        assert outcomes.count(base.ObjectConflict) == 7
        assert provider.get("a/b") == bytes([outcomes.index(None)]) * 1000


def test_what_was_found_out_is_remembered(httpd: apache.Apache) -> None:
    memo, url = MemoryMemo(), fresh(httpd)
    with FaultProxy(httpd.port) as proxy:
        for turn in range(2):
            before = len(proxy.seen)
            wire = Wire("dav", url.replace(httpd.url, proxy.url), Password(apache.USER, apache.PASSWORD))
            with contextlib.closing(WebdavProvider(wire, memo, create=turn == 0)) as provider:
                provider.put(f"a/{turn}", b"1")
            asked = [each.split()[0] for each in proxy.seen[before:]]
    # The staging (twice, because it must say who asks), the body, its size, the parent, the name.
    assert asked == ["PROPFIND", "PROPFIND", "PUT", "PROPFIND", "MKCOL", "MOVE"]


def test_a_lost_reply_costs_no_second_upload(httpd: apache.Apache) -> None:
    url = fresh(httpd)
    with FaultProxy(httpd.port) as proxy:
        wire = Wire("dav", url.replace(httpd.url, proxy.url), Password(apache.USER, apache.PASSWORD))
        with contextlib.closing(WebdavProvider(wire, MemoryMemo(), create=True)) as provider:
            provider.put("a/x", b"")
            lost = Fault("lost", on="^MOVE ")
            proxy.set(lost)
            assert type(raised_by(partial(provider.put, "a/b", BODY))) is base.Unavailable
            assert (lost.fired, lost.answers) == (1, [201])
            proxy.clear()
            before = len(proxy.seen)
            provider.put("a/b", BODY)
            assert [each for each in proxy.seen[before:] if each.startswith("PUT")] == []


def test_a_full_disk_that_the_server_does_not_call_one(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    """A write of wsgidav fails with ENOSPC: it answers 500, and leaves the first half. Its quota property says 0."""
    url = fresh(pydav)
    provider = opened(url)
    provider.put("a", b"1")
    with pydav.switched("full_disk", full_disk=True) as fired:
        assert type(raised_by(partial(provider.put, "b", BODY))) is base.QuotaExceeded
        assert fired() == 1
        assert provider._root.free() == 0
    assert files_in(folder_of(pydav, url)) == ["a"]


def test_a_checksum_that_the_server_compares(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    """As ownCloud does with OC-Checksum."""
    url = fresh(pydav)
    with pydav.switched("checksums", checksums=True) as fired, FaultProxy(pydav.port) as proxy:
        provider = opened(url.replace(pydav.url, proxy.url))
        assert provider.probe().refuses_damage == "sha1"
        assert fired() >= 1
        flip = Fault("flip-request", on="^PUT ")
        proxy.set(flip)
        before = fired()
        assert type(raised_by(partial(provider.put, "a", BODY))) is base.Unavailable
        assert (flip.fired, fired() - before) == (1, 1)
        is_missing(provider, "a")
        provider.put("a", BODY)
        assert provider.get("a") == BODY
    assert opened(url, create=False).probe().refuses_damage is None


def test_what_a_killed_writer_left_is_swept(server: apache.Apache, opened: Open) -> None:
    url = fresh(server)
    opened(url).put("a", b"1")
    staging = folder_of(server, url) / ".tmp"
    for name, age in ((".new-old", 2 * STALE_AFTER), (".new-young", STALE_AFTER / 2), ("notes", 2 * STALE_AFTER)):
        (staging / name).write_bytes(b"left")
        if os.geteuid() == 0:
            shutil.chown(staging / name, staging.owner(), staging.group())
        os.utime(staging / name, (time.time() - age,) * 2)
    opened(url, create=False).put("b", b"2")
    assert sorted(each.name for each in staging.iterdir()) == [".new-young", "notes"]


# Collections and names


def test_a_collection_is_never_deleted(server: apache.Apache, opened: Open) -> None:
    provider = opened(fresh(server))
    provider.put("d/a/b", b"1")
    for name in ("d", "d/a"):
        provider.delete(name)
        is_missing(provider, name)
    assert provider.get("d/a/b") == b"1"
    assert type(raised_by(partial(provider.put, "d/a", b"x"))) is base.InvalidName
    assert names(provider) == ["d/a/b"]


def test_a_page_for_people_in_place_of_a_collection_is_no_object(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    url = fresh(pydav)
    provider = opened(url)
    provider.put("d/a", b"1")
    page = httpx.get(f"{url}/d", auth=(wsgidav_server.USER, wsgidav_server.PASSWORD))
    assert (page.status_code, b"<html" in page.content.lower()) == (200, True)
    is_missing(provider, "d")


def test_whole_urls_in_listings(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    with pydav.switched("absolute", absolute=True) as fired:
        provider = opened(f"{pydav.url}/with%20a%20space%20%C3%A9{next(NUMBERS)}")
        provider.put("d/a/p/" + "0" * 64, b"1")
        provider.put("b", b"22")
        assert names(provider) == ["b", "d/a/p/" + "0" * 64]
        assert provider.stat("b").size == 2
        assert fired() >= 3


def test_strangers_are_not_listed(server: apache.Apache, opened: Open) -> None:
    url = fresh(server)
    provider = opened(url)
    provider.put("d/a", b"1")
    folder = folder_of(server, url)
    for name in ("README", "d/B", "d/c d", "d/é", "d/.hidden", "d/%2e%2e", "d/a&b"):
        (folder / name).write_bytes(b"x")
    hash_in_wrong_place = folder / "d/p"
    hash_in_wrong_place.mkdir()
    (hash_in_wrong_place / ("ab" * 32)).write_bytes(b"not in its shard")
    hash_in_wrong_place.chmod(0o755)
    assert names(provider) == ["d/a"]


def test_ranges_that_are_ignored(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    provider = opened(fresh(pydav))
    provider.put("a", BODY)
    with pydav.switched("no_ranges", no_ranges=True) as fired:
        for offset, length in ((10, 20), (-10, None), (-10, 3), (len(BODY) - 5, 100), (len(BODY) + 5, 5), (7, None)):
            rest = BODY[max(offset, -len(BODY)) :]
            assert provider.get("a", offset, length) == (rest if length is None else rest[:length])
        assert fired() == 6


def test_a_body_that_breaks_is_gone_on_with(httpd: apache.Apache, opened: Open) -> None:
    url = fresh(httpd)
    opened(url).put("a", BODY)
    os.utime(folder_of(httpd, url) / "a", (1_700_000_000,) * 2)  # the tag of a young file is weak
    with FaultProxy(httpd.port) as proxy:
        provider = opened(url.replace(httpd.url, proxy.url), create=False)
        provider.stat("a")  # by now it knows how to say who asks
        broken = Fault("truncated", on="^GET ", times=5)
        proxy.set(broken)
        assert provider.get("a") == BODY
        assert broken.fired == 5
    where = f"{url.rpartition('/')[2]}/a"
    asked = [line.split()[-1] for line in httpd.logged(lambda line: line.startswith("GET") and where in line, 6)]
    assert len(set(asked)) == 6


# The root


@pytest.mark.parametrize("how", ["gone", "emptied"])
def test_a_root_that_is_not_ours_is_no_empty_vault(server: apache.Apache, opened: Open, how: str) -> None:
    url = fresh(server)
    provider = opened(url)
    provider.put("d/a", b"1")
    shutil.rmtree(folder_of(server, url))
    if how == "emptied":
        server.directory(url.rpartition("/")[2])
    again = opened(url, create=False)
    for one in (provider, again):
        for call in (
            partial(one.get, "d/a"),
            partial(one.stat, "d/a"),
            partial(one.delete, "d/a"),
            partial(names, one),
            partial(again.put, "d/b", b"2"),
        ):
            error = raised_by(call)
            assert type(error) is base.StorageMissing
            assert error.params["path"] == f"{url}/"
    assert files_in(server.room / "files" / url.rpartition("/")[2]) == []


def test_only_its_own_directory_is_made(server: apache.Apache, opened: Open) -> None:
    assert type(raised_by(lambda: opened(f"{server.url}/none/vault"))) is base.StorageMissing
    url = fresh(server)
    for _ in range(2):
        assert names(opened(url)) == []


def test_the_mark_is_made_again_beside_objects(server: apache.Apache, opened: Open) -> None:
    url = fresh(server)
    opened(url).put("d/a", b"1")
    shutil.rmtree(folder_of(server, url) / ".tmp")
    provider = opened(url, create=False)
    assert provider.get("d/a") == b"1"
    provider.put("d/b", b"2")
    assert names(provider) == ["d/a", "d/b"]


def test_another_address_is_not_followed(httpd: apache.Apache, opened: Open) -> None:
    moved = raised_by(partial(opened(f"{httpd.url}/moved/x", create=False).get, "a"))
    assert type(moved) is base.StorageMissing
    assert moved.params["reason"] == "moved"
    away = raised_by(partial(opened(f"{httpd.url}/elsewhere/x", create=False).get, "a"))
    assert type(away) is base.Unavailable
    assert away.params["status"] == 307
    assert [line for line in httpd.log() if "/there" in line] == []


def test_locked_by_another_client(httpd: apache.Apache, opened: Open) -> None:
    url = fresh(httpd)
    provider = opened(url)
    provider.put("d/a", b"1")
    with httpx.Client(auth=(apache.USER, apache.PASSWORD)) as client:
        locked = client.request(
            "LOCK", f"{url}/d/", content=LOCK, headers={"Depth": "infinity", "Timeout": "Second-60"}
        )
        assert locked.status_code == 200
        for call in (partial(provider.put, "d/b", b"x"), partial(provider.delete, "d/a")):
            error = raised_by(call)
            assert type(error) is base.Unavailable
            assert error.params["status"] in (423, 424)  # locked, or failed because of that
        assert provider.get("d/a") == b"1"
        client.request("UNLOCK", f"{url}/d/", headers={"Lock-Token": locked.headers["Lock-Token"]})
    provider.put("d/b", b"x")
    assert names(provider) == ["d/a", "d/b"]


def test_what_a_probe_says(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    with pydav.switched("skew", skew=7200.0, free=123_456) as fired:
        seen = opened(fresh(pydav)).probe()
        assert fired() >= 1
    assert seen.free_bytes == 123_456
    assert seen.clock_ahead is not None
    assert abs(seen.clock_ahead - 7200) < 60
    assert not seen.exclusive_create


def test_a_gateway_that_says_stored_in_the_place_of_the_server(httpd: apache.Apache, opened: Open) -> None:
    with FaultProxy(httpd.port) as proxy:
        provider = opened(fresh(httpd).replace(httpd.url, proxy.url))
        provider.put("a", b"1")
        fault = Fault("status", on="^PUT ", status=201, times=None)
        proxy.set(fault)
        error = raised_by(partial(provider.put, "b", BODY))
        assert fault.fired == 1
        assert type(error) is base.Unavailable
        assert (error.params["reason"], error.params["found"]) == ("size-differs", None)
        proxy.clear()
        provider.put("b", BODY)
        assert provider.get("b") == BODY


def test_a_gateway_that_says_done_in_the_place_of_the_server(httpd: apache.Apache, opened: Open) -> None:
    """A network with a page to log in, from one request to the next: what it answers is neither moved nor deleted."""
    url = fresh(httpd)
    opened(url)
    with FaultProxy(httpd.port) as proxy:
        provider = opened(f"{proxy.url}/{url.rpartition('/')[2]}", create=False)
        provider.put("kept", BODY)
        page = Fault("status", on="^MOVE ", status=200, body=b"<html>Please log in</html>")
        with broken(proxy, page):
            assert type(raised_by(partial(provider.put, "a/b", BODY))) is base.Unavailable
        is_missing(provider, "a/b")
        provider.put("a/b", BODY)
        assert provider.get("a/b") == BODY
        for status in (200, 202):
            with broken(proxy, dataclasses.replace(page, on="^DELETE .*kept", status=status, fired=0)):
                assert type(raised_by(partial(provider.delete, "kept"))) is base.Unavailable
        provider.delete("kept")
        is_missing(provider, "kept")


def test_a_server_that_takes_destinations_in_another_way_since(httpd: apache.Apache) -> None:
    """What was remembered of it is forgotten, and not held against it for ever."""
    wire = Wire("dav", fresh(httpd), Password(apache.USER, apache.PASSWORD))
    memo = MemoryMemo()
    with contextlib.closing(WebdavProvider(wire, memo, create=True)) as provider:
        provider.put("a", b"1")
        known = provider._known_habits()
        provider._habits.keep(dataclasses.replace(known, form="path" if known.form == "whole" else "whole"))
        wire = Wire("dav", wire.address, Password(apache.USER, apache.PASSWORD))
        with contextlib.closing(WebdavProvider(wire, memo)) as later:
            assert isinstance(raised_by(partial(later.put, "b/c", b"2")), base.ProviderError)
            later.put("b/c", b"2")
            assert later.get("b/c") == b"2"
            assert later._known_habits() == known


def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch, httpd: apache.Apache, opened: Open) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    error = raised_by(lambda: Wire("dav", "https://storage.example/v"))
    assert type(error) is base.Unavailable
    assert error.params["reason"] == "proxy"
    provider = opened(fresh(httpd))  # this machine is asked without any
    provider.put("a", b"1")
    assert names(provider) == ["a"]


def test_an_address_that_is_none() -> None:
    assert type(raised_by(lambda: Wire("dav", "https://h:port/v"))) is base.StorageMissing


def test_the_same_vault_as_a_folder_on_the_server(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    url = fresh(pydav)
    provider, folder = opened(url), FolderProvider("disk", folder_of(pydav, url))
    pack, other = f"d/{'a1' * 16}/p/{'0b' * 32}", f"d/{'a1' * 16}/p/{'0c' * 32}"
    provider.put(pack, BODY)
    provider.put("slots/a", b"1")
    folder.put(other, b"2")
    for one in (provider, folder):
        assert names(one) == sorted([pack, other, "slots/a"])
        assert (one.get(pack), one.get(other)) == (BODY, b"2")
