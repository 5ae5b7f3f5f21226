"""Where a configuration that is to be stores the vault: from options, or from a person who is asked; tried before
anything relies on it."""

from __future__ import annotations

import contextlib
import os
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import PROVIDER_OPTIONS, FolderOptions, Shape
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli import setup_options
from chatkeep.daemon.cli.errors import FileRefused
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import WIDTH, Output, paragraph
from chatkeep.daemon.cli.provider_findings import Check, Verdict
from chatkeep.daemon.cli.setup_options import Chosen, Held, Kept, Value, absolute
from chatkeep.daemon.cli.telling import tell
from chatkeep.providers.base import LoginNeeded

if TYPE_CHECKING:
    from chatkeep.config.model import Config, ProviderConfig
    from chatkeep.daemon.cli.provider_trial import Tried

_MEDIA: Final = ("/run/media/{user}", "/media/{user}")  # where desktops mount disks that are plugged in
_INTRODUCTION: Final = (
    "A directory on another disk, on a network mount, or in a folder that another program synchronises. It is made if "
    "it is missing, and must be empty. Nothing gets there unencrypted, wherever it is."
)
_CANNOT_READ: Final = (
    "Making the vault needs to read what was written: every way into it is tried. Give a key that may read and delete "
    "too; when everything is set up, put one that may only write in its place."
)


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


@dataclass
class Answers:
    """What was answered so far: what is typed anew need not be typed again."""

    word: str = ""
    values: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


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
    values, secrets = _given(storing, word)
    return setup_options.chosen(word, values, secrets, files.beside, files.free)


def ask(out: Output, storing: Storing, files: SecretFiles, before: Answers) -> Chosen:
    """With questions for what no option says. `before`: what was answered the last time, and from now on this. Raises
    click.Abort."""
    word = storing.word or _kind(out, before)
    if word != before.word:
        before.word, before.values, before.pairs, before.secrets = word, before.values, {}, {}
    values, secrets = _given(storing, word)
    for shape in setup_options.asked_for(word):
        if shape.name in values or shape.name in secrets:
            continue
        if word == "folder" and shape.type is Path:
            values[shape.name] = _directory(before)
            continue
        out.note("")
        if shape.key.secret:
            held = setup_options.kind(word).secrets.get(shape.name, Held.LINE)
            _explain(out, f"{_ABOUT[held]} {_OWN_FILE}")
            if text := _secret(out, shape, held, before.secrets.get(shape.name, "")):
                secrets[shape.name] = before.secrets[shape.name] = text
        elif _is_mapping(shape):
            _explain(out, shape.key.doc)
            values[shape.name] = before.pairs[shape.name] = _pairs(out, shape, before.pairs.get(shape.name, {}))
        else:
            _explain(out, shape.key.doc)
            values[shape.name] = setup_options.typed(shape, _value(out, shape, before))
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
    found = attempt(config, screen.asked, screen.row, quick=True)
    if not is_enough(config, found) or findings.verdict(found.rows) is not Verdict.BAD:
        screen.verdict(found)
    else:
        out.note("\nIt answers, and the place in it is made with the vault.")
    if findings.verdict(found.rows) is Verdict.PUT_ONLY:
        out.note("\n".join(paragraph(_CANNOT_READ)))
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


def is_enough(config: ProviderConfig, found: Tried) -> bool:
    """Whether a vault can be made there."""
    bad = [row for row in found.rows if row.level is findings.Level.FAIL]
    if findings.verdict(found.rows) is Verdict.PUT_ONLY:
        return False
    return all(row.check is Check.PLACE and setup_options.kind(config.type).made for row in bad)


def require_enough(config: ProviderConfig, found: Tried) -> None:
    """Returns when a vault can be made there. Raises what the storage said, or click.UsageError."""
    if is_enough(config, found):
        return
    for row in found.rows:
        if row.error is not None:
            raise row.error
    raise click.UsageError(_CANNOT_READ)


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


def text_of(path: Path, option: str) -> str:
    """A path as the configuration can have it. Raises click.BadParameter."""
    try:
        str(path).encode()
    except UnicodeEncodeError as exc:
        raise click.BadParameter(
            f"{printable(str(path))}: a path that is no UTF-8 cannot stand in the configuration.", param_hint=option
        ) from exc
    return str(path)


def answer(question: str, *, default: str, show: bool = True) -> str:
    """What a person types. Raises click.Abort."""
    said: str = click.prompt(question, default=default, show_default=show, err=True)
    return said.strip()


