"""Resumable uploads to Drive: what is sent, sent again, and never sent to anybody else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random

import pytest

from chatkeep.config.errors import Cancelled
from chatkeep.providers import base
from tests.support.drive_machine import UNIT, DriveMachine, fake, machine, steadfast
from tests.support.fake_drive import FakeDrive

__all__ = ["fake", "machine"]

BODY = random.Random(12).randbytes(5 * UNIT + 77)
NAME = f"d/{'a1' * 16}/p/{hashlib.sha256(BODY).hexdigest()}"


def session_of(machine: DriveMachine) -> dict[str, object]:
    """What is remembered of the upload."""
    with contextlib.closing(machine.memo()) as memo:
        raw = memo.get(f"upload:{NAME}")
    return {} if raw is None else json.loads(raw)


def sent(fake: FakeDrive) -> int:
    """Chunks that were sent."""
    return fake.count("upload.chunk")


def test_chunk_by_chunk(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider(chunk=2 * UNIT) as provider:
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
    assert [status for call, status in fake.log if call == "upload.chunk"] == [308, 308, 200]
    assert session_of(machine) == {}


@pytest.mark.parametrize("keep", [0, 1, UNIT, 2 * UNIT + 1000, 3 * UNIT])
def test_a_connection_that_breaks_inside_a_chunk(fake: FakeDrive, machine: DriveMachine, keep: int) -> None:
    """What Drive kept of it is not sent again, and what it did not keep is."""
    with machine.provider(chunk=4 * UNIT) as provider:
        fault = fake.order("upload.chunk", keep=keep)
        with pytest.raises(base.Unavailable):
            provider.put(NAME, BODY)
        assert fault.fired == 1
        held = next(iter(fake.sessions.begun.values()))
        assert len(held.stored) == keep // UNIT * UNIT
        told: list[int] = []
        provider.put_paced(NAME, BODY, told.append)
        assert sum(told) == len(BODY) - keep // UNIT * UNIT
        assert provider.get(NAME) == BODY
    assert fake.count("upload.begin") == 1


def test_after_a_restart(fake: FakeDrive, machine: DriveMachine) -> None:
    fault = fake.order("upload.chunk", before=True, after=3)
    with machine.provider() as provider, pytest.raises(base.Unavailable):
        provider.put(NAME, BODY)
    assert fault.fired == 1
    assert str(session_of(machine)["address"]).startswith(fake.origin)
    with machine.provider(create=False) as provider:
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
    assert fake.count("upload.begin") == 1
    assert [status for call, status in fake.log if call == "upload.status"] == [308]
    assert sent(fake) == 4 + 3  # the fourth was cut off before it was carried out
    assert session_of(machine) == {}


def test_a_session_that_ended(fake: FakeDrive, machine: DriveMachine) -> None:
    fault = fake.order("upload.chunk", before=True, after=1)
    with machine.provider() as provider:
        with pytest.raises(base.Unavailable):
            provider.put(NAME, BODY)
        assert fake.sessions.expire() == 1
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
    assert fault.fired == 1
    assert [status for call, status in fake.log if call == "upload.status"] == [404]
    assert fake.count("upload.begin") == 2


def test_a_session_that_ends_while_it_is_written_to(fake: FakeDrive, machine: DriveMachine) -> None:
    fault = fake.order("upload.chunk", status=404, reason="notFound", after=2)
    with machine.provider() as provider:
        with pytest.raises(base.Unavailable) as caught:
            provider.put(NAME, BODY)
        assert caught.value.params["reason"] == "session-gone"
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
    assert fault.fired == 1


def test_a_session_that_takes_nothing(fake: FakeDrive, machine: DriveMachine) -> None:
    """308 to everything, and never a byte kept: it ends, and the next attempt begins another."""
    fault = fake.order("upload.chunk", status=308, text=b"", times=None)
    with machine.provider() as provider:
        with pytest.raises(base.Unavailable) as caught:
            provider.put(NAME, BODY)
        assert caught.value.params["reason"] == "session-stuck"
        assert fault.fired == 1
        fake.faults.end()
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY


@pytest.mark.parametrize(
    ("status", "reason", "error", "kept"),
    [
        (503, "backendError", base.Unavailable, True),
        (429, "rateLimitExceeded", base.Throttled, True),
        (403, "userRateLimitExceeded", base.Throttled, True),
        (403, "storageQuotaExceeded", base.QuotaExceeded, False),
        (400, "badRequest", base.Unavailable, False),
        (403, "forbidden", base.PermissionRefused, False),
    ],
)
def test_what_a_session_survives(
    fake: FakeDrive,
    machine: DriveMachine,
    status: int,
    reason: str,
    error: type[base.ProviderError],
    kept: bool,
) -> None:
    fault = fake.order("upload.chunk", status=status, reason=reason, after=2)
    with machine.provider() as provider:
        with pytest.raises(error) as caught:
            provider.put(NAME, BODY)
        assert type(caught.value) is error
        assert (session_of(machine) != {}) == kept
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
    assert fault.fired == 1
    assert fake.count("upload.begin") == (1 if kept else 2)


def test_other_bytes_do_not_go_into_an_old_session(fake: FakeDrive, machine: DriveMachine) -> None:
    fake.order("upload.chunk", before=True, after=1)
    with machine.provider() as provider:
        with pytest.raises(base.Unavailable):
            provider.put("slots/a", BODY)
        provider.put("slots/a", BODY[::-1])
        assert provider.get("slots/a") == BODY[::-1]
    assert len(fake.named("slots/a")) == 1


def test_an_address_of_somebody_else(fake: FakeDrive, machine: DriveMachine) -> None:
    """An address of another server, from a reply or a memo, is never spoken to."""
    with machine.provider() as provider:
        begin = provider._files.begin
        provider._files.begin = lambda *arguments: begin(*arguments).replace(str(fake.port), "9")  # type: ignore[method-assign]
        with pytest.raises(base.Unavailable) as caught:
            provider.put(NAME, BODY)
        assert caught.value.params["reason"] == "foreign-address"
        assert "upload_id" not in repr(caught.value)
        assert "AF-session" not in repr(caught.value)
        provider._files.begin = begin  # type: ignore[method-assign]
        assert ":9/" in str(session_of(machine)["address"])
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"address": 1}', b'{"address":"","id":"","size":0,"sha256":"","x":1}']
)
def test_a_memo_that_makes_no_sense(fake: FakeDrive, machine: DriveMachine, raw: bytes) -> None:
    with contextlib.closing(machine.memo()) as memo:
        memo.set(f"upload:{NAME}", raw)
        memo.set("id:a/b", b"\xff\xfe")
        memo.set("id:c", b"../about?fields=user")
    with machine.provider() as provider:
        provider.put(NAME, BODY)
        assert provider.get(NAME) == BODY
        with pytest.raises(base.ObjectNotFound):
            provider.get("a/b")
        provider.put("c", b"1")
        assert provider.get("c") == b"1"


def test_cancelled_in_the_middle_and_taken_up_again(fake: FakeDrive, machine: DriveMachine) -> None:
    told: list[int] = []

    def pace(size: int) -> None:
        told.append(size)
        if len(told) == 10:
            raise Cancelled

    with machine.provider(chunk=2 * UNIT) as provider:
        with pytest.raises(Cancelled):
            provider.put_paced(NAME, BODY, pace)
        assert fake.named(NAME) == []
        provider.put_paced(NAME, BODY, told.append)
        assert provider.get(NAME) == BODY
    assert max(told) <= 65_536
    assert fake.count("upload.begin") == 1


def test_a_body_that_is_cut_again_and_again(fake: FakeDrive, machine: DriveMachine) -> None:
    """What came is kept and the rest asked for; a server that sends nothing any more ends it."""
    with machine.provider() as provider:
        provider.put(NAME, BODY)
        cut = fake.order("files.download", cut=300_000, times=4)
        assert provider.get(NAME) == BODY
        assert cut.fired == 4
        none = fake.order("files.download", cut=0, times=None)
        with pytest.raises(base.Unavailable) as caught:
            provider.get(NAME, 10, 1000)
        assert caught.value.params == {"provider": "drive", "object": NAME, "reason": "body-cut"}
        assert none.fired == 1


def test_a_server_that_sends_more_than_was_asked_for(fake: FakeDrive, machine: DriveMachine) -> None:
    with machine.provider() as provider:
        provider.put("a/b", b"0123456789")
        for text in (b"0123456789", b"x" * 3):
            fault = fake.order("files.download", status=200, text=text)
            if len(text) == 10:  # all of it in place of a part: a server may do that
                assert provider.get("a/b", 3, 4) == b"3456"
            else:
                with pytest.raises(base.Unavailable):
                    provider.get("a/b", 3, 4)
            assert fault.fired == 1


def test_nothing_secret_in_errors_logs_and_causes(
    fake: FakeDrive, machine: DriveMachine, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request fails in every way once; nothing that opens an account or a session is told anywhere."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    calls = ("token", "files.list", "files.generateIds", "upload.begin", "upload.chunk", "upload.status", "files.get")
    html = b"<html>" + b"x" * 100
    with machine.provider():
        pass
    for call in calls:
        for how in (
            {"drop": True},
            {"status": 500},
            {"status": 403, "reason": "forbidden"},
            {"status": 401, "text": html},
        ):
            if call == "upload.status":
                fake.order("upload.chunk", before=True)
            fault = fake.order(call, **{"times": 2, **how})
            with machine.provider(create=False) as provider:
                for _ in range(3):
                    try:
                        provider.put(NAME, BODY)
                        provider.stat(NAME)
                    except base.ProviderError as problem:
                        link: BaseException | None = problem
                        while link is not None:
                            seen.append(f"{link!r} {link}")
                            link = link.__cause__
            assert fault.fired >= 1, (call, how)
            fake.faults.end()
            with machine.provider(create=False) as provider:
                steadfast(provider).delete(NAME)
    secrets = [fake.accounts.client_secret, *fake.accounts.refreshes, *fake.accounts.accesses, *fake.sessions.begun]
    text = "\n".join([*seen, caplog.text])
    assert len(seen) >= 20
    assert len(secrets) >= 20
    assert [each for each in secrets if each in text] == []
    assert "upload_id" not in text
