"""What is particular to OpenDAL: what its errors say, what its capabilities do not, services that write in place."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import opendal
import pytest

from chatkeep.config.storages import OpendalOptions
from chatkeep.providers import base, opendal_errors
from chatkeep.providers.learned import FRESH
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.opendal import STALE_AFTER, TYPE, Creating, OpendalProvider, read_options
from chatkeep.providers.opendal_errors import OptionsRefused, Said, ServiceUnknown
from chatkeep.providers.registry import Opening
from tests.providers.contract import is_missing, names, raised_by
from tests.providers.stations.opendal import S3
from tests.support import apache, s3_servers, wsgidav_server
from tests.support.fault_proxy import Fault, FaultProxy

_NUMBERS = itertools.count()
SECRET = "a-secret-of-this-test"
BODY = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def pydav() -> Iterator[wsgidav_server.Wsgidav]:
    with wsgidav_server.wsgidav() as server:
        yield server


Open = Callable[..., OpendalProvider]


class Recording:
    """The library's object, and the names that it is told to write."""

    def __init__(self, inner: Any, seen: list[str]) -> None:
        self._inner, self._seen = inner, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def layer(self, layer: object) -> Recording:
        return Recording(self._inner.layer(layer), self._seen)

    def write(self, name: str, *rest: Any, **more: Any) -> Any:
        self._seen.append(name)
        return self._inner.write(name, *rest, **more)


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens providers, and closes them."""
    with contextlib.ExitStack() as stack:

        def at(service: str, *, create: bool = True, patience: float = 60.0, **options: str) -> OpendalProvider:
            provider = OpendalProvider("od", service, options, MemoryMemo(), create=create, patience=patience)
            return stack.enter_context(contextlib.closing(provider))

        yield at


def webdav(url: str, where: str = "") -> dict[str, str]:
    root = where or f"vault{next(_NUMBERS)}"
    user, password = wsgidav_server.USER, wsgidav_server.PASSWORD
    return {"endpoint": url, "root": f"/{root}", "username": user, "password": password}


def s3(server: s3_servers.Server, bucket: str) -> dict[str, str]:
    return S3().options(server.url, bucket)


# The library: what it says. An upgrade that says it in another way must fail here.


def test_an_unknown_service_is_answered_with_those_there_are() -> None:
    error = raised_by(lambda: OpendalProvider("od", "sftp", {}, MemoryMemo()))
    assert type(error) is ServiceUnknown
    carried = str(error.params["available"]).split(", ")
    assert {"azblob", "b2", "dropbox", "fs", "gcs", "gdrive", "onedrive", "s3", "webdav"} <= set(carried)
    assert "sftp" not in carried


def test_options_that_are_refused_are_not_repeated() -> None:
    for options in (
        {},
        {"bucket": "", "secret_access_key": SECRET},
        {"bucket": "b", "enable_virtual_host_style": SECRET},
    ):
        error = raised_by(partial(OpendalProvider, "od", "s3", options, MemoryMemo()))
        assert type(error) is OptionsRefused
        assert SECRET not in repr(error)
        assert error.__cause__ is None
        assert error.__suppress_context__


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (401, base.CredentialRefused),
        (403, base.PermissionRefused),
        (404, base.Unavailable),
        (409, base.Unavailable),
        (413, base.QuotaExceeded),
        (423, base.Unavailable),
        (429, base.Throttled),
        (500, base.Unavailable),
        (502, base.Unavailable),
        (503, base.Throttled),
        (507, base.QuotaExceeded),
    ],
)
def test_what_a_status_means(
    pydav: wsgidav_server.Wsgidav, opened: Open, status: int, means: type[base.ProviderError]
) -> None:
    with FaultProxy(pydav.port) as proxy:
        provider = opened("webdav", **webdav(proxy.url))
        provider.put("a", b"1")
        fault = Fault("status", on="^PUT ", status=status, headers=(("Retry-After", "7"),), times=None)
        proxy.set(fault)
        error = raised_by(partial(provider.put, "b", BODY))
        assert fault.fired == 1, "the library tries again by itself"
        proxy.clear()
    assert type(error) is means
    assert error.params.get("status") == (status if status != 404 else None)
    assert error.params.get("after") == (7 if means is base.Throttled else None)
    assert error.__cause__ is None or isinstance(error.__cause__, base.ProviderError)


def test_numbers_of_the_system_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    operator = opendal.Operator("fs", root=str(tmp_path))
    found = []
    for call in (partial(operator.stat, "a/b"), partial(operator.read, "none"), partial(operator.delete, ".")):
        try:
            call()
        except Exception as problem:
            found.append(opendal_errors.said(problem))
    assert [each.system for each in found[:2]] == [20, 2]
    assert found[1].kind == "NotFound"


def test_what_had_arrived_is_told(pydav: wsgidav_server.Wsgidav) -> None:
    with FaultProxy(pydav.port) as proxy:
        options = webdav(proxy.url)
        operator = opendal.Operator("webdav", **options)
        operator.write("a", BODY)
        broken = Fault("truncated", on="^GET ")
        proxy.set(broken)
        with pytest.raises(opendal.exceptions.Unexpected) as caught:
            operator.read("a", offset=0, size=len(BODY))
        assert broken.fired == 1
    assert opendal_errors.said(caught.value).received == len(BODY) // 2


def test_a_listing_leaves_the_other_threads_alone(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    """The library's other way of listing holds the lock of the interpreter while it waits for the network."""
    with FaultProxy(pydav.port) as proxy:
        provider = opened("webdav", patience=1.0, **webdav(proxy.url))
        hole = Fault("hole", on="^PROPFIND ", times=None)
        proxy.set(hole)
        steps, done = 0, threading.Event()

        def count() -> None:
            nonlocal steps
            while not done.is_set():
                steps += 1
                time.sleep(0.001)

        counting = threading.Thread(target=count)
        counting.start()
        assert type(raised_by(partial(names, provider))) is base.Unavailable
        done.set()
        counting.join()
        assert hole.fired == 1
    assert steps > 50


