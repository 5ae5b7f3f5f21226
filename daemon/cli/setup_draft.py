"""A configuration that is to be: which directories, stored where. From options, or from a person who is asked."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chatkeep.config import proposal
from chatkeep.config.applications import free_name, source_name
from chatkeep.config.loader import parse
from chatkeep.config.model import NAME, PROVIDER_OPTIONS, FolderOptions, shapes
from chatkeep.config.problems import ConfigInvalid, Problem, Reason
from chatkeep.config.proposal import ProposedProvider, ProposedSource
from chatkeep.daemon.cli import ask, setup_search
from chatkeep.daemon.cli.config_commands import folders_to_be_made
from chatkeep.daemon.cli.errors import NothingToKeep
from chatkeep.daemon.cli.measures import counted, printable, size
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.setup_search import Amount, Finding
from chatkeep.daemon.cli.words_of_cases import PROBLEMS

if TYPE_CHECKING:
    from chatkeep.config.model import Config

WIDTH: Final = 78
_MEDIA: Final = ("/run/media/{user}", "/media/{user}")  # where desktops mount disks that are plugged in
_STORE: Final = "Where is the backup to be stored?"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory that could be kept, and how much it holds."""

    finding: Finding
    amount: Amount


@dataclass(frozen=True, slots=True)
class Draft:
    """A configuration as it would be written, and as it loads."""

    kept: tuple[Finding, ...]
    text: str
    config: Config


def candidates(findings: Sequence[Finding]) -> list[Candidate]:
    """With the size of each. Takes as long as counting does: a few seconds each at most."""
    return [Candidate(one, setup_search.amount(one.path, one.exclude)) for one in findings]


def from_options(file: Path, found: Sequence[Finding], sources: Sequence[Path], store: Path, *, every: bool) -> Draft:
    """Without a question. `every`: all that was found is kept, besides the directories named.

    Raises click.BadParameter, NothingToKeep, and ConfigInvalid for what cannot stand together or is not there.
    """
    kept = _joined(found if every else (), [_named(path) for path in sources])
    if not kept:
        raise NothingToKeep
    draft = drafted(file, kept, ProposedProvider("folder", "folder", {"path": Path(_text(_absolute(store), "--store"))}))
    folders_to_be_made(draft.config)
    return draft


@dataclass(frozen=True, slots=True)
class Given:
    """What options say: directories, whether all that was found is kept, and where it is stored."""

    sources: Sequence[Path]
    every: bool
    store: Path | None


def asked_for(out: Output, file: Path, found: Sequence[Candidate], given: Given) -> Draft:
    """With questions for whatever no option answers.

    Raises click.Abort when the person gave up, and as `from_options`.
    """
    if given.every or given.sources:
        kept = _joined([one.finding for one in found] if given.every else [], [_named(path) for path in given.sources])
    else:
        kept = _add_more(out, _choose(out, found))
    if not kept:
        raise NothingToKeep
    _show_notes(out, kept)
    if given.store is not None:
        return from_options(file, kept, (), given.store, every=True)
    return _ask_store(out, file, kept)


def drafted(file: Path, kept: Sequence[Finding], provider: ProposedProvider) -> Draft:
    """The configuration that keeps these directories there. Raises ConfigInvalid."""
    sources: list[ProposedSource] = []
    for one in kept:
        taken = [source.name for source in sources]
        if one.application is not None:
            name, note = source_name(one.application, one.place, taken), one.application.note
        else:
            own = one.path.name if re.search(NAME, one.path.name) else "source"
            name, note = free_name([own], taken), ""
        sources.append(ProposedSource(name, one.path, one.exclude, note))
    text = proposal.text(sources, provider, Path.home(), None)
    return Draft(tuple(kept), text, parse(text, file))


def described(one: Candidate) -> list[str]:
    """A directory in two lines: what it is, how much, where."""
    finding, amount = one.finding, one.amount
    title = finding.application.title if finding.application is not None else "a directory"
    how = f" ({finding.place.how})" if finding.place is not None and finding.place.how else ""
    least = "" if amount.whole else "at least "
    return [
        f"{title}{how}: {least}{size(amount.bytes)} in {counted(amount.files, 'file')}",
        f"  {printable(proposal.short(finding.path, Path.home()))}",
    ]


def _choose(out: Output, found: Sequence[Candidate]) -> list[Finding]:
    if not found:
        out.note("No chat application was found in the usual places.\n")
        return []
    out.note("Found on this machine:\n")
    for number, one in enumerate(found, start=1):
        first, *more = described(one)
        out.note(f"  {number}  {out.remark(first, 'head')}")
        for line in more:
            out.note(f"   {line}")
    out.note("")
    while True:
        said = _answer("Which are to be kept? Numbers such as 1 3, all, or none", default="all")
        numbers = understood(said, len(found))
        if numbers is not None:
            return [found[number - 1].finding for number in numbers]
        out.note(f"  Numbers from 1 to {len(found)}, all, or none.")


def understood(said: str, count: int) -> list[int] | None:
    """Which numbers from 1 to `count` are meant, in order and each once; None when that is no choice."""
    said = said.strip().lower()
    if said in {"all", "none"}:
        return list(range(1, count + 1)) if said == "all" else []
    words = re.split(r"[\s,]+", said)
    if not all(re.fullmatch(r"[0-9]{1,4}", word, re.ASCII) for word in words):
        return None
    numbers = sorted({int(word) for word in words})
    return numbers if numbers[0] >= 1 and numbers[-1] <= count else None


