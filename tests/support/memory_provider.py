"""A provider in memory: strict about its contract, quick, and open to inspection and to tampering."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from chatkeep.providers import base


class MemoryProvider:
    """Keeps objects in a dictionary.

    Attributes:
        objects: what is stored; a test may change it behind the provider's back, as hostile storage would.
        unlisted: names that listings leave out, as a listing that is old does.
        ghosts: names that listings show although nothing is there, as a listing that is old does too.
        verbs: (verb, name) of every put, get and delete, in order.
    """

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.unlisted: set[str] = set()
        self.ghosts: set[str] = set()
        self.verbs: list[tuple[str, str]] = []
        self._closed = False
        self._lock = threading.Lock()

    def put(self, name: str, body: bytes) -> None:
        base.validate_name(name)
        if type(body) is not bytes:
            raise AssertionError(f"a {type(body).__name__} was put: its owner could change it later")
        with self._called("put", name):
            if self.objects.setdefault(name, body) != body:
                raise base.ObjectConflict(provider=self.name, object=name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        base.validate_name(name)
        if length is not None and length < 0:
            raise ValueError("length")
        with self._called("get", name):
            body = self._found(name)
        start = offset if offset >= 0 else max(0, len(body) + offset)
        return body[start:] if length is None else body[start : start + length]

    def stat(self, name: str) -> base.ObjectStat:
        base.validate_name(name)
        with self._called("stat", name):
            return base.ObjectStat(name, len(self._found(name)), None)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        with self._called("list", prefix):
            found = [
                base.ObjectStat(name, len(body), None)
                for name, body in self.objects.items()
                if name.startswith(prefix) and name not in self.unlisted and base.is_name(name)
            ]
            found += [base.ObjectStat(name, 1, None) for name in self.ghosts if name.startswith(prefix)]
        yield from found

    def delete(self, name: str) -> None:
        base.validate_name(name)
        with self._called("delete", name):
            self.objects.pop(name, None)

    def probe(self) -> base.Capabilities:
        return base.Capabilities(
            exclusive_create=True, lists_at_once=True, deletes=True, modified=False, clock_ahead=None, free_bytes=None
        )

    def close(self) -> None:
        self._closed = True

    def _found(self, name: str) -> bytes:
        if name not in self.objects:
            raise base.ObjectNotFound(provider=self.name, object=name)
        return self.objects[name]

    def _called(self, verb: str, name: str) -> threading.Lock:
        if self._closed:
            raise AssertionError(f"{verb} after close")
        self.verbs.append((verb, name))
        return self._lock