@pytest.mark.parametrize(
    ("what", "means"),
    [
        (Said("PermissionDenied", 403, text="<Code>InvalidAccessKeyId</Code>"), base.CredentialRefused),
        (Said("PermissionDenied", 403, text="<Code>AccessDenied</Code>"), base.PermissionRefused),
        (Said("PermissionDenied", 403, text='"reason": "storageQuotaExceeded"'), base.QuotaExceeded),
        (Said("PermissionDenied", 403, text='"reason": "rateLimitExceeded"'), base.Throttled),
        (Said("Unexpected", 409, text="path/insufficient_space/"), base.QuotaExceeded),
        (Said("Unexpected", 400, text='"error": "invalid_grant"'), base.CredentialRefused),
        (Said("NotFound", 404, text="<Code>NoSuchBucket</Code>"), base.StorageMissing),
        (Said("NotFound", 404, text="<Code>NoSuchKey</Code>"), base.ObjectNotFound),
        (Said("RateLimited", 429), base.Throttled),
        (Said("Unexpected", 503, text="<Code>SlowDown</Code>"), base.Throttled),
        (Said("Unexpected", None, system=28), base.QuotaExceeded),
        (Said("Unexpected", None, system=13), base.PermissionRefused),
        (Said("Unsupported"), base.PermissionRefused),
        (Said("Unexpected"), base.Unavailable),
    ],
)
def test_what_services_call_things(what: Said, means: type[base.ProviderError]) -> None:
    assert type(opendal_errors.refusal(what, provider="od")) is means


# Opening


def test_opened_as_configured(tmp_path: Path) -> None:
    secret = tmp_path / "options"
    secret.write_text(f"# of the test\n\nroot = {tmp_path}/vault\n")
    secret.chmod(0o600)
    options = OpendalOptions("fs", {"root": "/nowhere"}, secret)
    with contextlib.closing(TYPE.open(Opening("od", options, MemoryMemo(), create=True))) as provider:
        provider.put("a", b"1")
        assert (tmp_path / "vault/a").read_bytes() == b"1"
    secret.write_text(f"{SECRET}\n")
    error = raised_by(lambda: TYPE.open(Opening("od", options, MemoryMemo())))
    assert type(error) is base.SecretFileRefused
    assert (error.params["reason"], SECRET in repr(error)) == ("malformed", False)


