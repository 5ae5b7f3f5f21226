"""A configuration that is to be: which directories, stored where. From options, or from a person who is asked."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chatkeep.config import proposal
from chatkeep.config.applications import free_name, source_name
from chatkeep.config.loader import parse
from chatkeep.config.model import NAME, FolderOptions
from chatkeep.config.problems import ConfigInvalid, Problem, Reason
from chatkeep.config.proposal import ProposedSource
from chatkeep.daemon.cli import ask, setup_questions, setup_search, setup_storage
from chatkeep.daemon.cli.config_commands import folders_to_be_made
from chatkeep.daemon.cli.errors import NothingToKeep
from chatkeep.daemon.cli.measures import counted, printable, size
from chatkeep.daemon.cli.output import Output, paragraph
from chatkeep.daemon.cli.setup_options import Chosen, Kept, absolute
from chatkeep.daemon.cli.setup_questions import Answers, answer
from chatkeep.daemon.cli.setup_search import Amount, Finding
from chatkeep.daemon.cli.setup_storage import SecretFiles, Storing, text_of
from chatkeep.daemon.cli.words_of_cases import PROBLEMS

if TYPE_CHECKING:
    from chatkeep.config.model import Config

_STORE: Final = "Where is the backup to be stored?"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory that could be kept, and how much it holds."""

    finding: Finding
    amount: Amount


@dataclass(frozen=True, slots=True)
class Draft:
    """A configuration as it would be written, and as it loads, with the secrets that it needs."""

    kept: tuple[Finding, ...]
    text: str
    config: Config
    secrets: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What options say: directories, whether all that was found is kept, and where it is stored. `tries`: storage is
    tried; `files`: where its secrets go."""

    sources: Sequence[Path]
    every: bool
    storing: Storing
    files: SecretFiles
    tries: bool


def candidates(findings: Sequence[Finding]) -> list[Candidate]:
    """With the size of each. Takes as long as counting does: a few seconds each at most."""
    return [Candidate(one, setup_search.amount(one.path, one.exclude)) for one in findings]


def from_options(out: Output, file: Path, found: Sequence[Finding], asked: Asked) -> Draft:
    """Without a question.

    Raises click.UsageError for what cannot stand together or is not there, NothingToKeep, and what the storage says
    when it is tried.
    """
    kept = _joined(found if asked.every else (), [_named(path) for path in asked.sources])
    if not kept:
        raise NothingToKeep
    draft = _judged(file, kept, setup_storage.from_options(asked.storing, asked.files))
    (config,) = draft.config.providers
    if config.type != "folder" and asked.tries:
        asked.files.write(draft.secrets)
        setup_storage.require_enough(config, setup_storage.tried(out, config, shown=False))
    return draft


def _judged(file: Path, kept: Sequence[Finding], chosen: Chosen) -> Draft:
    """A draft without a fault. What is wrong is told by itself: the file that would have such a line is not there."""
    try:
        draft = drafted(file, kept, chosen)
        folders_to_be_made(draft.config)
    except ConfigInvalid as exc:
        raise click.UsageError("\n".join(_refusal(problem) for problem in exc.problems)) from exc
    return draft


def asked_for(out: Output, file: Path, found: Sequence[Candidate], asked: Asked) -> Draft:
    """With questions for whatever no option answers.

    Raises click.Abort when the person gave up, and as `from_options`.
    """
    if asked.every or asked.sources:
        kept = _joined([one.finding for one in found] if asked.every else [], [_named(path) for path in asked.sources])
    else:
        kept = _add_more(out, _choose(out, found))
    if not kept:
        raise NothingToKeep
    _show_notes(out, kept)
    if asked.storing.store is not None:
        return _judged(file, kept, setup_storage.from_options(asked.storing, asked.files))
    return _ask_store(out, file, kept, asked)


def drafted(file: Path, kept: Sequence[Finding], chosen: Chosen) -> Draft:
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
    text = proposal.text(sources, chosen.provider, Path.home(), None)
    return Draft(tuple(kept), text, parse(text, file), chosen.secrets)


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
        said = answer("Which are to be kept? Numbers such as 1 3, all, or none", default="all")
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
        said = answer(f"Keep {another}? Its path, or Enter to go on", default="", show=False)
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
            lines = paragraph(head + one.note)
            out.note("\n" + out.remark(lines[0][: len(head)], "head") + "\n".join([lines[0][len(head) :], *lines[1:]]))


def _ask_store(out: Output, file: Path, kept: Sequence[Finding], asked: Asked) -> Draft:
    out.note("\n" + out.remark(_STORE, "head"))
    before = Answers()
    while True:
        chosen = setup_questions.ask(out, asked.storing, asked.files, before)
        try:
            draft = drafted(file, kept, chosen)
            folders_to_be_made(draft.config)
        except ConfigInvalid as exc:
            for problem in exc.problems:
                out.note(f"  {_refusal(problem)}")
            asked = dataclasses.replace(asked, storing=Storing())  # what options said is no help any more
            continue
        if _stands_alone(out, draft.config) and _answers(out, draft, asked):
            return draft
        asked = dataclasses.replace(asked, storing=Storing())


def _answers(out: Output, draft: Draft, asked: Asked) -> bool:
    """Whether the storage does what a vault needs; where it does not, the person may say something else."""
    (config,) = draft.config.providers
    if config.type == "folder" or not asked.tries:
        return True
    asked.files.write(draft.secrets)
    if setup_storage.is_enough(config, setup_storage.watched(out, config)):
        return True
    asked.files.take_back()
    if ask.agreed("Answer anew?", default=True):
        return False
    raise click.Abort


def same_disk(config: Config) -> bool:
    """Whether some provider's folder lies on the file system of a source: a broken disk would take both."""
    stores = {
        _device(provider.options.path) for provider in config.providers if isinstance(provider.options, FolderOptions)
    }
    return bool(stores & {_device(source.path) for source in config.sources} - {None})


_TYPED_IN: Final = (
    "a secret is in it, and it would stand in the configuration, which is no place for one. It is asked for by itself, "
    "or given with --secret-file. A shell may remember what was typed: better make a new one"
)


def _refusal(problem: Problem) -> str:
    if problem.reason is Reason.PATH_MISSING and problem.key.startswith("providers["):
        return f"There is no directory {printable(str(Path(problem.found).parent))} to make it in."
    if problem.reason is Reason.SECRET_HERE:
        return f"{problem.key.rpartition('.')[2]}: {_TYPED_IN}"
    values = {name: printable(str(value)) for name, value in problem.plain().items()}
    own = problem.key.rpartition(".")[2] if problem.key.startswith("providers[") else problem.found
    return f"{printable(own or problem.key)}: {PROBLEMS[problem.reason].format_map(values)}"


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
    path = absolute(path)
    shown = printable(text_of(path, "--source"))
    if not path.is_dir():
        raise click.BadParameter(f"{shown}: {'not a directory' if path.exists() else 'there is no such directory'}.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise click.BadParameter(f"{shown}: this user may not read it.")
    return setup_search.look_at(path)


def _joined(first: Sequence[Finding], more: Sequence[Finding]) -> list[Finding]:
    """Both, each directory once: what was found knows better where it came from."""
    kept: dict[str, Finding] = {}
    for one in (*first, *more):
        kept.setdefault(os.path.realpath(one.path), one)
    return list(kept.values())
