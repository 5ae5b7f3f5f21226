"""What `status` shows of the running daemon: since when it runs, what it does, what comes next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.cli.measures import age, duration, local_time, printable, size
from chatkeep.daemon.cli.telling import tell, tell_code

if TYPE_CHECKING:
    from pathlib import Path

    from chatkeep.daemon.cli.status_command import Screen

PATIENCE: Final = 2.0
"""Seconds for the daemon to answer: it does at once, or something is wrong with it."""

START: Final = "not running. Start it: systemctl --user start chatkeep\nBy hand: chatkeep run"
_SECOND: Final = 10**9
_LAG_NS: Final = 60 * _SECOND  # a lag that is worth a word
_NEED_UNLOCK: Final = {"drill", "prune"}
_DOING: Final = {"snapshot": "capturing", "upload": "uploading to", "job": "job:", "sweep": "deleting at"}


def look(screen: Screen, state_dir: Path) -> dict[str, Any] | None:
    """What the daemon with these records says of itself, with rows of it on the screen; None when none can be asked."""
    from chatkeep.daemon.control.client import Daemon

    try:
        daemon = Daemon.find(state_dir, patience=PATIENCE)
        found = None if daemon is None else daemon.status()
    except ChatkeepError as exc:
        told = tell(exc)
        screen.silent = exc.code != "daemon-lost"
        screen.rows.append(("daemon", "runs, and cannot be asked" if screen.silent else "just ended"))
        screen.problem("daemon", told.text, told.remedy)
        return None
    except OSError as exc:
        screen.rows.append(("daemon", f"cannot be asked: {exc.strerror}"))
        return None
    if found is None:
        screen.rows.append(("daemon", START))
        return None
    try:
        _show(screen, found)
    except (KeyError, TypeError, ValueError, AttributeError):
        told = tell_code("daemon-foreign", reason="answer")
        screen.problem("daemon", told.text, told.remedy)
    return found


def finish(screen: Screen, found: Mapping[str, Any] | None) -> None:
    """What comes below everything else: its jobs, and what it found wrong that is not on the screen yet."""
    jobs = [_job(screen, found, one) for one in _listed(found, "jobs")] if found is not None else []
    if jobs:
        screen.rows.append(("jobs", "\n".join(jobs)))
    told = {problem["about"] for problem in screen.problems}
    for one in _listed(found, "problems"):
        if one["subject"] not in told:
            screen.problem(str(one["subject"]) or "daemon", *_problem(one))


def sources(found: Mapping[str, Any] | None, now: int) -> dict[str, list[str]]:
    """Lines about each source, by its name."""
    return {one["name"]: list(_source_lines(one, now)) for one in _listed(found, "sources")}


def providers(found: Mapping[str, Any] | None, now: int) -> dict[str, list[str]]:
    """Lines about each provider, by its name."""
    return {one["name"]: list(_provider_lines(one, now)) for one in _listed(found, "providers")}


def is_working(found: Mapping[str, Any]) -> bool:
    """Whether a backup runs in it now."""
    return any(one.get("what") in {"snapshot", "upload"} for one in _listed(found, "doing"))


def _show(screen: Screen, found: Mapping[str, Any]) -> None:
    now = screen.now
    lines = [f"{_mode(found)} since {local_time(found['since_ns'])}"]
    lines += list(_doing(found, now))
    if not found["session"]["uploads"]:
        lines.append("uploads wait until somebody unlocks: chatkeep unlock")
    screen.rows.append(("daemon", "\n".join(lines)))
    if found["config_fault"] is not None:
        told = tell_code(found["config_fault"]["code"])
        text = f"The configuration was changed, and the daemon goes on with the one before. {told.text}"
        screen.problem("daemon", text, "chatkeep config check, then: systemctl --user reload chatkeep")
    if os.stat(__file__).st_ctime_ns > found["since_ns"]:
        _compare_versions(screen, found)


def _compare_versions(screen: Screen, found: Mapping[str, Any]) -> None:
    """The program was installed since the daemon was started: else both are the same one, and to ask for the version
    takes longer than all the rest."""
    from importlib.metadata import version

    if found["version"] != version("chatkeep"):
        text = f"It is of version {printable(found['version'])}, and this command of {version('chatkeep')}."
        screen.problem("daemon", text, "systemctl --user restart chatkeep")


def _mode(found: Mapping[str, Any]) -> str:
    if found["mode"] == "lent":
        who = f"chatkeep {printable(found['lent'])}" if found["lent"] else "another command"
        return f"waits for {who}, running"
    return str(found["mode"])


def _doing(found: Mapping[str, Any], now: int) -> Iterator[str]:
    for one in found["doing"]:
        text = f"{_DOING.get(one['what'], one['what'])} {printable(one['subject'])}"
        if one["total"]:
            text += f": {size(one['done'])} of {size(one['total'])}"
        yield f"{text}, for {duration(max(0, now - one['since_ns']) / _SECOND)}"


def _job(screen: Screen, found: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    text = f"{printable(one['name'])}: {_next(found, one, screen.now)}"
    last, fault = one["last_ns"], one["fault"]
    ago = age(last, screen.now) if last is not None else ""
    if one["name"] == "compare" and fault is not None:  # its last time is when all was well
        source = fault["params"].get("source")
        path = next((str(row["path"]) for row in screen.sources if row["name"] == source), "?")
        said = tell_code(fault["code"], **{"path": path, **fault["params"]}).text
        return f"{text}; {f'last complete {ago}' if ago else 'not complete yet'}; {printable(source)}: {said}"
    said = "all well" if fault is None else tell_code(fault["code"], **fault["params"]).text
    return f"{text}; last {ago}, {said}" if ago else text


def _next(found: Mapping[str, Any], one: Mapping[str, Any], now: int) -> str:
    if one["due"]:
        return "waits for an unlock" if one["name"] in _NEED_UNLOCK and not found["session"]["unlocked"] else "due now"
    if one["next_ns"] is not None:
        return _ahead(one["next_ns"], now)
    return "now" if one["every_s"] is not None else "only when asked for"


def _source_lines(one: Mapping[str, Any], now: int) -> Iterator[str]:
    if one["watched"] == "polling":
        yield "changes cannot be watched: it is looked at from time to time"
    if one["changed"] and one["next_ns"] is not None:
        # Whatever changes until then can put it off.
        ahead = _ahead(one["next_ns"], now)
        yield f"something changed; next snapshot {ahead}{'' if ahead == 'now' else ' at the earliest'}"


def _provider_lines(one: Mapping[str, Any], now: int) -> Iterator[str]:
    if one["behind_ns"] is not None and now - one["behind_ns"] > _LAG_NS:
        yield f"lags {duration((now - one['behind_ns']) / _SECOND)} behind"
    if one["next_ns"] is not None:
        yield f"tried again {_ahead(one['next_ns'], now)}"


def _problem(one: Mapping[str, Any]) -> tuple[str, str]:
    # Imported when there is one: `status` is quick.
    from chatkeep.daemon.cli.words_of_problems import STATUS, problem_words

    said = problem_words(str(one["problem"]), str(one["subject"]), int(one["since_ns"]), one["values"])
    # That remedy is what is read here.
    return f"{said.title}. {said.text}".strip(), "" if said.remedy == STATUS else said.remedy


def _ahead(when_ns: int, now: int) -> str:
    left = (when_ns - now) / _SECOND
    return f"in {duration(left)}" if left >= 1 else "now"


def _listed(found: Mapping[str, Any] | None, part: str) -> Sequence[Mapping[str, Any]]:
    rows = found.get(part) if found is not None else None
    return rows if isinstance(rows, list) else []
