"""What a backup did, for a person and for a program."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.measures import counted, duration, local_time, printable, size, stamp
from chatkeep.daemon.cli.output import Output, fields
from chatkeep.daemon.cli.telling import plain_error, tell
from chatkeep.daemon.service.engine.report import Captured, Made, ProviderReport, Remark, Report, SourceReport

MOST_SHOWN = 10  # remarks about paths of one source; --json has all

# Why a path is not, or not as it is now, in the backup. True: a person should do something about it.
_REMARKS = {
    "unreadable": ("cannot be read", True),
    "changed": ("was replaced while it was looked at; the next backup has it", False),
    "special": ("is a socket, pipe or device: there is nothing to keep", False),
    "too-long": ("has a name longer than the format carries", True),
    "mounted": ("is another file system; it is kept too", False),
}
_SERIOUS = {"database-damaged", "source-unreadable", "unsupported-source"}


def value_of(report: Report) -> dict[str, Any]:
    """For --json."""
    return {
        "sources": [_source_value(source) for source in report.sources],
        "providers": [_provider_value(provider) for provider in report.providers],
        "findings": [plain_error(finding) for finding in report.findings],
        "new_epoch": report.epoch,
        "notices": [plain_error(notice) for notice in report.notices],
        "begun_anew": report.renewed,
        "waiting_objects": report.waiting[0],
        "waiting_bytes": report.waiting[1],
        "cancelled": report.cancelled,
    }


def lines_of(report: Report, out: Output, handed_over: Collection[str] = ()) -> list[str]:
    """For a person. `handed_over`: providers from which another program uploads, unseen from here."""
    lines = [
        f"{printable(name)}: something that waited to be uploaded was lost on this device. Its snapshots begin "
        "anew; those that were uploaded stay, and those before what was lost are still uploaded."
        for name in report.renewed
    ]
    if report.epoch is not None:
        lines.append(
            f"The keys of the vault were changed; this device goes on with the new ones (epoch {report.epoch})."
        )
    for finding in (*report.notices, *report.findings):
        told = tell(finding)
        lines += [out.styled(told.text, "bad"), *filter(None, [told.remedy])]
    for source in report.sources:
        lines += _source_lines(source, out)
    # Of what was not backed up nothing waits, and nobody has it.
    partly = any(source.captured is None for source in report.sources)
    for provider in report.providers:
        whole = "everything was handed over" if provider.name in handed_over else "has everything"
        lines += _provider_lines(provider, out, "nothing waits to be sent" if partly else whole)
    if report.cancelled:
        lines.append("Cancelled. What is listed here stands; the next backup goes on from it.")
    elif report.waiting[0] and not report.providers:
        lines.append(f"{size(report.waiting[1])} wait to be uploaded by the next backup.")
    return lines


def exit_of(report: Report) -> Exit:
    """The worst of all."""
    if report.cancelled:
        return Exit.CANCELLED
    return worst(
        [
            *map(_source_exit, report.sources),
            *map(_provider_exit, report.providers),
            *(tell(one).exit for one in report.findings),
        ]
    )


def _source_value(source: SourceReport) -> dict[str, Any]:
    done = source.captured or Captured()
    ended = source.captured is not None
    return {
        "name": source.name,
        "error": None if source.error is None else plain_error(source.error),
        "seconds": round(source.seconds, 3),
        "snapshots": source.made,
        "snapshot": _snapshot(done.newest) if done.newest else None,
        "last_seq": done.last_seq if ended else None,
        "changed": done.changed,
        "new_bytes": done.new_bytes,
        "stored_bytes": done.stored_bytes,
        "read_bytes": done.read_bytes if ended else None,
        "files": done.files if ended else None,
        "source_bytes": done.source_bytes if ended else None,
        "pending": done.pending if ended else None,
        "busy": done.busy if ended else None,
        "problems": [{"path": remark.path, "reason": remark.reason} for remark in done.remarks],
    }


def _source_lines(source: SourceReport, out: Output) -> Iterator[str]:
    head = out.styled(printable(source.name), "head")
    done = source.captured
    if source.error is not None:
        told = tell(source.error)
        yield f"{head}: {out.styled('not backed up', 'bad')}"
        yield from fields([("", "\n".join(filter(None, (told.text, told.remedy))))], indent=0)
    elif done is None:
        yield f"{head}: cancelled" + (f" after {counted(source.made, 'snapshot')}" if source.made else "")
    elif done.newest is None:
        yield f"{head}: nothing changed since snapshot {done.last_seq} ({duration(source.seconds)})"
        yield from fields(list(_remarks(done, out)))
    else:
        made = f", {done.snapshots} of them made" if done.snapshots > 1 else ""
        yield f"{head}: snapshot {done.newest.seq} of {local_time(done.newest.clock)}{made}"
        yield from fields([*_figures(done, source.seconds), *_remarks(done, out)])


def _figures(done: Captured, seconds: float) -> Iterator[tuple[str, str]]:
    yield "changed", _changed_words(done.changed) + (f": {size(done.new_bytes)}" if done.new_bytes else "")
    yield "stored", f"{size(done.stored_bytes)}, compressed and sealed"
    yield "took", duration(seconds)


def _remarks(done: Captured, out: Output) -> Iterator[tuple[str, str]]:
    if done.pending:
        yield "pending", f"{counted(done.pending, 'file')} not in the vault yet; the next backup continues"
    if done.busy:
        yield "busy", f"{counted(done.busy, 'file')} could not be read at rest; the version before stands"
    if done.remarks:
        shown = [_remark_words(remark, out) for remark in done.remarks[:MOST_SHOWN]]
        rest = len(done.remarks) - len(shown)
        yield "notes", "\n".join(shown + ([f"and {rest} more, all in --json"] if rest else []))


def _source_exit(source: SourceReport) -> Exit:
    """Done only if nothing that a person should see to was left out."""
    if source.error is not None:
        return tell(source.error).exit
    lacking = source.captured is not None and any(map(_needs_person, source.captured.remarks))
    return Exit.FAILED if lacking else Exit.DONE


def _provider_value(provider: ProviderReport) -> dict[str, Any]:
    return {
        "name": provider.name,
        "required": provider.required,
        "sent_objects": provider.objects,
        "sent_bytes": provider.bytes,
        "waiting_objects": provider.waiting[0],
        "waiting_bytes": provider.waiting[1],
        "errors": [plain_error(problem) for problem in provider.problems],
    }


def _provider_lines(provider: ProviderReport, out: Output, whole: str) -> Iterator[str]:
    head = out.styled(printable(provider.name), "head")
    sent = f"{size(provider.bytes)} sent ({duration(provider.seconds)})" if provider.objects else ""
    if not provider.problems and not provider.waiting[0]:
        yield f"{head}: {whole}" + (f", {sent}" if sent else "")
        return
    waiting = f"{counted(provider.waiting[0], 'object')} of {size(provider.waiting[1])}"
    yield f"{head}: {waiting if provider.waiting[0] else 'nothing'} still to be sent" + (f", {sent}" if sent else "")
    for problem in provider.problems:
        told = tell(problem, name_provider=False)
        text = out.styled(told.text, "bad" if provider.required else "warn")
        yield from fields([("", "\n".join(filter(None, (text, told.remedy))))], indent=0)


def _provider_exit(provider: ProviderReport) -> Exit:
    """A provider that is not required may lag behind, but not hold damage."""
    codes = [tell(problem).exit for problem in provider.problems]
    return worst(code for code in codes if provider.required or code is Exit.INTEGRITY)


def _snapshot(one: Made) -> dict[str, Any]:
    return {"seq": one.seq, "id": one.id, "time": stamp(one.clock), "complete": one.complete}


def _changed_words(changed: dict[str, int]) -> str:
    kinds = (("databases", "database"), ("files", "file"))
    words = [counted(changed[kind], word) for kind, word in kinds if changed[kind]]
    if changed["removed"]:
        words.append(f"{counted(changed['removed'], 'path')} gone")
    if not words:
        return f"attributes of {counted(changed['attributes'], 'entry', 'entries')}"
    return ", ".join(words)


def _needs_person(remark: Remark) -> bool:
    return remark.reason in _SERIOUS if remark.error else _REMARKS[remark.reason][1]


def _remark_words(remark: Remark, out: Output) -> str:
    if remark.error is not None:
        return out.styled(tell(remark.error).text, "warn")
    words, serious = _REMARKS[remark.reason]
    text = f"{printable(remark.path or b'.')} {words}" + (f": {os.strerror(remark.errno)}" if remark.errno else "")
    return out.styled(text, "warn") if serious else text
