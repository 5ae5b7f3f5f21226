"""What docs/commands.md promises to programs: every command's JSON has exactly the keys of its example there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.newcomer import Newcomer
from tests.support.station import Station, fill

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def examples() -> dict[str, list[Any]]:
    """The JSON examples of each chapter."""
    chapters = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        chapter.splitlines()[0]: [json.loads(block) for block in re.findall(r"```json\n(.*?)```", chapter, re.DOTALL)]
        for chapter in chapters
    }


def shape(value: Any) -> Any:
    """The keys of a value, of the first of a list; what is null or empty could be anything."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else "anything"
    return "anything" if value is None else type(value).__name__.replace("float", "number").replace("int", "number")


def differences(found: Any, promised: Any, at: str = "") -> list[str]:
    """Where two shapes differ."""
    if "anything" in (found, promised):
        return []
    if isinstance(found, dict) and isinstance(promised, dict):
        wrong = [f"{at}.{key}" for key in found.keys() ^ promised.keys()]
        return wrong + [
            one
            for key in found.keys() & promised.keys()
            for one in differences(found[key], promised[key], f"{at}.{key}")
        ]
    if isinstance(found, list) and isinstance(promised, list):
        return differences(found[0], promised[0], f"{at}[]")
    return [] if found == promised else [f"{at}: {found} and not {promised}"]


def set_up(room: Path) -> Any:
    """What setup says of the whole way."""
    room.mkdir()
    newcomer = Newcomer(room)
    newcomer.signal()
    return newcomer.set_up()


def everyday(station: Station, see: Callable[..., None], unlock: list[Any]) -> None:
    """What is asked of a vault that is well."""
    fill(station.source / "messages.db")
    os.mkfifo(station.source / "pipe")
    see("status", "status")
    see("backup", "backup")
    see("status", "status")
    see("unlock", "unlock", *unlock)
    see("status", "status")
    see("lock", "lock")
    see("snapshots", "snapshots", *unlock)
    see("ls", "ls", "latest", *unlock)
    see("restore", "restore", "latest", "--target", station.room / "out", *unlock)
    see("restore", "restore", "latest", "--target", station.room / "dry", "--dry-run", *unlock)
    see("verify", "verify", "--deep", *unlock)
    see("verify", "verify")
    see("drill", "drill", *unlock)
    see("status", "status")
    see("prune", "prune", *unlock)
    see("prune", "prune", "--dry-run", *unlock)
    see("key list, key add", "key", "list", "--labels", *unlock)
    see("device list", "device", "list", *unlock)
    see("key remove, key rotate, device remove", "key", "rotate", "--yes", *unlock)
    see("doctor", "doctor")
    see("providers test", "providers", "test", "--quick")
    see("providers list", "providers", "list")
    see("providers login", "providers", "login", "disk")
    see("reader", "reader")
    see("config check, schema, example", "config", "check")
    station.names = ("disk", "second")
    station.configure(station.source)
    see("mirror", "mirror", "second", "--dry-run")
    see("mirror", "mirror", "second")
    station.names = ("disk",)
    station.configure(station.source)


def test_every_promise(station: Station, tmp_path: Path) -> None:
    promised = examples()
    seen: dict[str, list[Any]] = {}

    def see(chapter: str, *words: object, code: int = 0) -> None:
        done = station.run(*words)
        assert done.code == code, done
        seen.setdefault(chapter, []).append(done.json)

    unlock = ["--key-file", station.key]
    everyday(station, see, unlock)
    for path in station.state.glob("state.db*"):
        path.unlink()
    assert station.run("backup").error == "state-lost"
    see("rebuild", "rebuild", *unlock)
    station.state.rename(tmp_path / "lost")
    see("join", "join", *unlock)
    station.source.rename(tmp_path / "moved")
    see("backup", "backup", code=1)
    see("An error", "restore", code=2)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    station = Station(fresh)
    see("init", "init", "--recovery-key-file", station.key)
    seen["setup"] = [set_up(tmp_path / "newcomer")]

    assert set(promised) - set(seen) == {"Exit codes", "Secrets", "Which snapshot", "cat", "run"}
    wrong = {
        chapter: found
        for chapter, outputs in seen.items()
        for output in outputs
        if (found := differences(shape(output), shape(promised[chapter][0])))
    }
    if "An error" in wrong:  # its parameters are another error's
        wrong["An error"] = [one for one in wrong["An error"] if not one.startswith(".error.params")]
    assert {chapter: found for chapter, found in wrong.items() if found} == {}


def test_the_comparison_finds_what_is_missing() -> None:
    assert differences(shape({"a": [{"b": 1}]}), shape({"a": [{"b": 1, "c": 2}]})) == [".a[].c"]
    assert differences(shape({"a": "x"}), shape({"a": 1})) == [".a: str and not number"]
