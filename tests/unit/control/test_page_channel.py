"""Frames over a socket pair: whole or refused; a secret never inside of one."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from chatkeep.daemon.control.ceremony import events
from chatkeep.daemon.control.ceremony.channel import LARGEST, Channel, ChannelBroken, ChannelClosed

Pair = tuple[Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        yield channel, theirs
        channel.close()


def test_frames_and_a_secret_after_one(pair: Pair) -> None:
    channel, theirs = pair
    other = Channel(theirs)
    secret = bytearray(os.urandom(32))
    channel.send({"a": "ü"})
    channel.send({"answered": 1}, secret)
    channel.send({})
    assert other.receive() == ({"a": "ü"}, None)
    assert other.receive() == ({"answered": 1, "secret": 32}, secret)
    assert other.receive() == ({}, None)


def test_a_secret_is_no_part_of_the_frame(pair: Pair) -> None:
    channel, theirs = pair
    secret = bytes(range(32))
    channel.send({"answered": {}}, secret)
    raw = theirs.recv(1000)
    length = struct.unpack(">I", raw[:4])[0]
    assert json.loads(raw[4 : 4 + length]) == {"answered": {}, "secret": 32}
    assert raw[4 + length :] == secret


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">I", LARGEST + 1),
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 2) + b"{]",
        struct.pack(">I", 1) + b"\xff",
        struct.pack(">I", 100_000) + b"[" * 100_000,
        struct.pack(">I", 13) + b'{"secret":31}' + bytes(31),
        struct.pack(">I", 15) + b'{"secret":true}' + bytes(1),
    ],
)
def test_what_is_no_frame(pair: Pair, raw: bytes) -> None:
    channel, theirs = pair
    theirs.sendall(raw)
    with pytest.raises(ChannelBroken):
        channel.receive()


@pytest.mark.parametrize(
    "raw", [b"", b"\0\0", struct.pack(">I", 5) + b"{", struct.pack(">I", 13) + b'{"secret":32}' + b"x" * 31]
)
def test_the_other_side_is_gone(pair: Pair, raw: bytes) -> None:
    channel, theirs = pair
    theirs.sendall(raw)
    theirs.close()
    with pytest.raises(ChannelClosed):
        channel.receive()


def test_nothing_comes_in_time(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        pair[0].receive(0.01)


def test_nobody_hears(pair: Pair) -> None:
    channel, theirs = pair
    theirs.close()
    with pytest.raises(ChannelClosed):
        channel.send({"a": "b" * 1000})


@pytest.mark.parametrize(("frame", "secret"), [({"a": "b" * LARGEST}, None), ({}, b"short")])
def test_what_is_not_sent(pair: Pair, frame: dict[str, object], secret: bytes | None) -> None:
    with pytest.raises(ValueError, match="not a frame"):
        pair[0].send(frame, secret)


@pytest.mark.parametrize(
    "event",
    [
        events.Ready("http://localhost:1/#t", "012345", opened=True),
        events.PageOpened(),
        events.Refused("used"),
        events.Insert(),
        events.Choose(2),
        events.Touch(1, 3),
        events.Pin(None, wrong=False),
        events.Retry("NotAllowedError"),
    ],
)
def test_events_go_over_and_come_back(event: events.Event) -> None:
    assert type(event) in events.EVENTS.values()
    assert events.from_frame(events.to_frame(event)) == event


@pytest.mark.parametrize(
    "frame", [{}, {"event": "x"}, {"event": "touch"}, {"event": "touch", "step": 1, "steps": 2, "x": 3}]
)
def test_frames_that_are_no_event(frame: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="event"):
        events.from_frame(frame)
