"""From the file to the model: every problem of the file at once, each with its place.

`load` judges the text alone; `chatkeep.config.paths.check_paths` looks at the disk. A restore on a new machine needs
the first and not the second.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from chatkeep.config import document
from chatkeep.config.amounts import Amount, AtOnce, Duration, Every, Rate, Share, Size, TimeOfDay
from chatkeep.config.key import CREDENTIAL, CREDENTIAL_NAME, Choose, Key, unwrap
from chatkeep.config.model import Config, Origin, ProviderConfig, Shape, Source, choice, made, shapes
from chatkeep.config.places import default_file, default_state_dir
from chatkeep.config.problems import ConfigInvalid, Problem, Reason, nearest
from chatkeep.config.relations import clashes, contradictions
from chatkeep.config.secrecy import holds_password, looks_secret
from chatkeep.config.storages import TypeUnusable

_AMOUNTS: Final[dict[type, Reason]] = {
    Duration: Reason.BAD_DURATION,
    Every: Reason.BAD_EVERY,
    Amount: Reason.BAD_AMOUNT,
    Size: Reason.BAD_SIZE,
    Share: Reason.BAD_SHARE,
    Rate: Reason.BAD_RATE,
    TimeOfDay: Reason.BAD_TIME,
    AtOnce: Reason.BAD_AT_ONCE,
}
INVALID: Final = object()  # stands for a value that was refused; its problem is on the list


def load(path: Path | None = None) -> Config:
    """The configuration in a file; without a path, in the default place. Shape only: the disk is not looked at.

    Raises ConfigMissing, ConfigUnreadable, or ConfigInvalid with every problem found.
    """
    file = path if path is not None else default_file()
    return parse(document.read(file), file)


def parse(text: str, file: Path) -> Config:
    """The configuration in a text; `file` is only named in problems. Raises ConfigInvalid."""
    reader = _Reader(file)
    values = reader.mapping(Config, document.compose(text, file), "")
    if values is not INVALID:
        reader.compare(values)
    if reader.problems:
        raise ConfigInvalid(file, reader.problems)
    read = Config(**values, origin=reader.origin)
    remembering = [
        dataclasses.replace(provider, memory=memory(read.state_dir, provider.name)) for provider in read.providers
    ]
    return dataclasses.replace(read, providers=tuple(remembering))


def load_providers(path: Path) -> tuple[ProviderConfig, ...]:
    """The providers of a configuration that need not say what is kept: enough to read, on a machine that keeps nothing.

    What else stands in the file is judged as always. Nothing is remembered about these providers.

    Raises as `load`.
    """
    reader = _Reader(path)
    values = reader.mapping(Config, document.compose(document.read(path), path), "", lacking=frozenset({"sources"}))
    if values is not INVALID:
        reader.compare({**values, "state_dir": None})
    if reader.problems:
        raise ConfigInvalid(path, reader.problems)
    found: tuple[ProviderConfig, ...] = values["providers"]
    return found


def memory(state_dir: Path, provider: str) -> Path:
    """Where a device remembers what the provider of that name must."""
    # A digest: a name may hold what no file system takes, and be longer than any.
    return state_dir / "providers" / f"{hashlib.sha256(provider.encode()).hexdigest()[:32]}.db"


class _Reader:
    """Reads nodes as the types of the model say, noting problems instead of stopping at the first."""

    def __init__(self, file: Path) -> None:
        self.problems: list[Problem] = []
        self.marks: dict[str, tuple[int, int]] = {}
        self.origin = Origin(file, self.marks)
        self.placed: list[tuple[str, object]] = []  # every model value that came out whole, with its key

    def refuse(self, reason: Reason, key: str, node: yaml.Node | None = None, **words: str) -> Any:
        line, column = _place(node) if node is not None else self.origin.mark(key)
        self.problems.append(Problem(str(self.origin.file), line, column, key, reason, **words))
        return INVALID

    def value(self, hint: Any, node: yaml.Node, at: str, key: Key | None) -> Any:
        self.marks[at] = _place(node)
        if node.tag == document.TYPE_NULL:
            return self.refuse(Reason.NO_VALUE, at, node)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.model(hint, node, at)
        if typing.get_origin(hint) is tuple:
            return self.items(typing.get_args(hint)[0], node, at)
        if typing.get_origin(hint) is Mapping:
            return self.texts(node, at, key)
        if not isinstance(node, yaml.ScalarNode):
            return self.wrong_type(node, at, _wanted(hint))
        if key is not None and key.secret:
            return self.secret_file(node, at)
        return self.scalar(hint, node, at, key)

    def secret_file(self, node: yaml.ScalarNode, at: str) -> Any:
        """The path of a file that holds a secret, or a credential of systemd. What stands there is never repeated: it
        may be the secret itself."""
        if re.search(CREDENTIAL_NAME, node.value):
            return Path(node.value)  # found when it is read: only the service that systemd gave it to has it
        expanded = os.path.expanduser(node.value)
        if document.TYPES.get(node.tag) != "text" or not _printable(node.value) or not os.path.isabs(expanded):
            return self.refuse(Reason.BAD_SECRET_FILE, at, node)
        return Path(expanded)

    def texts(self, node: yaml.Node, at: str, key: Key | None) -> Any:
        """Names and values that are not ours to know. A value is the text that stands there, whatever YAML takes it
        for."""
        if not isinstance(node, yaml.MappingNode) or node.tag not in document.TYPES:
            return self.wrong_type(node, at, "mapping")
        found: dict[str, Any] = {}
        for name, inner in self.keys(node, at).items():
            place = _join(at, name)
            if not isinstance(inner, yaml.ScalarNode) or inner.tag == document.TYPE_NULL:
                found[name] = self.wrong_type(inner, place, "text")
            elif looks_secret(name, inner.value):
                wanted = key.secrets if key is not None and key.secrets else "a file"
                found[name] = self.refuse(Reason.SECRET_HERE, place, inner, wanted=wanted)
            elif not _printable(inner.value) or not _printable(name):
                found[name] = self.refuse(Reason.BAD_TEXT, place, inner, found=ascii(inner.value))
            else:
                found[name] = inner.value
        return INVALID if any(value is INVALID for value in found.values()) else found

    def scalar(self, hint: Any, node: yaml.ScalarNode, at: str, key: Key | None) -> Any:
        found = document.TYPES.get(node.tag)
        if hint is bool:
            return (
                node.value.lower() == "true" if found == "true or false" else self.wrong_type(node, at, _wanted(hint))
            )
        if hint in _AMOUNTS and found in ("text", "number"):
            return self.amount(hint, node, at, key)
        if found != "text":
            return self.wrong_type(node, at, _wanted(hint))
        if typing.get_origin(hint) is Literal:
            words = typing.get_args(hint)
            if node.value in words:
                return node.value
            close = nearest(node.value, words)
            return self.refuse(Reason.UNKNOWN_WORD, at, node, found=node.value, wanted=_wanted(hint), nearest=close)
        if holds_password(node.value):
            return self.refuse(Reason.SECRET_HERE, at, node, wanted="a file")
        if not _printable(node.value):
            return self.refuse(Reason.BAD_TEXT, at, node, found=ascii(node.value))
        if hint is Path:
            return self.path(node, at)
        if key is not None and not key.accepts(node.value):
            # What somebody puts into an address that does not belong there is often a secret: it is not repeated.
            found = "" if key.refused is Reason.BAD_URL else node.value
            return self.refuse(key.refused, at, node, found=found)
        return node.value

    def amount(self, hint: Any, node: yaml.ScalarNode, at: str, key: Key | None) -> Any:
        value = hint.parse(node.value)
        if value is None:
            close = nearest(node.value, ["all"]) if hint is Amount else hint.nearest(node.value)
            return self.refuse(_AMOUNTS[hint], at, node, found=node.value, nearest=close)
        if isinstance(value, Duration) and key is not None and value < key.least:
            reason = Reason.TOO_SHORT if value else Reason.ZERO_DURATION
            return self.refuse(reason, at, node, found=node.value, wanted=str(key.least))
        return value

    def path(self, node: yaml.ScalarNode, at: str) -> Any:
        expanded = os.path.expanduser(node.value)
        if expanded.startswith("~"):
            return self.refuse(Reason.NO_HOME, at, node, found=node.value)
        if not os.path.isabs(expanded):
            return self.refuse(Reason.NOT_ABSOLUTE, at, node, found=node.value)
        return Path(expanded)

    def items(self, hint: Any, node: yaml.Node, at: str) -> Any:
        if not isinstance(node, yaml.SequenceNode) or node.tag not in document.TYPES:
            return self.wrong_type(node, at, "list")
        bare, key = unwrap(hint)
        found = [self.value(bare, item, f"{at}[{i}]", key) for i, item in enumerate(node.value)]
        if not found and dataclasses.is_dataclass(bare):
            return self.refuse(Reason.NO_VALUE, at, node)
        return INVALID if any(item is INVALID for item in found) else tuple(found)

    def model(self, hint: type, node: yaml.Node, at: str) -> Any:
        short = getattr(hint, "shorthand", None)
        if short is not None and isinstance(node, yaml.ScalarNode):
            shape = next(shape for shape in shapes(hint) if shape.name == short)
            values: Any = {short: self.value(shape.type, node, at, shape.key)}
        else:
            values = self.mapping(hint, node, at)
        if values is INVALID or any(value is INVALID for value in values.values()):
            return INVALID
        whole = made(hint, values)
        self.placed.append((at, whole))
        return whole

    def mapping(self, hint: type, node: yaml.Node, at: str, lacking: frozenset[str] = frozenset()) -> Any:
        """The values of the keys that are there, `INVALID` among them; or INVALID when it is no mapping. `lacking`:
        required keys that may be missing all the same."""
        self.marks[at] = _place(node)
        if not isinstance(node, yaml.MappingNode) or node.tag not in document.TYPES:
            return self.wrong_type(node, at, "mapping")
        nodes = self.keys(node, at)
        values: dict[str, Any] = {}
        known = {shape.name: shape for shape in shapes(hint)}
        chosen = choice(hint)
        model, nested = None, {}
        if chosen is not None:
            model = self.chosen(chosen[1], nodes.get(chosen[1].by), _join(at, chosen[1].by))
            nested = {shape.name: shape for shape in shapes(model)} if model is not None else {}
        for name, inner in nodes.items():
            shape = known.get(name) or nested.get(name)
            if shape is not None:
                values[name] = self.value(shape.type, inner, _join(at, name), shape.key)
            elif chosen is None or model is not None:  # of an unknown type of provider no key can be judged
                values[name] = self.unknown(name, inner, _join(at, name), known, nested)
        for shape in (*known.values(), *nested.values()):
            if shape.required and shape.name not in nodes and shape.name not in lacking:
                values[shape.name] = self.refuse(Reason.MISSING_KEY, _join(at, shape.name), node, wanted=shape.name)
        if chosen is not None:
            values = self.split(values, chosen[0], model, nested)
        return values

    def unknown(
        self, name: str, node: yaml.Node, at: str, known: Mapping[str, Shape], nested: Mapping[str, Shape]
    ) -> Any:
        """A key that there is not. Where a secret stands, and the chosen model has a file for one, that is said."""
        files = [shape.name for shape in nested.values() if shape.key.secret]
        if files and isinstance(node, yaml.ScalarNode) and _is_secret(name, node.value):
            meant = f"{name}_file"
            wanted = meant if meant in files else " or ".join(files)
            return self.refuse(Reason.SECRET_HERE, at, node, wanted=wanted)
        return self.refuse(Reason.UNKNOWN_KEY, at, node, found=name, nearest=nearest(name, {*known, *nested}))

    def chosen(self, choose: Choose, node: yaml.Node | None, at: str) -> type | None:
        """The model that a word chooses; None when there is none, which is noted unless there is no word either."""
        if not isinstance(node, yaml.ScalarNode) or document.TYPES.get(node.tag) != "text":
            return None
        try:
            return choose.table[node.value]
        except TypeUnusable as problem:
            self.refuse(Reason.TYPE_UNUSABLE, at, node, found=node.value, wanted=f"{problem.place}: {problem.cause}")
        except KeyError:
            words = list(choose.table)
            close = nearest(node.value, words)
            self.refuse(Reason.UNKNOWN_WORD, at, node, found=node.value, wanted=" or ".join(words), nearest=close)
        return None

    def split(self, values: dict[str, Any], into: str, model: type | None, nested: dict[str, Any]) -> dict[str, Any]:
        """Takes the keys that belong to the chosen model out and puts that model in."""
        inner = {name: values.pop(name) for name in nested if name in values}
        whole = model is not None and not any(value is INVALID for value in inner.values())
        values[into] = made(model, inner) if model is not None and whole else INVALID
        return values

    def keys(self, node: yaml.MappingNode, at: str) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong_type(key, at, "text")
            elif key.value in found:
                self.refuse(Reason.DUPLICATE_KEY, _join(at, key.value), key, found=key.value)
            else:
                found[key.value] = value
                self.marks[_join(at, key.value)] = _place(key)
        return found

    def wrong_type(self, node: yaml.Node, at: str, wanted: str) -> Any:
        found = document.TYPES.get(node.tag, node.tag)
        if isinstance(node, yaml.ScalarNode) and found != "nothing":
            found = f"{found} {node.value[:60]!r}"
        return self.refuse(Reason.WRONG_TYPE, at, node, found=found, wanted=wanted)

    def compare(self, values: dict[str, Any]) -> None:
        """The rules that concern several values, over those that came out whole."""
        sources = [(key, value) for key, value in self.placed if isinstance(value, Source)]
        providers = [(key, value) for key, value in self.placed if isinstance(value, ProviderConfig)]
        state_dir = values.get("state_dir", default_state_dir())
        found = clashes(sources, providers, state_dir if isinstance(state_dir, Path) else None, _lexical)
        for clash in found:
            self.refuse(clash.reason, clash.key, found=clash.found, other=clash.other)
        for clash in contradictions([value for _, value in self.placed]):
            # One of the two may be a default: then the line is that of the other.
            line, column = self.origin.mark(clash.key if clash.key in self.marks else clash.other)
            words = {"found": clash.found, "wanted": clash.wanted, "other": clash.other}
            self.problems.append(Problem(str(self.origin.file), line, column, clash.key, clash.reason, **words))


def _lexical(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _is_secret(name: str, value: str) -> bool:
    """Whether a secret stands there itself. A path does not: the name of its key is a slip."""
    return looks_secret(name, value) and not value.startswith(("/", "~", CREDENTIAL))


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _printable(text: str) -> bool:
    """Whether a text can be shown on one line, encoded, and given to the system as a name."""
    return bool(text) and not any(ch < " " or ch == "\x7f" or "\ud800" <= ch <= "\udfff" for ch in text)


def _wanted(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(typing.get_args(hint))
    words = {
        bool: "true or false",
        Path: "path",
        Amount: "a number",
        Size: "a size",
        Share: "a share such as 1%",
        Rate: "a rate such as 500 KB/s",
        TimeOfDay: "a time such as 08:00",
        AtOnce: "a number",
    }
    return words.get(hint, "a duration" if hint in _AMOUNTS else "text")
