"""The questions about where a configuration that is to be stores the vault, to a person at a terminal."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from chatkeep.config.model import PROVIDER_OPTIONS, Shape
from chatkeep.config.problems import nearest
from chatkeep.daemon.cli import setup_options
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import WIDTH, Output, paragraph
from chatkeep.daemon.cli.setup_options import Chosen, Held, absolute
from chatkeep.daemon.cli.setup_storage import SecretFiles, Storing, given, read_secret_of

_MEDIA: Final = ("/run/media/{user}", "/media/{user}")  # where desktops mount disks that are plugged in
_INTRODUCTION: Final = (
    "A directory on another disk, on a network mount, or in a folder that another program synchronises. It is made if "
    "it is missing, and must be empty. Nothing gets there unencrypted, wherever it is."
)
_OWN_FILE: Final = "It goes into a file that only you may read, and the configuration names that file."
_ABOUT: Final = {
    Held.LINE: "The password: better one made for this program alone.",
    Held.KEY_PAIR: "The access key. Without one: what the environment, ~/.aws or the machine has.",
    Held.FILE: "The file that the service gave you is copied.",
    Held.PAIRS: "The secret options.",
}


@dataclass
class Answers:
    """What was answered so far: what is typed anew need not be typed again."""

    word: str = ""
    values: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


def ask(out: Output, storing: Storing, files: SecretFiles, before: Answers) -> Chosen:
    """With questions for what no option says. `before`: what was answered the last time, and from now on this. Raises
    click.Abort."""
    word = storing.word or _kind(out, before)
    if word != before.word:
        before.word, before.values, before.pairs, before.secrets = word, before.values, {}, {}
    values, secrets = given(storing, word)
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


def answer(question: str, *, default: str, show: bool = True) -> str:
    """What a person types. Raises click.Abort."""
    said: str = click.prompt(question, default=default, show_default=show, err=True)
    return said.strip()


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
    while said not in PROVIDER_OPTIONS and not said.startswith(("/", "~", ".")):
        if said:
            meant = nearest(said, others)
            advice = f"Did you mean {meant}?" if meant else "A directory begins with /, ~ or ./"
            out.note(f"  That is no kind of storage. {advice}")
        said = answer(question, default="", show=False)
    if said in others:
        return setup_options.require_kind(said)
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
                text = read_secret_of(said, held) if said else ""
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
