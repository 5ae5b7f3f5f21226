"""Requests and bytes of a day, the number of connections, and how the wrappers stand around each other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from chatkeep.config.amounts import AtOnce, Rate
from chatkeep.config.limits import Limit
from chatkeep.config.model import ProviderConfig
from chatkeep.config.storages import FolderOptions
from chatkeep.daemon.service import storage
from chatkeep.providers import base, registry
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.memo import FileMemo, Memo, MemoryMemo, MemoUnusable
from chatkeep.providers.used import Used, day_of, glanced, used_on
from chatkeep.providers.wrap import Daily, Limited, Narrow, Retrying, wrapped
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.memory_provider import MemoryProvider

NOON = 1_772_798_400.0  # 2026-03-06 12:00 UTC


def test_what_a_day_was_used_for() -> None:
    memo, store = MemoryMemo(), MemoryProvider()
    fault = Fault("put", base.Unavailable())
    now = [NOON]
    daily = Daily(FaultyProvider(store, fault), memo, lambda: now[0], late=3600)
    provider = Retrying(daily, sleep=lambda _seconds: None)
    provider.put("a", b"12345")
    provider.get("a", 1)
    assert [found.name for found in provider.list("")] == ["a"]
    daily.flush()
    assert fault.fired == 1
    assert used_on(memo, NOON) == Used({"get": 1, "list": 1, "put": 2}, 5, 4)
    now[0] += 43_200  # midnight
    provider.put("b", b"1")
    daily.close()
    assert used_on(memo, NOON) == Used({"get": 1, "list": 1, "put": 2}, 5, 4)
    assert used_on(memo, now[0]) == Used({"put": 1}, 1, 0)
    assert (day_of(NOON), day_of(now[0] - 1), day_of(now[0])) == ("2026-03-06", "2026-03-06", "2026-03-07")


class Priced(MemoryProvider):
    """Needs two requests for a put and knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, int] = {}

    def put(self, name: str, body: bytes) -> None:
        self.made["PUT"] = self.made.get("PUT", 0) + 2
        super().put(name, body)

    def requests(self) -> Mapping[str, int]:
        return self.made


def test_real_requests_are_counted_where_the_provider_knows_them() -> None:
    memo = MemoryMemo()
    daily = Daily(Priced(), memo, lambda: NOON, late=3600)
    daily.put("a", b"1")
    daily.put("b", b"1")
    daily.get("a")
    daily.close()
    assert used_on(memo, NOON) == Used({"PUT": 4}, 2, 1)


def test_devices_of_two_processes_add_up_and_old_days_go(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    for at, count in ((NOON - 40 * 86_400, 1), (NOON - 30 * 86_400, 1), (NOON, 2)):
        for _ in range(count):
            memo = FileMemo(file)
            daily = Daily(MemoryProvider(), memo, lambda at=at: at, late=3600)  # type: ignore[misc]
            daily.put("a", b"123")
            daily.close()
            memo.close()
    memo = FileMemo(file)
    assert [key for key, _ in memo.items("day:")] == ["day:2026-02-04", "day:2026-03-06"]
    assert used_on(memo, NOON) == Used({"put": 2}, 6, 0)
    memo.close()


def test_it_is_written_down_by_itself() -> None:
    memo = MemoryMemo()
    daily = Daily(MemoryProvider(), memo, lambda: NOON, late=0.01)
    daily.put("a", b"1")
    deadline = time.monotonic() + 20
    while used_on(memo, NOON).total != 1:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    daily.close()


class Refusing(MemoryMemo):
    """A memo on a full disk."""

    def change(self, key: str, by: Callable[[bytes | None], bytes]) -> bytes:
        raise MemoUnusable(path="/x", errno=28)


def test_a_memo_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryProvider()
    daily = Daily(store, Refusing(), lambda: NOON, late=3600)
    daily.put("a", b"1")
    with caplog.at_level(logging.WARNING):
        daily.close()
    assert store.objects == {"a": b"1"}
    assert "requests-not-counted" in caplog.text


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b"3", b'{"requests": 4}', b'{"requests": {"a": "x"}}', b'{"sent": []}']
)
def test_counts_that_cannot_be_read_are_none(raw: bytes) -> None:
    assert Used.decode(raw) == Used()


def test_whoever_only_looks_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    assert glanced(file, NOON) == glanced(None, NOON) == Used()
    assert list(tmp_path.iterdir()) == []
    memo = FileMemo(file)
    memo.set("day:2026-03-06", Used({"get": 3}, 1, 2).encode())
    assert glanced(file, NOON) == Used({"get": 3}, 1, 2)
    assert glanced(file, NOON + 86_400) == Used()
    memo.close()
    file.write_bytes(b"this is no database" * 300)
    assert glanced(file, NOON) is None
    assert file.read_bytes() == b"this is no database" * 300


def test_counts_survive_their_writing() -> None:
    used = Used({"get": 3}, 1, 2)
    assert Used.decode(used.encode()) == used
    assert used.total == 3


