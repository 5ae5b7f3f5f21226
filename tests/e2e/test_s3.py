"""A vault in a bucket of MinIO, by the real command."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.sync.retain import KEY, load
from chatkeep.providers import base
from chatkeep.providers.memo import FileMemo
from tests.support import s3_policies, s3_servers
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.s3_servers import Keys
from tests.support.station import Done, Station, fill, rows

PREFIX = "laptop/chatkeep"


class Bucket(Station):
    """A station whose storage is a bucket. `url`: of a proxy before the server."""

    def __init__(self, room: Path, **more: object) -> None:
        room.mkdir()
        self.server = s3_servers.minio()
        self.bucket = self.server.bucket(lock="retain" in more)
        self.keys = Keys()
        self.url = self.server.url
        self.more = more
        super().__init__(room, ("cloud",))

    def configure(self, *sources: Path) -> None:
        keys = self.server.keys_file(self.keys)
        provider: dict[str, object] = {
            "name": "cloud",
            "type": "s3",
            "bucket": self.bucket,
            "prefix": PREFIX,
            "endpoint": self.url,
            "credentials_file": str(keys),
            **self.more,
        }
        text = {"sources": [str(each) for each in sources], "providers": [provider], "state_dir": str(self.state)}
        self.config.write_text(json.dumps(text))

    def use(self, keys: Keys) -> None:
        """From now on with these keys."""
        self.keys = keys
        self.configure(self.source)

    def limited(self, policy: Callable[[str, str], dict[str, Any]]) -> Keys:
        return self.server.restricted(policy(self.bucket, PREFIX))

    def stored(self) -> dict[str, int]:
        """Names and sizes of what the bucket holds."""
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=PREFIX)
        found = [each for page in pages for each in page.get("Contents", [])]
        return {each["Key"].removeprefix(f"{PREFIX}/"): each["Size"] for each in found}

    def bring_back(self, name: str) -> Path:
        """A restore on a machine that has the configuration's storage and the key, and nothing else."""
        target = self.room / name
        source = self.room / "elsewhere.yaml"
        source.write_text(self.config.read_text())
        self.ok("restore", "latest", "--target", target, "--from", source, "--key-file", self.key)
        return target


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "room")


def codes(done: Done) -> list[str]:
    return [error["code"] for provider in done.json["providers"] for error in provider["errors"]]


def test_a_key_that_may_only_put_is_enough_for_backing_up(bucket: Bucket) -> None:
    bucket.init()
    owner = bucket.keys
    bucket.use(bucket.limited(s3_policies.put_only))
    fill(bucket.source / "messages.db")
    bucket.backup()
    fill(bucket.source / "messages.db", 200)
    bucket.backup()
    assert bucket.ok("status")["outbox_objects"] == 0

    bucket.use(owner)
    assert sum("/s/" in name for name in bucket.stored()) == 2
    assert bucket.ok("verify")["providers"][0]["findings"] == []
    assert len(rows(bucket.bring_back("out") / "messages.db")) == len(rows(bucket.source / "messages.db"))


def test_what_was_stored_and_not_acknowledged_is_put_again_by_a_key_that_may_only_put(bucket: Bucket) -> None:
    """The bytes arrive, the reply does not: the same command puts them again, over what it cannot look at."""
    bucket.init()
    owner = bucket.keys
    fill(bucket.source / "messages.db")
    with FaultProxy(bucket.server.port) as proxy:
        bucket.url = proxy.url
        bucket.use(bucket.limited(s3_policies.put_only))
        packs, manifests = Fault("lost", on=r"^PUT /[^?]+/p/"), Fault("lost", on=r"^PUT /[^?]+/s/")
        proxy.set(packs, manifests)
        bucket.backup()
        assert (packs.fired, manifests.fired) == (1, 1)
        assert (packs.answers, manifests.answers) == ([200], [200])
    bucket.url = bucket.server.url
    bucket.use(owner)
    assert bucket.ok("verify")["providers"][0]["findings"] == []
    assert len(rows(bucket.bring_back("out") / "messages.db")) == 200


def test_the_keys_of_the_documentation_that_may_do_everything(bucket: Bucket) -> None:
    bucket.use(bucket.limited(s3_policies.full))
    bucket.init()
    fill(bucket.source / "messages.db")
    bucket.backup()
    assert bucket.ok("verify")["providers"][0]["findings"] == []
    assert len(rows(bucket.bring_back("out") / "messages.db")) == 200
    bucket.ok("providers", "test", "cloud")
    assert not any(name.startswith("probe/") for name in bucket.stored())


def test_keys_that_are_wrong_and_a_bucket_that_is_gone(bucket: Bucket) -> None:
    bucket.init()
    bucket.use(Keys(secret="not this one"))
    fill(bucket.source / "messages.db")
    done = bucket.run("backup")
    assert done.code == 4
    assert "storage-credential-refused" in codes(done)

    right, bucket.bucket = bucket.bucket, "no-such-bucket-anywhere"
    bucket.use(Keys())
    done = bucket.run("backup")
    assert done.code == 4
    assert "storage-missing" in codes(done)

    bucket.bucket = right
    bucket.use(Keys())
    bucket.backup()
    assert bucket.ok("status")["outbox_objects"] == 0


def test_what_lives_stays_locked_and_what_is_pruned_is_left_until_it_is_free(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "room", retain="2 days")
    bucket.init()
    fill(bucket.source / "messages.db")
    bucket.backup()
    client, period = bucket.server.client(), 2 * 86400

    def held() -> dict[str, float]:
        """Until when each object is locked."""
        found = {}
        for name in bucket.stored():
            if not name.startswith("probe/"):
                head = client.head_object(Bucket=bucket.bucket, Key=f"{PREFIX}/{name}")
                assert head["ObjectLockMode"] == "COMPLIANCE"
                found[name] = head["ObjectLockRetainUntilDate"].timestamp()
        return found

    first = held()
    assert len(first) > 4
    assert all(period - 300 < until - time.time() <= period + 5 for until in first.values())
    with contextlib.closing(bucket.server.provider(bucket.bucket, prefix=PREFIX, retain=period)) as provider:
        for name in first:
            with pytest.raises(base.ObjectHeld):
                provider.delete(name)
        assert provider.probe().object_lock
    assert held().keys() == first.keys()

    # A day and more later: the mark of the last pass is that much nearer.
    (memory,) = (bucket.state / "providers").glob("*.db")
    with contextlib.closing(FileMemo(memory)) as memo:
        last = load(memo)
        assert last is not None
        assert last.done
        memo.set(KEY, json.dumps({"version": 1, "until": last.until - period * 0.6, "done": True}).encode())
    began = time.time()
    bucket.backup()
    now = held()
    assert all(now[name] > max(first[name], began + period - 1) for name in first)
