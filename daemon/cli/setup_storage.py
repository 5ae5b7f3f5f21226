"""Where a configuration that is to be stores the vault: from options, or from a person who is asked; tried before
anything relies on it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import FolderOptions
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli import setup_options
from chatkeep.daemon.cli.errors import FileRefused
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output, paragraph
from chatkeep.daemon.cli.provider_findings import Check, Level, Row, Verdict
from chatkeep.daemon.cli.setup_options import Chosen, Held, Kept, Value, absolute
from chatkeep.daemon.cli.telling import PROPOSED, tell
from chatkeep.providers.base import LoginNeeded

if TYPE_CHECKING:
    from chatkeep.config.model import Config, ProviderConfig
    from chatkeep.daemon.cli.provider_trial import Tried


@dataclass(frozen=True, slots=True)
class Storing:
    """What options say of it."""

    store: Path | None = None
    type: str | None = None
    settings: tuple[str, ...] = ()
    secret_files: tuple[str, ...] = ()

    @property
    def word(self) -> str | None:
        """The type that is meant; None where nothing says it. Raises click.UsageError."""
        if self.store is not None and self.type not in {None, "folder"}:
            raise click.UsageError(f"--store names a directory, and goes with --type {self.type} no more.")
        if self.store is not None:
            return "folder"
        if self.type is not None:
            return setup_options.require_kind(self.type)
        if self.settings or self.secret_files:
            raise click.UsageError("Say of which kind of storage that is: --type.")
        return None


class SecretFiles:
    """The files of secrets for a configuration that may not come to be: then they are taken away again."""

    def __init__(self, beside: Path) -> None:
        self.beside = beside
        self._made: list[Path] = []

    def free(self, path: Path, text: str) -> Path:
        """That path, or one like it: a file that holds something else is never replaced."""
        number = 1
        while True:
            one = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            if not os.path.lexists(one) or _holds(one, text):
                return one
            number += 1

    def write(self, secrets: Sequence[Kept]) -> None:
        """Writes what is not there yet, for this user's eyes only. Raises FileRefused."""
        from chatkeep.providers.durable import create_durably, make_directories

        for kept in secrets:
            if kept.path in self._made or _holds(kept.path, kept.text):
                continue
            try:
                if not kept.path.parent.exists():
                    self._made.append(kept.path.parent)
                make_directories(kept.path.parent)
                create_durably(kept.path, kept.text.encode(), mode=0o600)
            except OSError as exc:
                raise FileRefused(path=str(kept.path), errno=exc.errno) from exc
            self._made.append(kept.path)

    def keep(self) -> None:
        """The configuration names them from now on."""
        self._made.clear()

    def take_back(self) -> None:
        """Takes away what was written and is not kept."""
        while self._made:
            path = self._made.pop()
            with contextlib.suppress(OSError):  # a directory that something else lies in stays
                path.rmdir() if path.is_dir() else path.unlink()


def from_options(storing: Storing, files: SecretFiles) -> Chosen:
    """Without a question. Raises click.UsageError, and BadParameter for what cannot be a value."""
    word = storing.word
    if word is None:
        raise click.UsageError("Say where to store it: --store FOLDER, or --type and --set KEY=VALUE.")
    values, secrets = given(storing, word)
    return setup_options.chosen(word, values, secrets, files.beside, files.free)


def tried(out: Output, config: ProviderConfig, *, shown: bool) -> Tried:
    """What the storage does when it is asked, without measuring it. `shown`: a person watches."""
    from chatkeep.daemon.cli.provider_screen import Screen
    from chatkeep.daemon.cli.provider_trial import attempt

    if not shown:
        return attempt(config, lambda _check: None, lambda _row: None, quick=True)
    screen = Screen(out, aside=True)
    out.note("")
    screen.head(config)
    found = attempt(config, screen.asked, lambda row: screen.row(_softened(config, row)), quick=True)
    if not is_enough(config, found) or findings.verdict(found.rows) is not Verdict.BAD:
        screen.verdict(found)
    else:
        out.note("\nIt answers. The rest is seen when the place in it is made, before anything else.")
    if findings.verdict(found.rows) is Verdict.PUT_ONLY:
        out.note("\n".join(paragraph(findings.CANNOT_READ)))
    for line in screen.rest():
        out.note(line)
    return found


def watched(out: Output, config: ProviderConfig) -> Tried:
    """The same with a person who can log in where that is what is missing."""
    from chatkeep.daemon.cli import provider_login

    found = tried(out, config, shown=True)
    if not (provider_login.is_needed(config) and any(isinstance(row.error, LoginNeeded) for row in found.rows)):
        return found
    out.note("")
    try:
        provider_login.log_in(out, config)
    except ChatkeepError as exc:
        told = tell(exc, name_provider=False)
        out.note(out.remark(f"  {told.text}", "warn"))
        return found
    return tried(out, config, shown=True)