class Slow(MemoryProvider):
    """Remembers how many calls were in it at the same time, and holds each until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.most = 0
        self.go = threading.Semaphore(0)
        self._counting = threading.Lock()

    def stat(self, name: str) -> base.ObjectStat:
        with self._counting:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.go.acquire(timeout=20)
        with self._counting:
            self.inside -= 1
        return super().stat(name)


def test_so_many_calls_at_a_time() -> None:
    store = Slow()
    store.put("a", b"1")
    narrow = Narrow(store, 3)
    threads = [threading.Thread(target=narrow.stat, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while store.inside < 3:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for _ in range(8):
        store.go.release()
    for thread in threads:
        thread.join()
    assert store.most == 3


def test_one_connection_is_enough_for_whoever_reads_what_is_listed() -> None:
    store = MemoryProvider()
    for number in range(5):
        store.put(f"a{number}", b"x")
    narrow = Narrow(store, 1)
    assert [narrow.get(found.name) for found in narrow.list("a")] == [b"x"] * 5
    with pytest.raises(base.InvalidName):
        [*narrow.list("../")]
    with pytest.raises(base.ObjectNotFound):
        narrow.get("gone")
    narrow.put("b", b"1")  # a call that failed gave its turn back


def config(room: Path, **more: object) -> ProviderConfig:
    made = ProviderConfig("disk", "folder", FolderOptions(room / "vault"), memory=room / "state" / "providers" / "d.db")
    for name, value in more.items():
        object.__setattr__(made, name, value)
    return made


def test_a_file_is_adopted_through_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(b"12345")
    made = config(tmp_path, limit=Limit(upload=Rate(1)), connections=AtOnce(1))
    with storage.opened([made], create=True) as (provider,):
        assert isinstance(provider, Retrying)
        assert isinstance(provider.inner, Limited)
        assert isinstance(provider, base.Adopts)
        assert provider.adopt("a", tmp_path / "sealed")
        assert provider.get("a") == b"12345"
    memo = FileMemo(tmp_path / "state" / "providers" / "d.db")
    assert used_on(memo, time.time()) == Used({"adopt": 1, "get": 1}, 5, 5)
    memo.close()


def test_what_a_provider_cannot_its_wrappers_cannot() -> None:
    provider = wrapped(MemoryProvider(), config(Path("/x"), limit=Limit(upload=Rate(1))), MemoryMemo())
    assert not isinstance(provider, base.Adopts)
    assert not isinstance(provider, base.Paced)
    assert not isinstance(provider, base.Retains)
    assert not isinstance(provider, base.Usage)


class Able(Priced):
    """Can what can be done besides."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[str, float]] = []

    def retain(self, name: str, until: float) -> None:
        self.held.append((name, until))

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        pace(len(body))
        self.put(name, body)


def test_what_a_provider_can_its_wrappers_can() -> None:
    store = Able()
    provider = Retrying(wrapped(store, config(Path("/x"), limit=Limit(upload=Rate(10**6))), MemoryMemo()))
    assert isinstance(provider, base.Retains)
    assert isinstance(provider, base.Paced)
    assert isinstance(provider, base.Usage)
    provider.retain("a", 7.0)
    paces: list[int] = []
    provider.put_paced("a", b"123", paces.append)
    assert (store.held, paces, provider.requests()) == ([("a", 7.0)], [3], {"PUT": 2})


@pytest.mark.parametrize(
    ("set_up", "create", "expected"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_machine_that_keeps_nothing_gets_no_records(
    tmp_path: Path, set_up: bool, create: bool, expected: bool
) -> None:
    FolderProvider("disk", tmp_path / "vault", create=True).put("a", b"1")
    if set_up:
        (tmp_path / "state").mkdir()
    with storage.opened([config(tmp_path)], create=create) as (provider,):
        assert provider.get("a") == b"1"
    assert (tmp_path / "state" / "providers" / "d.db").exists() is expected
    assert (tmp_path / "state").exists() is (set_up or create)


def test_a_memo_that_cannot_be_opened_does_not_keep_a_backup_from_being_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FolderProvider("disk", tmp_path / "vault", create=True).put("a", b"1")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "providers").write_bytes(b"a file in its place")
    with storage.opened([config(tmp_path)]) as (provider,):
        assert provider.get("a") == b"1"
    assert "memo-unusable" in caplog.text


def test_one_that_cannot_be_opened_keeps_no_other_from_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, key = registry.open_provider, tmp_path / "key"
    tried: list[bool] = []

    def opened(made: ProviderConfig, memo: Memo | None = None, *, create: bool = False) -> base.Provider:
        if made.name == "cloud" and not key.exists():
            tried.append(create)
            raise base.SecretFileRefused(provider=made.name, path=str(key), reason="missing")
        return real(made, memo, create=create)

    monkeypatch.setattr(registry, "open_provider", opened)
    both = [config(tmp_path), ProviderConfig("cloud", "folder", FolderOptions(tmp_path / "cloud"))]
    FolderProvider("disk", tmp_path / "vault", create=True)
    FolderProvider("cloud", tmp_path / "cloud", create=True).put("a", b"1")
    with pytest.raises(base.SecretFileRefused), storage.opened(both, create=True):
        pass
    with storage.opened(both) as (disk, cloud):
        disk.put("a", b"1")
        for _ in range(2):
            with pytest.raises(base.SecretFileRefused) as caught:
                cloud.get("a")
            assert caught.value.params["provider"] == "cloud"
        with pytest.raises(base.SecretFileRefused):
            [*cloud.list("")]
        key.touch()
        assert cloud.get("a") == b"1"
        assert [found.name for found in cloud.list("")] == ["a"]
    assert tried == [True, False, False, False, False], "a file that is missing is no reason to wait and try again"


def test_the_memo_outlives_its_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    class Remembering(MemoryProvider):
        def __init__(self, memo: Memo) -> None:
            super().__init__("disk")
            self._memo = memo

        def close(self) -> None:
            self._memo.set("last", b"words")
            ended.append("provider")
            super().close()

    monkeypatch.setattr(registry, "open_provider", lambda _config, memo, **_: Remembering(memo))
    (tmp_path / "state").mkdir()
    with pytest.raises(ZeroDivisionError), storage.opened([config(tmp_path)]):
        print(1 // 0)  # noqa: T201  # whatever happens inside
    assert ended == ["provider"]
    memo = FileMemo(tmp_path / "state" / "providers" / "d.db")
    assert memo.get("last") == b"words"
    memo.close()
