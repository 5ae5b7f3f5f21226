"""The log: who reads it can use it, and it holds no secret, whatever it is given."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from chatkeep.daemon.service.events import Bus, Event, Kind
from chatkeep.daemon.service.telling.log import _LEVELS, Log, Style, is_journal, style_for
from chatkeep.daemon.service.telling.scrub import GONE, printable, scrub, scrubbed
from tests.support.telling import AT, Planted, events_with, every_error


@pytest.fixture(autouse=True)
def _whatever_the_last_lines_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatkeep.daemon.service.telling.log._LEAVING", 60.0)


class Room:
    """A bus, and a log of it into memory."""

    def __init__(self, style: Style = Style.PLAIN, level: int = logging.INFO, words: str = "Words.") -> None:
        self.bus, self.out = Bus(), io.StringIO()
        self.log = Log(self.bus, lambda _: words, stream=self.out, style=style, level=level, colours=False)

    def lines(self, *events: Event) -> list[str]:
        """What these events become."""
        for event in events:
            self.bus.publish(event)
        self.log.close()
        return self.out.getvalue().splitlines()


def happened(kind: Kind = Kind.UPLOAD_FAILED, **values: Any) -> Event:
    return Event(kind, AT, {"provider": "disk", "code": "unavailable"} | values, {"path": "/home/ann/msgstore.db"})


def test_every_kind_has_a_level() -> None:
    assert set(_LEVELS) == set(Kind)


def test_a_line_for_the_journal_begins_with_its_priority() -> None:
    room = Room(Style.JOURNAL)
    lines = room.lines(
        happened(),
        happened(Kind.PROBLEM, problem="x", subject=""),
        happened(Kind.STARTED),
        happened(Kind.UPLOAD_PROGRESS),
    )
    assert lines == [
        "<4>Words. [upload-failed provider=disk code=unavailable]",
        '<3>Words. [problem provider=disk code=unavailable problem=x subject=""]',
        "<6>Words. [started provider=disk code=unavailable]",
    ]


def test_a_line_for_programs_is_json() -> None:
    (line,) = Room(Style.JSON).lines(happened(level="x", names=["a", "b"]))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.000Z",
        "level": "warning",
        "event": "upload-failed",
        "text": "Words.",
        "provider": "disk",
        "code": "unavailable",
        "level_": "x",
        "names": ["a", "b"],
    }


def test_lines_for_a_person_and_for_a_file() -> None:
    (line,) = Room(Style.TERMINAL).lines(happened())
    assert line.split() == ["22:13:20", "[warning", "]", "Words.", *line.split()[4:]]
    assert "provider=disk" in line
    assert "kind=upload-failed" in line
    (line,) = Room(Style.PLAIN, words="").lines(happened())
    assert line == "2023-11-14T22:13:20.000Z warning [upload-failed provider=disk code=unavailable]"


@pytest.mark.parametrize("style", Style)
def test_names_of_files_are_at_debug_level_only(style: Style) -> None:
    assert "msgstore" not in "\n".join(Room(style).lines(happened()))
    assert "msgstore.db" in "\n".join(Room(style, logging.DEBUG).lines(happened()))


@pytest.mark.parametrize("style", Style)
def test_no_line_drives_a_terminal_or_begins_another(style: Style) -> None:
    evil = "a\n<0>forged\x1b[31m\r\udcff b"
    lines = Room(style, words=evil).lines(happened(source=evil))
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    assert "\r" not in lines[0]
    assert lines[0].encode()


@pytest.mark.parametrize(
    ("style", "level"),
    [
        (Style.JOURNAL, logging.INFO),
        (Style.PLAIN, logging.DEBUG),
        (Style.JSON, logging.DEBUG),
        (Style.TERMINAL, logging.DEBUG),
    ],
)
def test_no_secret_is_in_the_log_wherever_it_is_put(style: Style, level: int) -> None:
    planted = Planted()
    for text in planted.texts:
        room = Room(style, level, words=f"Words and {text} again.")
        events = [*events_with([text, f"before {text} after"])]
        for event in events[:60]:
            room.bus.publish(event)
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            room.log.crashed(error, text)
        # Surrogates reach the log by the events; here pytest would hand them on to its report, which cannot hold them.
        logging.getLogger("library").warning("it failed at %s", text.encode("utf-8", "backslashreplace").decode())
        written = "\n".join(room.lines(*events[60:]))
        assert len(written.splitlines()) > 60
        assert planted.found_in(written) == set(), text
    assert planted.found_in(f"x{planted.texts[1]}y")  # the search finds what is there


def test_no_key_is_in_the_log_as_bytes_or_numbers() -> None:
    planted = Planted()
    number = int.from_bytes(planted.raw)
    written = Room(Style.JSON).lines(happened(many=[*planted.raw], number=number, floats=[0.5, True, None]))
    assert planted.found_in(written[0]) == set()
    assert json.loads(written[0])["floats"] == [0.5, True, None]
    assert scrub({"raw": planted.raw, "path": Path("/a")}) == {"raw": GONE, "path": GONE}


@pytest.mark.parametrize(
    "text",
    [
        "0123456789abcdef0123456789abcdef",  # an id
        "2026-11-23 12:40:46.123456 UTC, 14 objects of 1,234,567,890 bytes",
        "/home/ann/.var/app/org.telegram.desktop/data/TelegramDesktop/tdata/user_data/cache/0/00/A1B2C3D4E5F6",
        "config.py:12 load < main.py:120 main < runner.py:118 run",
        "Größe, naïve, файл, 写真, 🎉",
        "media/IMG-20260102-WA0001.jpg",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrubbed(text) == text
    assert printable(text) == text


def test_every_error_was_tried() -> None:
    codes = {cls.code for cls in every_error()}
    assert len(codes) > 60
    assert {"quota-exceeded", "device-removed", "recovery-typo", "vault-locked", "config-invalid"} <= codes


def test_what_has_no_words_is_told_by_its_code() -> None:
    bus, out = Bus(), io.StringIO()
    log = Log(bus, lambda _: str(1 // 0), stream=out, style=Style.JOURNAL)
    bus.publish(happened())
    log.close()
    assert out.getvalue() == "<4>[upload-failed provider=disk code=unavailable]\n"


def test_what_libraries_log_is_told_without_their_words() -> None:
    room = Room(Style.JOURNAL, words="")
    logging.getLogger("watchdog.x").warning("cannot watch %s", "/home/ann/secret-chat")
    logging.getLogger("watchdog.x").info("not told")
    try:
        raise OSError("/home/ann")
    except OSError:
        logging.getLogger("aiohttp").exception("failed")
    assert room.lines() == [
        "<4>[library library=watchdog.x]",
        "<4>[library library=aiohttp error=OSError]",
    ]
    logging.getLogger("watchdog.x").warning("after the end")
    assert len(room.out.getvalue().splitlines()) == 2


def test_an_error_without_a_code_is_told_with_its_place_and_not_its_text() -> None:
    room = Room(Style.JOURNAL)
    try:
        (lambda: 1 // 0)()
    except ZeroDivisionError as error:
        room.log.crashed(error, "upload")
    (line,) = room.lines()
    assert line.startswith('<3>An internal error. [crashed where=upload error=ZeroDivisionError frames="test_telling')
    assert "division" not in line


class _Stuck(io.StringIO):
    """Somebody reads nothing, until he does."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.released.wait(60)
        return super().write(text)