def _given(storing: Storing, word: str) -> tuple[dict[str, Value], dict[str, str]]:
    """What the options say: keys, and secrets."""
    values = setup_options.settings(word, storing.settings)
    if storing.store is not None:
        values["path"] = Path(text_of(absolute(storing.store), "--store"))
    secrets = {}
    for one in storing.secret_files:
        name, equals, path = one.partition("=")
        shape = setup_options.secret_key(word, name if equals else "")
        held = setup_options.kind(word).secrets.get(shape.name, Held.LINE)
        secrets[shape.name] = _read(path if equals else one, held)
    return values, secrets


def _read(path: str, held: Held) -> str:
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


_OWN_FILE: Final = "It goes into a file that only you may read, and the configuration names that file."
_ABOUT: Final = {
    Held.LINE: "The password: better one made for this program alone.",
    Held.KEY_PAIR: "The access key. Without one: what the environment, ~/.aws or the machine has.",
    Held.FILE: "The file that the service gave you is copied.",
    Held.PAIRS: "The secret options.",
}
_FORMS: Final = {
    Held.LINE: "it must hold one line of text.",
    Held.KEY_PAIR: "it must hold the key and its secret, a line each, or be a file like ~/.aws/credentials.",
    Held.FILE: "it is empty, or no text.",
    Held.PAIRS: "it must hold lines such as name=value.",
}


def _kind(out: Output, before: Answers) -> str:
    """A type, or a directory, which is remembered as an answer."""
    others = [word for word in PROVIDER_OPTIONS if word != "folder"]
    if not before.word:
        out.note("\n".join(paragraph(_INTRODUCTION)))
    if others and not before.word:
        out.note("\nOr another kind of storage:\n")
        for word in others:
            out.note(f"  {out.remark(f'{word:<9}', 'head')} {setup_options.kind(word).title}")
        out.note("")
    question = "Directory, or kind of storage" if others else "Directory"
    default = (before.values.get("path") or before.word) if before.word else plugged_in()
    said = answer(question, default=default, show=bool(default))
    while not said:
        said = answer(question, default="", show=False)
    if said in others:
        return said
    before.values["path"] = said if said != "folder" else ""
    return "folder"


def _directory(before: Answers) -> Path:
    said = before.values.pop("path", "")
    while not said:
        said = answer("Directory", default=plugged_in(), show=bool(plugged_in()))
    return absolute(Path(said))


def _explain(out: Output, text: str) -> None:
    for line in paragraph(text, WIDTH - 2):
        out.note(out.remark(f"  {line}", "dim"))


def _value(out: Output, shape: Shape, before: Answers) -> str:
    default = before.values.get(shape.name) or (str(shape.default) if shape.default else "")
    none = "" if default or shape.required else " (Enter: none)"
    while True:
        said = answer(f"  {shape.name}{none}", default=default, show=bool(default))
        if said or not shape.required:
            before.values[shape.name] = said
            return said
        out.note("  It cannot do without.")


def _pairs(out: Output, shape: Shape, before: Mapping[str, str]) -> dict[str, str]:
    found = dict(before)
    for name, value in found.items():
        out.note(f"  {printable(name)}={printable(value)}")
    while True:
        said = answer(f"  {shape.name}: one as name=value, or Enter to go on", default="", show=False)
        name, equals, value = said.partition("=")
        if not said:
            return found
        if equals and name.strip():
            found[name.strip()] = value.strip()
        else:
            out.note("  It takes name=value.")


def _secret(out: Output, shape: Shape, held: Held, before: str) -> str:
    """What is to be in a secret file; empty for none. What is typed is not shown."""
    again = " (Enter: as before)" if before else "" if shape.required else " (Enter: none)"
    while True:
        if held is Held.FILE:
            said = answer(f"  The file that you have{again}", default="", show=False)
            try:
                text = _read(said, held) if said else ""
            except click.BadParameter as exc:
                out.note(f"  {exc.message}")
                continue
        elif held is Held.KEY_PAIR:
            access = answer(f"  Access key id{again}", default="", show=False)
            text = setup_options.key_pair(access, _unseen("Secret access key")) if access else ""
        elif held is Held.PAIRS:
            text = _lines(f"One as name=value{again}")
        else:
            said = _unseen(f"The password itself{again}", empty=bool(before) or not shape.required)
            text = f"{said}\n" if said else ""
        text = text or before
        if text or not shape.required:
            return text


def _lines(question: str) -> str:
    found = ""
    while said := _unseen(question, empty=True):
        found += f"{said}\n"
    return found


def _unseen(question: str, *, empty: bool = False) -> str:
    from chatkeep.daemon.cli import typed

    while True:
        said = typed.line(f"  {question}, not shown: ", hidden=True).decode("utf-8", "replace").strip()
        if said or empty:
            return said


def _is_mapping(shape: Shape) -> bool:
    origin = typing.get_origin(shape.type)
    return isinstance(origin, type) and issubclass(origin, Mapping)


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
