"""The report of a backup, as it goes over the socket and comes out again. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from chatkeep.daemon.control.errors import DaemonForeign
from chatkeep.daemon.control.wire import plain, revived
from chatkeep.daemon.service.engine.report import (
    KINDS,
    Captured,
    Made,
    ProviderReport,
    Remark,
    Report,
    SourceReport,
)


def report_values(report: Report) -> dict[str, Any]:
    """As JSON has it: the same names; errors as code and parameters, names of files as text."""
    values = plain(report)
    assert isinstance(values, dict)
    return values


def report_of(values: object) -> Report:
    """The report that was told. Raises DaemonForeign: it is none of this version."""
    try:
        return _report(values)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise DaemonForeign(reason="answer") from exc


def _report(values: Any) -> Report:
    return Report(
        sources=[_source(each) for each in values["sources"]],
        providers=[_provider(each) for each in values["providers"]],
        renewed=[_text(each) for each in values["renewed"]],
        waiting=_pair(values["waiting"]),
        cancelled=_truth(values["cancelled"]),
        findings=[revived(each) for each in values["findings"]],
        epoch=None if values["epoch"] is None else _number(values["epoch"]),
        notices=[revived(each) for each in values["notices"]],
    )


def _source(values: Mapping[str, Any]) -> SourceReport:
    return SourceReport(
        name=_text(values["name"]),
        captured=None if values["captured"] is None else _captured(values["captured"]),
        error=None if values["error"] is None else revived(values["error"]),
        made=_number(values["made"]),
        seconds=_seconds(values["seconds"]),
    )


def _captured(values: Mapping[str, Any]) -> Captured:
    counts = ("last_seq", "snapshots", "new_bytes", "stored_bytes", "read_bytes", "files", "source_bytes")
    return Captured(
        newest=None if values["newest"] is None else _made(values["newest"]),
        changed={kind: _number(values["changed"][kind]) for kind in KINDS},
        pending=_number(values["pending"]),
        busy=_number(values["busy"]),
        remarks=tuple(_remark(each) for each in values["remarks"]),
        **{name: _number(values[name]) for name in counts},
    )


def _made(values: Mapping[str, Any]) -> Made:
    return Made(_number(values["seq"]), _text(values["id"]), _number(values["clock"]), _truth(values["complete"]))


def _remark(values: Mapping[str, Any]) -> Remark:
    error = None if values["error"] is None else revived(values["error"])
    return Remark(os.fsencode(_text(values["path"])), _text(values["reason"]), _number(values["errno"]), error)


def _provider(values: Mapping[str, Any]) -> ProviderReport:
    return ProviderReport(
        name=_text(values["name"]),
        required=_truth(values["required"]),
        objects=_number(values["objects"]),
        bytes=_number(values["bytes"]),
        problems=tuple(revived(each) for each in values["problems"]),
        waiting=_pair(values["waiting"]),
        seconds=_seconds(values["seconds"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return _number(first), _number(second)
