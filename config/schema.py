"""The JSON Schema of the file (draft 2020-12), made from the model, for editors."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from chatkeep.config.amounts import (
    MOST,
    MOST_AT_ONCE,
    RATE,
    SHARE,
    SIZE,
    TIME,
    WRITTEN,
    Amount,
    AtOnce,
    Duration,
    Every,
    Rate,
    Share,
    Size,
    TimeOfDay,
)
from chatkeep.config.key import CREDENTIAL_NAME, Key, unwrap
from chatkeep.config.model import Config, Shape, choice, shapes

Json = dict[str, Any]


def schema() -> Json:
    """The schema as a JSON object. It judges single values as the loader does; clashes only the loader sees."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Chatkeep's configuration"}
    return head | _mapping(Config)


def _mapping(model: type) -> Json:
    chosen = choice(model)
    if chosen is None:
        return _object(model, shapes(model))
    kinds = []
    for word, options in _usable(chosen[1].table):
        kind = _object(model, (*shapes(model), *shapes(options)))
        described = kind["properties"][chosen[1].by]["description"]
        kind |= {"title": word, "description": options.__doc__}
        kind["properties"][chosen[1].by] = {"const": word, "description": described}
        kinds.append(kind)
    return kinds[0] if len(kinds) == 1 else {"oneOf": kinds}


def _usable(table: Mapping[str, type]) -> Iterator[tuple[str, type]]:
    """The types that can be used: one of a package that does not work is not described, and keeps none from being."""
    for word in table:
        with contextlib.suppress(KeyError):
            yield word, table[word]


def _object(model: type, keys: tuple[Shape, ...]) -> Json:
    return {
        "description": model.__doc__,
        "type": "object",
        "properties": {shape.name: _property(shape) for shape in keys},
        "required": [shape.name for shape in keys if shape.required],
        "additionalProperties": False,
    }


def _property(shape: Shape) -> Json:
    made = _type(shape.type, shape.key) | {"description": shape.key.doc}
    default = shape.default
    if isinstance(default, Duration | Amount):
        made["default"] = str(default) if isinstance(default, Duration) or default > MOST else int(default)
    elif isinstance(default, Size | Share | Rate):
        made["default"] = str(default)
    elif isinstance(default, tuple) and default:
        made["default"] = list(default)
    elif isinstance(default, AtOnce):
        made["default"] = int(default)
    elif isinstance(default, bool | str) and default != "":
        made["default"] = default
    return made


def _type(hint: Any, key: Key | None) -> Json:
    if dataclasses.is_dataclass(hint):
        model = typing.cast("type", hint)
        short = getattr(model, "shorthand", None)
        if short is None:
            return _mapping(model)
        return {"anyOf": [_type(next(s.type for s in shapes(model) if s.name == short), None), _mapping(model)]}
    if typing.get_origin(hint) is tuple:
        inner, inner_key = unwrap(typing.get_args(hint)[0])
        least = {"minItems": 1} if dataclasses.is_dataclass(inner) else {}
        return {"type": "array", "items": _type(inner, inner_key)} | least
    if typing.get_origin(hint) is Literal:
        return {"enum": list(typing.get_args(hint))}
    if hint is bool:
        return {"type": "boolean"}
    if hint is Amount:
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MOST}, {"const": "all"}]}
    if hint in (Duration, Every):
        span = {"type": "string", "pattern": WRITTEN if key is None else key.lasting}
        return span if hint is Duration else {"anyOf": [span, {"const": "never"}]}
    if hint in (Size, Share):
        return {"type": "string", "pattern": SIZE if hint is Size else SHARE}
    if hint is Rate:
        return {"anyOf": [{"type": "string", "pattern": RATE}, {"const": "unlimited"}]}
    if hint is TimeOfDay:
        return {"type": "string", "pattern": TIME}
    if hint is AtOnce:
        return {"type": "integer", "minimum": 1, "maximum": MOST_AT_ONCE}
    if typing.get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    if hint is Path:
        secret = key is not None and key.secret
        return {"type": "string", "pattern": f"^[/~]|{CREDENTIAL_NAME}" if secret else "^[/~]"}
    return {"type": "string", "minLength": 1} | ({"pattern": key.pattern} if key is not None and key.pattern else {})