def _add_more(out: Output, kept: list[Finding]) -> list[Finding]:
    while True:
        another = "another directory" if kept else "a directory"
        said = _answer(f"Keep {another}? Its path, or Enter to go on", default="", show=False)
        if not said:
            return kept
        try:
            more = _named(Path(said))
        except click.BadParameter as exc:
            out.note(f"  {exc.message}")
            continue
        longer = _joined(kept, [more])
        if len(longer) == len(kept):
            out.note("  That one is kept already.")
        elif more.application is not None:
            out.note(f"  That is {more.application.title}.")
        kept = longer


def _show_notes(out: Output, kept: Sequence[Finding]) -> None:
    for one in {one.application.name: one.application for one in kept if one.application is not None}.values():
        if one.note:
            head = f"About {one.title}. "
            lines = textwrap.wrap(head + one.note, WIDTH)
            out.note("\n" + out.remark(lines[0][: len(head)], "head") + "\n".join([lines[0][len(head) :], *lines[1:]]))


def _ask_store(out: Output, file: Path, kept: Sequence[Finding]) -> Draft:
    out.note("\n" + out.remark(_STORE, "head"))
    kind = _kind(out)
    out.note(
        "\n".join(
            textwrap.wrap(
                "A directory on another disk, on a network mount, or in a folder that another program synchronises. "
                "Nothing gets there unencrypted. It is made if it is missing, and must be empty.",
                WIDTH,
            )
        )
        if kind == "folder"
        else ""
    )
    while True:
        provider = ProposedProvider(kind, kind, _options(kind))
        try:
            draft = drafted(file, kept, provider)
            folders_to_be_made(draft.config)
        except ConfigInvalid as exc:
            for problem in exc.problems:
                out.note(f"  {_refusal(problem)}")
            continue
        if _stands_alone(out, draft.config):
            return draft


def _kind(out: Output) -> str:
    """The type of provider: asked for when there are several."""
    kinds = sorted(PROVIDER_OPTIONS)
    if len(kinds) == 1:
        return kinds[0]
    while True:
        said = _answer(f"Kind of storage: {', '.join(kinds)}", default="folder")
        if said in kinds:
            return said
        out.note(f"  One of: {', '.join(kinds)}.")


def _options(kind: str) -> dict[str, str | Path]:
    """What this type of provider cannot do without."""
    found: dict[str, str | Path] = {}
    for shape in shapes(PROVIDER_OPTIONS[kind]):
        if shape.required and shape.type is Path:
            default = plugged_in() if kind == "folder" else ""
            said = _answer("Directory", default=default, show=bool(default))
            while not said:
                said = _answer("Directory", default="", show=False)
            found[shape.name] = _absolute(Path(said))
        elif shape.required:
            found[shape.name] = _answer(shape.name, default=shape.key.example)
    return found


def plugged_in() -> str:
    """A directory on a disk that is plugged in and mounted; empty when there is none."""
    user = os.environ.get("USER", "")
    for top in (one.format(user=user) for one in _MEDIA if user):
        try:
            disks = sorted(entry.path for entry in os.scandir(top) if os.path.ismount(entry.path))
        except OSError:
            continue
        for disk in disks:
            if os.access(disk, os.W_OK | os.X_OK):
                return os.path.join(disk, "chatkeep")
    return ""


def same_disk(config: Config) -> bool:
    """Whether some provider's folder lies on the file system of a source: a broken disk would take both."""
    stores = {
        _device(provider.options.path) for provider in config.providers if isinstance(provider.options, FolderOptions)
    }
    return bool(stores & {_device(source.path) for source in config.sources} - {None})


def _refusal(problem: Problem) -> str:
    if problem.reason is Reason.PATH_MISSING and problem.key.startswith("providers["):
        return f"There is no directory {printable(str(Path(problem.found).parent))} to make it in."
    values = {name: printable(str(value)) for name, value in problem.plain().items()}
    return f"{printable(problem.found)}: {PROBLEMS[problem.reason].format_map(values)}"


def _stands_alone(out: Output, config: Config) -> bool:
    """Whether the place does not break with what is kept, or the person takes it all the same."""
    if not same_disk(config):
        return True
    out.note(out.remark("  That is on the same disk as what is kept: a disk that breaks takes both.", "warn"))
    return ask.agreed("  Use it all the same?", default=True)


def _device(path: Path) -> int | None:
    for one in (path, *path.parents):
        try:
            return os.stat(one).st_dev
        except OSError:
            continue
    return None


def _named(path: Path) -> Finding:
    """A directory that a person named. Raises click.BadParameter."""
    path = _absolute(path)
    shown = printable(_text(path, "--source"))
    if not path.is_dir():
        raise click.BadParameter(f"{shown}: {'not a directory' if path.exists() else 'there is no such directory'}.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise click.BadParameter(f"{shown}: this user may not read it.")
    return setup_search.look_at(path)


def _text(path: Path, option: str) -> str:
    try:
        str(path).encode()
    except UnicodeEncodeError as exc:
        raise click.BadParameter(
            f"{printable(str(path))}: a path that is no UTF-8 cannot stand in the configuration.", param_hint=option
        ) from exc
    return str(path)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _joined(first: Sequence[Finding], more: Sequence[Finding]) -> list[Finding]:
    """Both, each directory once: what was found knows better where it came from."""
    kept: dict[str, Finding] = {}
    for one in (*first, *more):
        kept.setdefault(os.path.realpath(one.path), one)
    return list(kept.values())


def _answer(question: str, *, default: str, show: bool = True) -> str:
    said: str = click.prompt(question, default=default, show_default=show, err=True)
    return said.strip()
