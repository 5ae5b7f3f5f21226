"""How objects are found on Drive: what a file is marked with, and the queries that ask for it. Pure.

The language of queries: https://developers.google.com/workspace/drive/api/guides/ref-search-terms. A query by `name`
knows no prefixes (`contains` matches words), so every file says in `appProperties` below which folders of the vault it
stands, one property for each; a listing of a prefix asks for the deepest of them and leaves out the rest itself.
"""

from __future__ import annotations

from typing import Final

from chatkeep.providers.gdrive_replies import FOLDER

LEVELS: Final = 8
"""Most folders of a name that are marked. A file may have 30 properties of a client; names of the vault have four."""
_LONGEST: Final = 120  # bytes of a property's key and value together may be 124; keys have two


def properties(name: str) -> dict[str, str]:
    """What the file of an object is marked with: `a1` is the first folder of its name, `a2` the second with it, ..."""
    return {f"a{level}": folder for level, folder in _folders(name)}


def by_name(folder: str, name: str) -> str:
    """The query for the files of one name."""
    return f"{_quoted(folder)} in parents and trashed = false and name = {_quoted(name)}"


def in_folder(folder: str, prefix: str) -> str:
    """The query for what may begin with the prefix, and more."""
    query = f"{_quoted(folder)} in parents and trashed = false"
    marks = _folders(prefix)
    if marks:
        level, above = marks[-1]
        query += f" and appProperties has {{ key='a{level}' and value={_quoted(above)} }}"
    return query


def the_folder(name: str) -> str:
    """The query for the vault's folder."""
    return f"'root' in parents and trashed = false and mimeType = {_quoted(FOLDER)} and name = {_quoted(name)}"


def _folders(name: str) -> list[tuple[int, str]]:
    parts = name.split("/")[:-1]
    paths = ["/".join(parts[:level]) for level in range(1, len(parts) + 1)]
    return [(level, path) for level, path in enumerate(paths, 1) if level <= LEVELS and len(path) <= _LONGEST]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
