"""Figures for Prometheus: its text exposition format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/. What each one means is in its HELP line,
and in docs/telling.md. Counters begin at the start of the daemon.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from chatkeep.config.amounts import UNLIMITED, Rate
from chatkeep.daemon.service.events import Event, Kind
from chatkeep.daemon.service.telling.notice import Notice
from chatkeep.providers.used import Used

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MODE: Final = 0o644  # another user's exporter reads the file; it holds names of sources, providers and jobs


class Family(NamedTuple):
    """A name, and what it means."""

    name: str
    type: str
    help: str
    label: str


_FAMILIES: Final = (
    Family("chatkeep_info", "gauge", "The version that runs. Always 1.", "version"),
    Family("chatkeep_start_timestamp_seconds", "gauge", "When the daemon started.", ""),
    Family("chatkeep_snapshot_timestamp_seconds", "gauge", "When the newest snapshot of a source was taken.", "source"),
    Family(
        "chatkeep_compared_timestamp_seconds", "gauge", "When a source was last seen to be as its snapshots.", "source"
    ),
    Family(
        "chatkeep_acknowledged_timestamp_seconds",
        "gauge",
        "When the newest snapshot that a provider has in full was taken.",
        "provider",
    ),
    Family(
        "chatkeep_lag_seconds",
        "gauge",
        "Between the newest snapshot that a provider has in full and the newest there is. 0: it has everything.",
        "provider",
    ),
    Family("chatkeep_waiting_bytes", "gauge", "Waiting to be uploaded to a provider.", "provider"),
    Family(
        "chatkeep_left_behind",
        "gauge",
        "1 while a provider is not waited for: it lacks what left the outbox, and is brought up from another one.",
        "provider",
    ),
    Family("chatkeep_snapshots_total", "counter", "Snapshots made.", "source"),
    Family("chatkeep_snapshot_failures_total", "counter", "Snapshots that failed.", "source"),
    Family("chatkeep_snapshot_bytes_total", "counter", "Sealed by snapshots.", "source"),
    Family("chatkeep_uploads_total", "counter", "Uploads that were finished.", "provider"),
    Family("chatkeep_upload_failures_total", "counter", "Uploads that failed.", "provider"),
    Family("chatkeep_uploaded_bytes_total", "counter", "Sent to a provider.", "provider"),
    Family(
        "chatkeep_credential_refused",
        "gauge",
        "1 while a provider does not accept its key or login: somebody must give another or log in.",
        "provider",
    ),
    Family("chatkeep_day_requests", "gauge", "Asked of a provider on this day of UTC.", "provider"),
    Family("chatkeep_day_sent_bytes", "gauge", "Sent to a provider on this day of UTC.", "provider"),
    Family("chatkeep_day_received_bytes", "gauge", "Received from a provider on this day of UTC.", "provider"),
    Family(
        "chatkeep_upload_limit_bytes_per_second", "gauge", "Sent at most, at this hour. Missing: no limit.", "provider"
    ),
    Family(
        "chatkeep_download_limit_bytes_per_second",
        "gauge",
        "Received at most, at this hour. Missing: no limit.",
        "provider",
    ),
    Family("chatkeep_session_open", "gauge", "1 while the vault is unlocked.", ""),
    Family("chatkeep_uploads_held", "gauge", "1 while uploads wait for an unlock.", ""),
    Family("chatkeep_outbox_full", "gauge", "1 while snapshots wait for uploads.", ""),
    Family("chatkeep_watch_degraded", "gauge", "1 while a source is only looked at from time to time.", "source"),
    Family("chatkeep_job_success_timestamp_seconds", "gauge", "When a job last ended well.", "job"),
    Family("chatkeep_job_failures_total", "counter", "Jobs that failed.", "job"),
    Family("chatkeep_problems", "gauge", "Problems that stand and are worth knowing.", "problem"),
)
_FROM_ZERO: Final = frozenset({"waiting_bytes", "left_behind", "watch_degraded", "credential_refused"})
_REFUSED: Final = frozenset({"login-needed", "storage-credential-refused"})
_BY_NAME: Final = {family.name.removeprefix("chatkeep_"): family for family in _FAMILIES}


class Metrics:
    """What happened so far, in figures. Not for several threads."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, float]] = {name: {} for name in _BY_NAME}
        self._newest = 0  # snapshot, UNIX nanoseconds

    def expect(self, sources: Sequence[str], providers: Sequence[str], jobs: Mapping[str, float]) -> None:
        """Counters that begin at 0 are seen to grow; those that first appear with 1 are not. What is not named is
        forgotten."""
        names = {"source": sources, "provider": providers, "job": list(jobs)}
        for name, family in _BY_NAME.items():
            if family.label in names:
                known = self._values[name]
                first = 0.0 if family.type == "counter" or name in _FROM_ZERO else None
                kept = {one: known.get(one, first) for one in names[family.label]}
                self._values[name] = {one: value for one, value in kept.items() if value is not None}

    def know(self, snapshots: Mapping[str, int], acknowledged: Mapping[str, int], jobs: Mapping[str, int]) -> None:
        """What was so before the start: instants in UNIX nanoseconds by name of source, provider, job."""
        for name, known in (
            ("snapshot_timestamp_seconds", snapshots),
            ("acknowledged_timestamp_seconds", acknowledged),
            ("job_success_timestamp_seconds", jobs),
        ):
            self._values[name] |= {one: when / 1e9 for one, when in known.items()}
        self._newest = max([self._newest, *snapshots.values()])
        for provider in acknowledged:
            self._lag(provider)

    def use(self, days: Mapping[str, Used], limits: Mapping[str, tuple[Rate, Rate]]) -> None:
        """What providers were used for today, and the rates that hold now, by their names."""
        self._values["day_requests"] = {name: used.total for name, used in days.items()}
        self._values["day_sent_bytes"] = {name: used.sent for name, used in days.items()}
        self._values["day_received_bytes"] = {name: used.received for name, used in days.items()}
        for which, short in enumerate(("upload", "download")):
            held = {name: rates[which] for name, rates in limits.items() if rates[which] < UNLIMITED}
            self._values[f"{short}_limit_bytes_per_second"] = dict(held)

    def take(self, event: Event) -> None:
        """Counts what happened."""
        values, when = event.values, event.at.wall_ns / 1e9
        match event.kind:
            case Kind.LEFT_BEHIND | Kind.CAUGHT_UP:
                self._put("left_behind", str(values.get("provider")), event.kind is Kind.LEFT_BEHIND)
            case Kind.STARTED:
                self._values["info"] = {str(values.get("version", "")): 1}
                self._put("start_timestamp_seconds", "", when)
                for name in ("session_open", "uploads_held", "outbox_full"):
                    self._values[name].setdefault("", 0)
            case Kind.SNAPSHOT_MADE:
                self._made(event, str(values.get("source")))
            case Kind.SNAPSHOT_NOTHING:
                self._put("compared_timestamp_seconds", str(values.get("source")), when)
            case Kind.SNAPSHOT_FAILED:
                self._add("snapshot_failures_total", str(values.get("source")))
            case Kind.UPLOAD_BEGUN | Kind.UPLOAD_PROGRESS | Kind.UPLOAD_DONE | Kind.UPLOAD_FAILED:
                self._upload(event, str(values.get("provider")))
            case Kind.JOB_DONE:
                self._put("job_success_timestamp_seconds", str(values.get("job")), when)
            case Kind.JOB_FAILED:
                self._add("job_failures_total", str(values.get("job")))
            case kind:
                self._turn(kind, str(values.get("source")))

    def _turn(self, kind: Kind, source: str) -> None:
        switches = {
            Kind.UNLOCKED: ("session_open", "", 1),
            Kind.LOCKED: ("session_open", "", 0),
            Kind.HELD: ("uploads_held", "", 1),
            Kind.OUTBOX_FULL: ("outbox_full", "", 1),
            Kind.OUTBOX_FREED: ("outbox_full", "", 0),
            Kind.WATCH_DEGRADED: ("watch_degraded", source, 1),
            Kind.WATCH_RESTORED: ("watch_degraded", source, 0),
        }
        if kind in switches:
            self._put(*switches[kind])
        if kind is Kind.UNLOCKED:
            self._put("uploads_held", "", 0)

    def _made(self, event: Event, source: str) -> None:
        taken = event.values.get("taken_ns")
        taken = taken if isinstance(taken, int) else event.at.wall_ns
        self._newest = max(self._newest, taken)
        self._put("snapshot_timestamp_seconds", source, taken / 1e9)
        self._put("compared_timestamp_seconds", source, event.at.wall_ns / 1e9)
        self._add("snapshots_total", source)
        self._add("snapshot_bytes_total", source, _number(event.values.get("bytes")))
        for provider in list(self._values["acknowledged_timestamp_seconds"]):
            self._lag(provider)

    def _upload(self, event: Event, provider: str) -> None:
        values = event.values
        self._put("uploads_held", "", 0)
        if "waiting" in values:
            self._put("waiting_bytes", provider, _number(values["waiting"]))
        elif "total" in values:
            self._put("waiting_bytes", provider, max(0.0, _number(values["total"]) - _number(values.get("done"))))
        if event.kind is Kind.UPLOAD_FAILED:
            self._add("upload_failures_total", provider)
            if values.get("code") in _REFUSED:
                self._put("credential_refused", provider, 1)
        if event.kind is Kind.UPLOAD_DONE:
            self._add("uploads_total", provider)
            self._put("credential_refused", provider, 0)
            self._add("uploaded_bytes_total", provider, _number(values.get("bytes")))
            if isinstance(values.get("acknowledged_ns"), int):
                self._put("acknowledged_timestamp_seconds", provider, values["acknowledged_ns"] / 1e9)
                self._lag(provider)

    def _lag(self, provider: str) -> None:
        newest, has = self._newest / 1e9, self._values["acknowledged_timestamp_seconds"][provider]
        self._put("lag_seconds", provider, max(0.0, newest - has))

    def _put(self, name: str, label: str, value: float) -> None:
        self._values[name][label] = value

    def _add(self, name: str, label: str, value: float = 1) -> None:
        self._values[name][label] = self._values[name].get(label, 0) + value

    def text(self, standing: Sequence[Notice]) -> str:
        """Everything, as Prometheus reads it. `standing`: the problems there are."""
        counts = dict.fromkeys((str(notice.problem) for notice in standing), 0.0)
        for notice in standing:
            counts[str(notice.problem)] += 1
        return "".join(_lines({**self._values, "problems": counts}))


def _lines(values: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for short, family in _BY_NAME.items():
        if not values[short]:
            continue
        yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.type}\n"
        for label, value in sorted(values[short].items()):
            named = f'{{{family.label}="{_escaped(label)}"}}' if family.label else ""
            yield f"{family.name}{named} {_shown(value)}\n"


def _escaped(text: str) -> str:
    safe = text.encode("utf-8", "replace").decode()
    return safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _shown(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def write_whole(path: Path, text: str) -> None:
    """Puts a file in the place of another, whole: who reads it has the old or the new one. Not fsynced: after a crash
    the next one comes in a minute.

    Raises OSError.
    """
    # A name that no exporter takes for a file of figures: they read *.prom.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        with open(descriptor, "wb") as stream:
            os.fchmod(descriptor, MODE)  # whatever the umask
            stream.write(text.encode())
        os.rename(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