def test_a_file_of_options() -> None:
    assert read_options("a=1\n# b=2\n\n c = d=e \n") == {"a": "1", "c": "d=e"}
    assert read_options("") == {}
    for wrong in ("a", "=1", "a=1\nb"):
        assert read_options(wrong) is None


def test_the_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendal", None)
    error = raised_by(lambda: TYPE.open(Opening("od", OpendalOptions("fs"), MemoryMemo())))
    assert type(error) is base.ClientMissing
    assert error.params["extra"] == "opendal"


# Capabilities


def test_a_condition_that_the_server_ignores(opened: Open) -> None:
    """The library says that it can; `rclone serve s3` overwrites. Both are asked."""
    server = s3_servers.rclone()
    options = s3(server, server.bucket())
    operator = opendal.Operator("s3", **options)
    assert operator.capability().write_with_if_not_exists
    operator.write("seen/a", b"first", if_not_exists=True)
    operator.write("seen/a", b"second", if_not_exists=True)
    assert bytes(operator.read("seen/a")) == b"second"
    provider = opened("s3", **options)
    assert not provider.probe().exclusive_create
    provider.put("d/a", b"first")
    assert type(raised_by(partial(provider.put, "d/a", b"second"))) is base.ObjectConflict
    assert provider.get("d/a") == b"first"


def test_a_folder_that_looks_first_is_not_called_exclusive(tmp_path: Path, opened: Open) -> None:
    operator = opendal.Operator("fs", root=str(tmp_path), atomic_write_dir=str(tmp_path / ".tmp"))
    assert operator.capability().write_with_if_not_exists
    assert not opened("fs", root=str(tmp_path)).probe().exclusive_create


def test_a_folder_by_its_other_word(tmp_path: Path, opened: Open) -> None:
    """`file` is `fs`: what a killed writer leaves of a body must not stand under a name there either."""
    seen: list[str] = []
    provider = opened("file", root=str(tmp_path))
    assert not provider.probe().exclusive_create
    left = Recording(provider._at.bare, seen)
    provider._at.bare = left  # type: ignore[assignment]
    provider.put("a/b", BODY)
    assert seen
    assert all(name.startswith(".tmp/") for name in seen)
    assert provider.get("a/b") == BODY


