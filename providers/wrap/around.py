"""What all wrappers have in common: every verb is passed on, through one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from chatkeep.providers import base

T = TypeVar("T")
Pace = Callable[[int], None]


class Around:
    """A provider around another one, that can what that one can: also `Adopts`, `Paced`, `Retains` and `Usage`.

    A wrapper overrides `_call`, through which every verb but `list` goes, and what it treats apart.
    """

    # Attributes of the object, and not methods of the class: whether they are there says what the inner provider can.
    adopt: Callable[[str, Path], bool]
    put_paced: Callable[[str, bytes, Pace], None]
    retain: Callable[[str, float], None]
    requests: Callable[[], Mapping[str, int]]

    def __init__(self, inner: base.Provider) -> None:
        self.name = inner.name
        self.inner = inner
        if isinstance(inner, base.Adopts):
            self.adopt = self._adopt
        if isinstance(inner, base.Paced):
            self.put_paced = self._put_paced
        if isinstance(inner, base.Retains):
            self.retain = self._retain
        if isinstance(inner, base.Usage):
            self.requests = inner.requests

    def put(self, name: str, body: bytes) -> None:
        self._call("put", lambda: self.inner.put(name, body))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._call("get", lambda: self.inner.get(name, offset, length))

    def stat(self, name: str) -> base.ObjectStat:
        return self._call("stat", lambda: self.inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self._call("list", lambda: self.inner.list(prefix))

    def delete(self, name: str) -> None:
        self._call("delete", lambda: self.inner.delete(name))

    def probe(self) -> base.Capabilities:
        return self._call("probe", self.inner.probe)

    def close(self) -> None:
        self.inner.close()

    def _adopt(self, name: str, path: Path) -> bool:
        inner = self.inner
        assert isinstance(inner, base.Adopts)
        return self._call("adopt", lambda: inner.adopt(name, path))

    def _put_paced(self, name: str, body: bytes, pace: Pace) -> None:
        inner = self.inner
        assert isinstance(inner, base.Paced)
        self._call("put", lambda: inner.put_paced(name, body, pace))

    def _retain(self, name: str, until: float) -> None:
        inner = self.inner
        assert isinstance(inner, base.Retains)
        self._call("retain", lambda: inner.retain(name, until))

    def _call(self, verb: str, call: Callable[[], T]) -> T:  # noqa: ARG002  # for those that ask which
        return call()