def test_a_reader_that_takes_nothing_delays_nobody() -> None:
    bus, out = Bus(), _Stuck()
    log = Log(bus, lambda _: "", stream=out, style=Style.JOURNAL)
    bus.publish(happened())
    assert out.reached.wait(10)
    for _ in range(6000):
        before = time.monotonic()
        bus.publish(happened())
        assert time.monotonic() - before < 30, "it waited for the reader"
    out.released.set()
    log.close()
    assert "lines-dropped count=1000" in out.getvalue()


def test_a_log_that_cannot_be_written_counts_what_is_lost() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        bus = Bus()
        log = Log(bus, lambda _: "", stream=stream, style=Style.JOURNAL)
        bus.publish(happened())
        log.close()
        assert log.lost == 1
        with pytest.raises(BrokenPipeError):
            stream.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    with open(tmp_path / "stderr", "w") as stream:
        yield stream


def test_the_journal_is_known_by_its_device_and_inode(file: TextIO) -> None:
    facts = os.fstat(file.fileno())
    ours, other = f"{facts.st_dev}:{facts.st_ino}", f"{facts.st_dev}:{facts.st_ino + 1}"
    assert is_journal(file, {"JOURNAL_STREAM": ours})
    assert not is_journal(file, {"JOURNAL_STREAM": other})  # redirected since
    assert not is_journal(file, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": ours})
    assert style_for(file, as_json=False, environment={"JOURNAL_STREAM": ours}) is Style.JOURNAL
    assert style_for(file, as_json=True, environment={"JOURNAL_STREAM": ours}) is Style.JSON
    assert style_for(file, as_json=False, environment={}) is Style.PLAIN


def test_json_in_the_journal_has_a_priority_too(file: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = os.fstat(file.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
    bus = Bus()
    log = Log(bus, lambda _: "", stream=file, style=Style.JSON)
    bus.publish(happened())
    log.close()
    line = Path(file.name).read_text()
    assert line.startswith("<4>{")
    assert json.loads(line[3:])["event"] == "upload-failed"
