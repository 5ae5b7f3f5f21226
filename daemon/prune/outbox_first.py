"""Storage as it will be when everything was uploaded: what waits in the outbox lies there already."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from chatkeep.daemon.state import State
from chatkeep.providers import base


class OutboxFirst:
    """A provider, and in front of it the outbox. Only reads.

    A snapshot that no provider has yet refers to packs that all of them have: who asks what is needed must see both.
    A listing may be old; what this device has just put is asked for by its name.
    """

    def __init__(self, inner: base.Provider, state: State) -> None:
        self.name = inner.name
        self._inner = inner
        self._waiting = {item.name: item for item in state.outbox.queue("")}
        self._known: Collection[str] = state.pruning.newest_names() | self._waiting.keys()

    def put(self, name: str, body: bytes) -> None:
        raise AssertionError(f"planning writes nothing, not {len(body)} bytes to {name}")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        item = self._waiting.get(name)
        if item is None:
            return self._inner.get(name, offset, length)
        start = max(0, item.size + offset) if offset < 0 else offset
        try:
            with open(item.path, "rb") as file:
                file.seek(start)
                return file.read(item.size if length is None else length)
        except OSError as exc:
            raise base.ObjectDamaged(provider=self.name, object=name) from exc

    def stat(self, name: str) -> base.ObjectStat:
        item = self._waiting.get(name)
        return self._inner.stat(name) if item is None else base.ObjectStat(name, item.size, None)

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        base.validate_prefix(prefix)
        yield from (base.ObjectStat(name, 0, None) for name in self._known if name.startswith(prefix))
        yield from (found for found in self._inner.list(prefix) if found.name not in self._known)

    def delete(self, name: str) -> None:
        raise AssertionError(f"planning deletes nothing, not {name}")

    def probe(self) -> base.Capabilities:
        return self._inner.probe()

    def close(self) -> None:
        """The inner provider is closed by who opened it."""
