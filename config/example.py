"""The commented example of the file, made from the model."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final

from chatkeep.config.key import Key, unwrap
from chatkeep.config.model import Config, Shape, choice, shapes

_WIDTH: Final = 100
# What a provider of a type is called where the type itself is not called as people do.
_NAMES: Final = {"": "disk", "folder": "disk", "gdrive": "drive"}
_HEAD: Final = """\
# The configuration of Chatkeep, in its usual place: ~/.config/chatkeep/chatkeep.yaml
# A key behind "#" without a space is optional and shows the value that holds when it is left out, or a sample.
# Durations are numbers of seconds, minutes, hours, days or weeks: 30 seconds, 36 hours; short: 30s, 5min, 36h, 7d, 2w.
# chatkeep config check    says what is wrong with the file
# chatkeep config schema   prints the JSON Schema, for editors that complete and check
"""


def example(kind: str = "") -> str:
    """A complete file with every key and its documentation. It loads as it stands, the paths being samples.

    `kind`: the type of the provider in it, when it is not to be a folder. Raises KeyError for a type that there is not.
    """
    return "\n".join([_HEAD, *_mapping(Config, "", kind=kind)]).rstrip() + "\n"


def _mapping(model: type, indent: str, *, whole: bool = False, kind: str = "") -> Iterator[str]:
    for shape in _keys(model, kind):
        yield from _comment(shape.key.doc, indent)
        # A sample is not what holds without it: it stays behind its "#" also when that of the block is removed.
        active = shape.required or (whole and not shape.key.example)
        yield from _value(shape, indent, active=active, whole=whole, kind=kind)
        if not indent:
            yield ""


def _keys(model: type, kind: str) -> Iterator[Shape]:
    """The keys of a model, the chosen ones directly behind the key that chooses."""
    chosen = choice(model)
    for shape in shapes(model):
        if chosen is not None and shape.name == "name":
            called = _NAMES.get(kind, kind)
            key = shape.key if not shape.key.accepts(called) else dataclasses.replace(shape.key, example=called)
            yield dataclasses.replace(shape, key=key)
            continue
        if chosen is None or shape.name != chosen[1].by:
            yield shape
            continue
        word = kind or shape.key.example
        yield dataclasses.replace(shape, key=dataclasses.replace(shape.key, example=word))
        yield from shapes(chosen[1].table[word])


def _value(shape: Shape, indent: str, *, active: bool, whole: bool, kind: str) -> Iterator[str]:
    mark = indent if active else f"{indent}#"
    if dataclasses.is_dataclass(shape.type):
        yield f"{mark}{shape.name}:"
        yield from _mapping(typing.cast("type", shape.type), f"{mark}  ", whole=whole or not active)
    elif typing.get_origin(shape.type) is tuple:
        inner, key = unwrap(typing.get_args(shape.type)[0])
        if shape.default and not dataclasses.is_dataclass(inner):
            yield f"{mark}{shape.name}: [{', '.join(map(str, typing.cast('tuple[str, ...]', shape.default)))}]"
            return
        yield f"{mark}{shape.name}:"
        yield from _item(inner, key, f"{mark}  ", kind)
    elif typing.get_origin(shape.type) is Mapping:
        yield f"{mark}{shape.name}:"
        yield f"{mark}  {shape.key.example}"
    else:
        yield f"{mark}{shape.name}: {_sample(shape)}"


def _item(inner: Any, key: Key | None, indent: str, kind: str) -> Iterator[str]:
    if not dataclasses.is_dataclass(inner):
        yield f"{indent}- {key.example if key is not None else ''}"
        return
    lines = list(_mapping(typing.cast("type", inner), f"{indent}  ", kind=kind))
    below = len(indent) + 2  # the indent may be a comment itself
    first = next(i for i, line in enumerate(lines) if not line[below:].startswith("#"))
    lines[first] = f"{indent}- {lines[first][below:]}"
    yield from lines


def _sample(shape: Shape) -> str:
    if shape.key.example:
        return shape.key.example
    default = shape.default
    return str(default).lower() if isinstance(default, bool) else str(default)


def _comment(doc: str, indent: str) -> Iterator[str]:
    # Inside a commented key the documentation is commented with it, so that removing the "#" of a block leaves a block.
    for line in textwrap.wrap(doc, _WIDTH - len(indent) - 2):
        yield f"{indent}# {line}"
