"""The storage of a configuration that is to be: what each type is asked for, and what becomes of the answers. Pure.

A secret goes into a file of its own beside the configuration, and the configuration names the file.
"""

from __future__ import annotations

import enum
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from chatkeep.config.key import CREDENTIAL
from chatkeep.config.model import PROVIDER_OPTIONS, Shape, shapes
from chatkeep.config.problems import nearest
from chatkeep.config.proposal import ProposedProvider
from chatkeep.config.storages import TypeUnusable
from chatkeep.daemon.cli.measures import printable

MOST_SECRET: Final = 64 * 1024  # bytes; as much as is read back
Value = str | bool | Path | Mapping[str, str]


class Held(enum.Enum):
    """What a secret file holds, and so how a person is asked for it."""

    LINE = enum.auto()  # a password
    KEY_PAIR = enum.auto()  # an access key of S3 and its secret
    FILE = enum.auto()  # a file that some console gave, to be copied
    PAIRS = enum.auto()  # name=value, line by line


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a type besides its keys.

    Attributes:
        title: its line in the list.
        besides: keys that can be left out, and are asked for all the same.
        secrets: what each key names that holds a secret.
        made: whether the place is made with the vault, so that it may be missing before.
    """

    title: str
    besides: tuple[str, ...] = ()
    secrets: Mapping[str, Held] = field(default_factory=dict)
    made: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "folder": Kind("a directory", made=True),
    "s3": Kind(
        "a bucket: Amazon S3, MinIO, R2, B2, Wasabi, Ceph",
        ("endpoint", "region", "prefix", "credentials_file"),
        {"credentials_file": Held.KEY_PAIR},
    ),
    "webdav": Kind(
        "Nextcloud, and other servers of WebDAV", ("user", "password_file"), {"password_file": Held.LINE}, made=True
    ),
    "gdrive": Kind("Google Drive", ("folder",), {"client_file": Held.FILE, "token_file": Held.FILE}, made=True),
    "icloud": Kind("iCloud, by a CloudKit container of your own", ("environment",), {"key_file": Held.FILE}),
    "opendal": Kind(
        "what OpenDAL carries: Dropbox, OneDrive, Azure and more",
        ("options", "options_file"),
        {"options_file": Held.PAIRS},
    ),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A secret, and the file it is to be in."""

    path: Path
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A provider that is proposed, with the secrets that it needs."""

    provider: ProposedProvider
    secrets: tuple[Kept, ...] = ()


def kind(word: str) -> Kind:
    """What is known of a type; of one that a package brought, the first line of its description."""
    if word in KINDS:
        return KINDS[word]
    try:
        return Kind((PROVIDER_OPTIONS[word].__doc__ or word).strip().splitlines()[0])
    except TypeUnusable as exc:
        return Kind(f"cannot be used: {exc.place} ({exc.cause})")


def keys(word: str) -> dict[str, Shape]:
    """The keys of a type, by their names."""
    return {shape.name: shape for shape in shapes(PROVIDER_OPTIONS[word])}


def asked_for(word: str) -> list[Shape]:
    """The keys that a person is asked for, in the order of the model: those it cannot do without, and a few besides."""
    return [shape for shape in keys(word).values() if shape.required or shape.name in kind(word).besides]


def require_kind(word: str) -> str:
    """A type that there is. Raises click.BadParameter."""
    if word in PROVIDER_OPTIONS:
        try:
            keys(word)
        except TypeUnusable as exc:
            text = f"'{printable(word)}' comes from a package that cannot be used: {exc.place} ({exc.cause})."
            raise click.BadParameter(text, param_hint="--type") from exc
        return word
    known = list(PROVIDER_OPTIONS)
    meant = nearest(word, known)
    advice = f"Did you mean '{meant}'?" if meant else f"There are: {', '.join(known)}."
    raise click.BadParameter(f"There is no kind of storage '{printable(word)}'. {advice}", param_hint="--type")


def settings(word: str, given: Sequence[str]) -> dict[str, Value]:
    """`KEY=VALUE`, and `KEY.NAME=VALUE` for a key that holds several, as values of the keys of a type.

    What a value may be, the loader judges. Raises click.BadParameter.
    """
    known = keys(word)
    found: dict[str, Value] = {}
    for one in given:
        name, equals, text = one.partition("=")
        top, _, inner = name.partition(".")
        shape = known.get(top)
        if not equals or shape is None:
            meant = nearest(top, known)
            advice = f"Did you mean '{meant}'?" if equals and meant else f"There are: {', '.join(known)}."
            what = f"has no key '{printable(top)}'" if equals else "takes KEY=VALUE"
            raise click.BadParameter(f"{word} {what}. {advice}", param_hint="--set")
        if typing.get_origin(shape.type) is not None and issubclass(typing.get_origin(shape.type), Mapping):
            if not inner:
                raise click.BadParameter(f"{top} holds several: {top}.NAME=VALUE", param_hint="--set")
            before = found.get(top, {})
            assert isinstance(before, Mapping)
            found[top] = {**before, inner: text}
        else:
            found[top] = typed(shape, text)
    return found


def typed(shape: Shape, text: str) -> Value:
    """What was typed, as the value of a key: a path is made absolute, yes and no become true and false."""
    if shape.type is Path:
        return text if shape.key.secret and text.startswith(CREDENTIAL) else absolute(Path(text))
    if shape.type is bool and text.lower() in {"true", "false", "yes", "no"}:
        return text.lower() in {"true", "yes"}
    return text


def secret_key(word: str, name: str) -> Shape:
    """The key of a type that names a secret file: the one of that name, or the one that is asked for. Raises
    click.BadParameter."""
    known = {shape.name: shape for shape in keys(word).values() if shape.key.secret}
    if not name:
        asked = [shape for shape in asked_for(word) if shape.name in known]
        if len(asked) == 1:
            return asked[0]
    elif name in known:
        return known[name]
    if not known:
        raise click.BadParameter(f"{word} has no key that names a secret file.", param_hint="--secret-file")
    raise click.BadParameter(f"Say which: {' or '.join(f'{one}=FILE' for one in known)}", param_hint="--secret-file")


def chosen(
    word: str,
    values: Mapping[str, Value],
    secrets: Mapping[str, str],
    beside: Path,
    free: Callable[[Path, str], Path],
) -> Chosen:
    """A provider of that type with those keys, its secrets in files in the directory `beside`.

    `free`: gives for a path and what is to be in it one that is not taken by something else.
    """
    kept = {name: Kept(free(beside / file_name(word, name), text), text) for name, text in secrets.items()}
    paths = {name: one.path for name, one in kept.items()}
    everything: dict[str, Value] = {**values, **paths}
    ordered = {name: everything[name] for name in keys(word) if everything.get(name, "") not in ("", {})}
    return Chosen(ProposedProvider(word, word, ordered), tuple(kept.values()))


def file_name(word: str, key: str) -> str:
    """What the file of a secret is called: `s3-credentials`, `gdrive-client.json`."""
    return f"{word}-{key.removesuffix('_file')}{Path(keys(word)[key].key.example).suffix}"


def secret_text(held: Held, text: str) -> str | None:
    """What belongs into a secret file, from what was given for it; None where that is not in its form."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    match held:
        case Held.LINE:
            return text.rstrip("\r\n") + "\n" if len(lines) == 1 else None
        case Held.KEY_PAIR:
            if any(line.startswith("aws_access_key_id") for line in lines):
                return text
            return key_pair(*lines) if len(lines) == 2 else None
        case Held.PAIRS:
            return "\n".join([*lines, ""]) if all("=" in line.strip("=") for line in lines) else None
    return text


def key_pair(access_key: str, secret: str) -> str:
    """The file in which S3's own tools keep a key."""
    return f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret}\n"


def absolute(path: Path) -> Path:
    """A path as it would be from here, with ~ for the home directory."""
    return Path(os.path.abspath(os.path.expanduser(path)))