def test_closed_while_a_listing_is_on_its_way(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it is told, and does not wait for ever."""
    provider = opened("fs", root=str(tmp_path))
    begun = threading.Event()

    async def endless(_folder: str) -> NoReturn:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(provider._at, "_collect", endless)
    ended: list[base.ProviderError] = []
    waiting = threading.Thread(target=lambda: ended.append(raised_by(lambda: names(provider))), daemon=True)
    waiting.start()
    assert begun.wait(10)
    provider.close()
    waiting.join(10)
    assert [type(each) for each in ended] == [base.Unavailable]


def test_what_was_found_out_is_remembered_for_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    memo, server = MemoryMemo(), s3_servers.minio()
    options = s3(server, server.bucket())
    asked: list[list[str]] = []
    with FaultProxy(server.port) as proxy:
        options["endpoint"] = proxy.url
        for turn in range(3):
            provider = OpendalProvider("od", "s3", options, memo, create=turn == 0)
            monkeypatch.setattr(provider._creating, "_now", lambda turn=turn: time.time() + (turn == 2) * FRESH)
            with contextlib.closing(provider):
                before = len(proxy.seen)
                provider.put(f"a/{turn}", b"1")
                asked.append([each.split()[0] for each in proxy.seen[before:]])
    assert asked[1] == ["GET", "PUT", "HEAD"]  # the mark, the body, its size
    assert asked[2].count("PUT") == asked[0].count("PUT") > 8


# Services that write in place


def test_a_full_disk(tmp_path: Path, opened: Open) -> None:
    """The limit of the size of a file, in a process of its own, is what refuses the write (EFBIG)."""
    root = tmp_path / "vault"
    opened("fs", root=str(root))
    child = (
        "import resource, sys\n"
        "from chatkeep.providers import base\n"
        "from chatkeep.providers.memo import MemoryMemo\n"
        "from chatkeep.providers.opendal import OpendalProvider\n"
        "provider = OpendalProvider('od', 'fs', {'root': sys.argv[1]}, MemoryMemo())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    provider.put('d/a', bytes(200_000))\n"
        "except base.QuotaExceeded as error:\n"
        "    print('full', error.params['errno'])\n"
        "provider.put('d/b', bytes(100))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", child, str(root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.returncode) == ("full 27\n", 0), ran.stderr
    provider = opened("fs", create=False, root=str(root))
    is_missing(provider, "d/a")
    assert names(provider) == ["d/b"]
    assert list((root / ".tmp").iterdir()) == []


def test_a_folder_is_neither_deleted_nor_replaced(pydav: wsgidav_server.Wsgidav, tmp_path: Path, opened: Open) -> None:
    with apache.apache() as httpd:
        httpd.directory("v")
        places = (("fs", {"root": str(tmp_path)}), ("webdav", webdav(pydav.url)), ("webdav", webdav(httpd.url, "v")))
        for service, options in places:
            provider = opened(service, **options)
            provider.put("d/a/b", b"1")
            for name in ("d", "d/a"):
                provider.delete(name)
                is_missing(provider, name)
                assert type(raised_by(partial(provider.put, name, b"x"))) is base.InvalidName
            assert provider.get("d/a/b") == b"1"


def test_what_a_killed_writer_left_is_swept(tmp_path: Path, opened: Open) -> None:
    opened("fs", root=str(tmp_path)).put("a", b"1")
    for name, age in ((".new-old", 2 * STALE_AFTER), (".new-young", 0.0)):
        (tmp_path / ".tmp" / name).write_bytes(b"left")
        os.utime(tmp_path / ".tmp" / name, (time.time() - age,) * 2)
    opened("fs", create=False, root=str(tmp_path)).put("b", b"2")
    assert [each.name for each in (tmp_path / ".tmp").iterdir()] == [".new-young"]


# The root


def test_a_root_that_is_not_ours_is_no_empty_vault(tmp_path: Path, opened: Open) -> None:
    server = s3_servers.minio()
    bucket, gone = server.bucket(), f"none-{os.urandom(6).hex()}"
    for service, options in (
        ("fs", {"root": str(tmp_path / "empty")}),
        ("s3", s3(server, bucket)),
        ("s3", s3(server, gone)),
    ):
        provider = opened(service, create=False, **options)
        for call in (
            partial(provider.get, "d/a"),
            partial(provider.stat, "d/a"),
            partial(provider.delete, "d/a"),
            partial(names, provider),
            partial(provider.put, "d/b", b"2"),
            provider.probe,
        ):
            assert type(raised_by(call)) is base.StorageMissing
    error = raised_by(partial(opened("s3", create=False, **s3(server, gone)).get, "a"))
    assert gone in str(error.params["path"])


def test_a_disk_that_is_unplugged_after_the_first_put_is_not_made_anew(tmp_path: Path, opened: Open) -> None:
    root = tmp_path / "vault"
    provider = opened("fs", root=str(root))
    provider.put("d/a", b"1")
    away = root.rename(tmp_path / "unplugged")
    assert type(raised_by(partial(provider.put, "d/b", b"2"))) is base.StorageMissing
    assert not root.exists()
    away.rename(root)
    provider.put("d/b", b"2")
    assert sorted(names(provider)) == ["d/a", "d/b"]


def test_objects_are_mark_enough(tmp_path: Path, opened: Open) -> None:
    opened("fs", root=str(tmp_path)).put("d/a", b"1")
    (tmp_path / ".chatkeep").unlink()
    provider = opened("fs", create=False, root=str(tmp_path))
    assert provider.get("d/a") == b"1"
    provider.put("d/b", b"2")
    assert names(provider) == ["d/a", "d/b"]


def test_strangers_are_not_listed(tmp_path: Path, opened: Open) -> None:
    provider = opened("fs", root=str(tmp_path))
    provider.put("d/a", b"1")
    for name in ("README", "d/B", "d/c d", "d/.hidden"):
        (tmp_path / name).write_bytes(b"x")
    assert names(provider) == ["d/a"]


def test_a_race_that_the_line_failed_a_part_of_is_not_remembered(opened: Open) -> None:
    server = s3_servers.minio()
    with FaultProxy(server.port) as proxy:
        memo, options = MemoryMemo(), {**s3(server, server.bucket()), "endpoint": proxy.url}
        with contextlib.closing(OpendalProvider("od", "s3", options, memo, create=True)) as provider:
            fault = Fault("status", on=r"^PUT .*\.new-", skip=2, times=3, status=500)
            proxy.set(fault)
            provider.put("a", b"1")
            assert fault.fired == 3
            assert provider._creating.last() is None
            assert type(raised_by(partial(provider.put, "a", b"2"))) is base.ObjectConflict
            assert provider._creating.last() == Creating(exclusive=True)
            proxy.set(Fault("status", on=r"^PUT ", times=None, status=500))
            memo.delete(memo.items("")[0][0])
            assert type(raised_by(partial(provider.put, "b", b"2"))) is base.Unavailable
            assert memo.items("") == []


def test_what_a_gateway_keeps_of_a_put_that_broke_is_replaced(opened: Open) -> None:
    """`rclone serve s3` was seen to keep the first half, under the object's name, after a while. Here the connection
    breaks, and the half is put there by hand."""
    server = s3_servers.rclone()
    memo, options = MemoryMemo(), s3(server, server.bucket())
    name = "d/a"
    with FaultProxy(server.port) as proxy:
        broken = Fault("reset", on=r"^PUT .*/d/a")
        with contextlib.closing(
            OpendalProvider("od", "s3", {**options, "endpoint": proxy.url}, memo, create=True)
        ) as first:
            first.put("other", b"1")
            proxy.set(broken)
            assert type(raised_by(partial(first.put, name, BODY))) is base.Unavailable
            assert broken.fired == 1
    opendal.Operator("s3", **options).write(name, BODY[: len(BODY) // 2])
    stranger = opened("s3", create=False, **options)
    assert type(raised_by(partial(stranger.put, name, BODY))) is base.ObjectConflict
    with contextlib.closing(OpendalProvider("od", "s3", options, memo)) as second:
        second.put(name, BODY)
        assert second.get(name) == BODY
        assert type(raised_by(partial(second.put, name, BODY + b"x"))) is base.ObjectConflict
    assert memo.items("writing:") == []


def test_a_gateway_that_says_stored_in_the_place_of_the_service(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    server = s3_servers.minio()
    for service, options, port in (
        ("webdav", webdav(pydav.url), pydav.port),
        ("s3", s3(server, server.bucket()), server.port),
    ):
        with FaultProxy(port) as proxy:
            provider = opened(service, **{**options, "endpoint": proxy.url})
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


def test_a_body_that_breaks_is_gone_on_with(pydav: wsgidav_server.Wsgidav, opened: Open) -> None:
    with FaultProxy(pydav.port) as proxy:
        provider = opened("webdav", **webdav(proxy.url))
        provider.put("a", BODY)
        for offset, length in ((0, None), (1000, 100_000), (-100_000, None)):
            broken = Fault("truncated", on="^GET .*/a$", times=3)
            proxy.set(broken)
            rest = BODY[max(offset, -len(BODY)) :]
            assert provider.get("a", offset, length) == (rest if length is None else rest[:length])
            assert broken.fired in (2, 3)  # the half of what is left can be all that is wanted
