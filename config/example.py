"""The commented example of the file, made from the model."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Final

from chatkeep.config.key import Key, unwrap
from chatkeep.config.model import Config, Shape, choice, shapes

_WIDTH: Final = 100
_HEAD: Final = """\
# The configuration of Chatkeep, in its usual place: ~/.config/chatkeep/chatkeep.yaml
# A key behind "#" without a space is optional and shows the value that holds when it is left out, or a sample.
# Durations are numbers of seconds, minutes, hours, days or weeks: 30 seconds, 36 hours; short: 30s, 5min, 36h, 7d, 2w.
# chatkeep config check    says what is wrong with the file
# chatkeep config schema   prints the JSON Schema, for editors that complete and check
"""


def example() -> str:
    """A complete file with every key and its documentation. It loads as it stands, the paths being samples."""
    return "\n".join([_HEAD, *_mapping(Config, "")]).rstrip() + "\n"


def _mapping(model: type, indent: str, *, whole: bool = False) -> Iterator[str]:
    for shape in _keys(model):
        yield from _comment(shape.key.doc, indent)
        # A sample is not what holds without it: it stays behind its "#" also when that of the block is removed.
        yield from _value(shape, indent, active=shape.required or (whole and not shape.key.example), whole=whole)
        if not indent:
            yield ""


def _keys(model: type) -> Iterator[Shape]:
    """The keys of a model, the chosen ones directly behind the key that chooses."""
    chosen = choice(model)
    for shape in shapes(model):
        yield shape
        if chosen is not None and shape.name == chosen[1].by:
            yield from shapes(chosen[1].table[shape.key.example])


def _value(shape: Shape, indent: str, *, active: bool, whole: bool) -> Iterator[str]:
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
        yield from _item(inner, key, f"{mark}  ")
    else:
        yield f"{mark}{shape.name}: {_sample(shape)}"


def _item(inner: Any, key: Key | None, indent: str) -> Iterator[str]:
    if not dataclasses.is_dataclass(inner):
        yield f"{indent}- {key.example if key is not None else ''}"
        return
    lines = list(_mapping(typing.cast("type", inner), f"{indent}  "))
    first = next(i for i, line in enumerate(lines) if not line.lstrip().startswith("#"))
    lines[first] = f"{indent}- {lines[first].strip()}"
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
