"""The frames between the process that holds the keys and those that ask it."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.daemon.service.wire import (
    HELLO_SIZE,
    MOST_ABOUT,
    MOST_EPOCHS,
    MOST_PATH,
    MOST_TEXT,
    About,
    Facts,
    Hello,
    Opening,
    Unreadable,
)

words = st.text(st.characters(codec="utf-8"), max_size=100)
facts = st.builds(
    Facts,
    vault_id=st.binary(min_size=16, max_size=16),
    head=st.binary(min_size=32, max_size=32),
    slot_id=st.binary(min_size=16, max_size=16),
    kind=words,
    label=words,
    until=st.integers(0, 2**64 - 1),
    since=st.integers(0, 2**64 - 1),
)
SAMPLE = Facts(b"v" * 16, b"h" * 32, b"s" * 16, "recovery-64", "paper", 7, 8)


@given(facts, st.binary(min_size=1, max_size=200), st.integers(1, MOST_EPOCHS))
def test_a_hello_says_what_it_was_made_of(facts: Facts, directory: bytes, epochs: int) -> None:
    hello = Hello(facts, directory, epochs)
    raw = hello.encode()
    assert Hello.rest(raw[:HELLO_SIZE]) == len(raw) - HELLO_SIZE
    assert Hello.decode(raw) == hello


@given(facts, st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(0, 15))
def test_so_does_what_a_session_says_of_itself(facts: Facts, key_ids: list[bytes], hardened: int) -> None:
    about = About(facts, 3, 4, hardened, b"c" * 32, tuple(key_ids))
    assert About.decode(about.encode()) == about
    assert len(about.encode()) <= MOST_ABOUT


@given(st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16), st.binary(max_size=300), st.binary(max_size=300))
def test_so_does_a_request(epoch: int, key_id: bytes, bound: bytes, sealed: bytes) -> None:
    asked = Opening(epoch, key_id, bound, sealed)
    assert Opening.decode(asked.encode()) == asked


@given(st.binary(max_size=400))
def test_anything_is_read_or_refused(raw: bytes) -> None:
    for kind in (Opening, About):
        with contextlib.suppress(Unreadable):
            assert kind.decode(raw).encode() == raw


@given(st.data())
def test_a_hello_that_was_changed_is_read_or_refused(data: st.DataObject) -> None:
    raw = bytearray(Hello(SAMPLE, b"/run", 2).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Unreadable):
        assert Hello.decode(bytes(raw)).encode() == raw


@pytest.mark.parametrize(
    "hello",
    [
        Hello(dataclasses.replace(SAMPLE, label="x" * (MOST_TEXT + 1)), b"/run", 1),
        Hello(dataclasses.replace(SAMPLE, kind="x" * (MOST_TEXT + 1)), b"/run", 1),
        Hello(SAMPLE, b"", 1),
        Hello(SAMPLE, b"x" * (MOST_PATH + 1), 1),
        Hello(SAMPLE, b"/run", 0),
        Hello(SAMPLE, b"/run", MOST_EPOCHS + 1),
    ],
)
def test_what_is_out_of_bounds_is_not_said(hello: Hello) -> None:
    with pytest.raises(Unreadable):
        hello.encode()


def test_a_later_version_is_not_taken_for_this_one() -> None:
    raw = bytearray(Hello(SAMPLE, b"/run", 1).encode())
    raw[7] += 1
    with pytest.raises(Unreadable):
        Hello.rest(bytes(raw[:HELLO_SIZE]))
