"""What of a source wakes anybody: what a snapshot would take. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from chatkeep.daemon.capture.exclude import Exclusions

# Names that nobody chose: a pattern that matches all of them matches whatever may appear there (`Cache/**`). Of several
# lengths, because `?` and `???` would match one.
_NAMES = (b"\x01", b"\x01\x02", b"\x01" * 17)


class Scope:
    """The rules of one source. Paths are relative to it, without a leading slash; the source itself is empty.

    The caller does not ask about what lies below a directory that is not entered.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._exclude = Exclusions(patterns)

    def wakes(self, path: bytes, *, directory: bool) -> bool:
        """Whether a change of this entry is a hint."""
        return not (self._exclude and self._exclude.match(path, directory))

    def enters(self, directory: bytes) -> bool:
        """Whether anything inside it could be a hint. One that is not entered costs no watch and no look."""
        if not self._exclude:
            return True
        if directory and self._exclude.match(directory, True):
            return False
        inner = [below(directory, name) for name in _NAMES]
        return not all(self._exclude.match(path, kind) for path in inner for kind in (False, True))


def below(directory: bytes, name: bytes) -> bytes:
    """The path of an entry of a directory."""
    return b"%s/%s" % (directory, name) if directory else name