def _softened(config: ProviderConfig, row: Row) -> Row:
    """A place that is missing is no fault where it is made with the vault."""
    if row.check is not Check.PLACE or not setup_options.kind(config.type).made:
        return row if row.error is None else dataclasses.replace(row, remedy=tell(_proposed(row.error)).remedy)
    return dataclasses.replace(
        row, level=Level.PLAIN, text="It is not there yet, and is made with the vault.", remedy=""
    )


def _proposed(error: ChatkeepError) -> ChatkeepError:
    """The same error, told as one of storage that no configuration names yet."""
    error.params[PROPOSED] = True
    return error


def is_enough(config: ProviderConfig, found: Tried) -> bool:
    """Whether a vault can be made there."""
    bad = [row for row in found.rows if row.level is Level.FAIL]
    if findings.verdict(found.rows) is Verdict.PUT_ONLY:
        return False
    return all(row.check is Check.PLACE and setup_options.kind(config.type).made for row in bad)


def require_enough(config: ProviderConfig, found: Tried) -> None:
    """Returns when a vault can be made there. Raises what the storage said, or click.UsageError."""
    if is_enough(config, found):
        return
    for row in found.rows:
        if row.error is not None:
            raise _proposed(row.error)
    raise click.UsageError(findings.CANNOT_READ)


def lacking(config: Config, storing: Storing) -> list[str]:
    """The options that a configuration does not have."""
    missing = []
    stores = {
        os.path.realpath(provider.options.path)
        for provider in config.providers
        if isinstance(provider.options, FolderOptions)
    }
    if storing.store is not None and os.path.realpath(storing.store.expanduser()) not in stores:
        missing.append(f"--store {storing.store}")
    word = storing.word
    of_type = [provider.options for provider in config.providers if provider.type == word]
    if storing.type is not None and not of_type:
        missing.append(f"--type {storing.type}")
    elif word is not None:
        for text in storing.settings:
            ((name, value),) = setup_options.settings(word, [text]).items()
            if not any(_has(getattr(options, name, None), value) for options in of_type):
                missing.append(f"--set {text}")
    return missing


def text_of(path: Path, option: str) -> str:
    """A path as the configuration can have it. Raises click.BadParameter."""
    try:
        str(path).encode()
    except UnicodeEncodeError as exc:
        raise click.BadParameter(
            f"{printable(str(path))}: a path that is no UTF-8 cannot stand in the configuration.", param_hint=option
        ) from exc
    return str(path)


def given(storing: Storing, word: str) -> tuple[dict[str, Value], dict[str, str]]:
    """What the options say: keys, and secrets."""
    values = setup_options.settings(word, storing.settings)
    if storing.store is not None:
        values["path"] = Path(text_of(absolute(storing.store), "--store"))
    secrets = {}
    for one in storing.secret_files:
        name, equals, path = one.partition("=")
        shape = setup_options.secret_key(word, name if equals else "")
        held = setup_options.kind(word).secrets.get(shape.name, Held.LINE)
        secrets[shape.name] = read_secret_of(path if equals else one, held)
    return values, secrets


def read_secret_of(path: str, held: Held) -> str:
    """A secret from a file, - or /dev/fd/N. Raises click.BadParameter."""
    from chatkeep.providers.durable import read_bounded

    shown = printable(path)
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(setup_options.MOST_SECRET + 1)
        elif path.startswith("/dev/fd/"):
            with open(path, "rb") as stream:
                raw = stream.read(setup_options.MOST_SECRET + 1)
        else:
            raw = read_bounded(absolute(Path(path)), setup_options.MOST_SECRET)
    except OSError as exc:
        raise click.BadParameter(f"{shown}: {exc.strerror or 'too large'}", param_hint="--secret-file") from exc
    text = setup_options.secret_text(held, raw.decode("utf-8", "replace"))
    if text is None or len(raw) > setup_options.MOST_SECRET or "\ufffd" in text:
        raise click.BadParameter(f"{shown}: {_FORMS[held]}", param_hint="--secret-file")
    return text


_FORMS: Final = {
    Held.LINE: "it must hold one line of text.",
    Held.KEY_PAIR: "it must hold the key and its secret, a line each, or be a file like ~/.aws/credentials.",
    Held.FILE: "it is empty, or no text.",
    Held.PAIRS: "it must hold lines such as name=value.",
}


def _has(there: object, value: Value) -> bool:
    if isinstance(value, Path) and isinstance(there, Path):
        return os.path.realpath(there) == os.path.realpath(value)
    if isinstance(value, Mapping):
        return isinstance(there, Mapping) and value.items() <= there.items()
    return there == value or str(there) == str(value)


def _holds(path: Path, text: str) -> bool:
    """Whether a file of this user alone is there and holds that."""
    from chatkeep.providers.base import SecretFileRefused
    from chatkeep.providers.secret_file import read_secret

    try:
        return read_secret(path) == text.rstrip("\r\n")
    except SecretFileRefused:
        return False


@contextlib.contextmanager
def secret_files(beside: Path) -> Iterator[SecretFiles]:
    """Files that are taken back in the end, but for those that are kept."""
    files = SecretFiles(beside)
    try:
        yield files
    finally:
        files.take_back()
