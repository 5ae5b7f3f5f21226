"""Where the objects are [15], and how damage is told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag


class Storage(Protocol):
    """Where the objects are."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, fewer at its end; a negative offset counts from the end.

        Raises FileNotFoundError when there is none, another OSError when it cannot be read.
        """

    def names(self, folder: str) -> list[str]:
        """What stands directly below a folder, in order; nothing if there is no such folder."""


class Directory:
    """A vault in a folder [15]: an object is a file under its name; a pack may lie one folder deeper."""

    def __init__(self, root: str) -> None:
        os.listdir(root)  # an OSError when there is no such folder
        self.root = root

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """As `Storage` has it."""
        above, last = os.path.split(os.path.join(self.root, name))
        deeper = os.path.join(above, last[:2])
        path = os.path.join(deeper if os.path.isdir(deeper) else above, last)
        if os.path.lexists(os.path.join(os.path.dirname(path), f".{last}.icloud")):
            raise OSError(f"{name} is in iCloud: have it fetched to this disk first")
        with open(path, "rb") as file:
            if offset < 0:
                offset = max(0, os.fstat(file.fileno()).st_size + offset)
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def names(self, folder: str) -> list[str]:
        """As `Storage` has it."""
        path = os.path.join(self.root, folder)
        return sorted(name for name in os.listdir(path) if name[0] != ".") if os.path.isdir(path) else []


class Notes:
    """What is damaged or missing: told to the user at once, and the work goes on."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.add = tell

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Damage that is found in here is noted, under the name of what it was found in."""
        try:
            yield
        except InvalidTag:
            self.add(f"{what}: it does not decrypt")
        except InvalidSignature:
            self.add(f"{what}: its signature is wrong")
        except FileNotFoundError:
            self.add(f"{what}: it is missing")
        except Exception as problem:  # whatever hostile bytes make the code raise
            self.add(f"{what}: {str(problem) or type(problem).__name__}")
