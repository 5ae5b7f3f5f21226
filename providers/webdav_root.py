"""What a WebDAV server says about places below the root, and whether the root is one of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from chatkeep.providers import base, webdav_replies
from chatkeep.providers.webdav_replies import Resource

if TYPE_CHECKING:
    import httpx

    from chatkeep.providers.webdav_wire import Wire

STAGING: Final = ".tmp/"
"""What is being written lies there, and it marks the root as one of ours."""

_XML: Final = {"Content-Type": 'application/xml; charset="utf-8"'}


class Root:
    """Questions about places, each a path below the root: of a file, or of a collection with a slash at the end.

    Every one raises what a status means (`webdav_replies.refusal`) and `Unavailable`.
    """

    def __init__(self, wire: Wire) -> None:
        self.name = wire.name
        self.wire = wire

    def described(self, place: str, name: str = "", properties: bytes = webdav_replies.PROPERTIES) -> Resource | None:
        """What the server says about one place; None where nothing is."""
        headers = {"Depth": "0", **_XML}
        with self.wire.reply("PROPFIND", place, headers, properties) as response:
            if response.status_code == 207:
                found = self._listed(response.iter_raw(), name)
                if not found:
                    raise base.Unavailable(provider=self.name, object=name, reason="no-answer")
                return found[0]
        if response.status_code == 404:
            return None
        if self._is_collection(response.headers.get("location", ""), response.status_code, place):
            return Resource(self.wire.path(place), collection=True)
        # Apache answers 400 below a file, wsgidav 500 for one that just went, and HEAD tells that nothing is there.
        if response.status_code in (400, 409, 500) and self.wire.ask("HEAD", place).status_code == 404:
            return None
        raise self.refused(response, name)

    def _is_collection(self, location: str, status: int, place: str) -> bool:
        """Whether a redirect only adds the slash that a collection's path ends with."""
        ends = self.wire.destination(place, "path")
        return 300 <= status < 400 and bool(location) and location.endswith(f"{ends}/")

    def _listed(self, parts: Iterator[bytes], name: str = "") -> Sequence[Resource]:
        try:
            return webdav_replies.listing(parts)
        except webdav_replies.Nonsense as problem:
            about = {"object": name} if name else {}
            raise base.Unavailable(provider=self.name, reason="no-answer", found=problem.args[0], **about) from problem

    def children(self, place: str) -> Sequence[Resource] | None:
        """What lies in a collection, named by its last component; None where there is no collection."""
        with self.wire.reply("PROPFIND", place, {"Depth": "1", **_XML}, webdav_replies.PROPERTIES) as response:
            if response.status_code == 207:
                found = self._listed(response.iter_raw())
            elif response.status_code in (404, 409):
                return None
            else:
                raise self.refused(response)
        here = self.wire.path(place)
        if not any(each.path == here for each in found):
            # Behind a gateway that renames paths nothing would match, and the collection would seem empty.
            raise base.Unavailable(provider=self.name, reason="no-answer", found="paths")
        below = [(each, each.path.removeprefix(f"{here}/")) for each in found if each.path.startswith(f"{here}/")]
        return [dataclasses.replace(each, path=component) for each, component in below if "/" not in component]

    def in_use(self) -> bool:
        """Whether the root is one of ours and not a place that was emptied, or where another one is usually mounted."""
        found = self.children("") or ()
        return any(each.collection and (f"{each.path}/" == STAGING or base.is_name(each.path)) for each in found)

    def must_be_in_use(self) -> None:
        """Raises `StorageMissing` where the root is not one of ours."""
        if not self.in_use():
            raise base.StorageMissing(provider=self.name, path=self.wire.address)

    def absent(self, name: str) -> base.ProviderError:
        """What a missing object means: the place is gone, or there is none."""
        if self.in_use():
            return base.ObjectNotFound(provider=self.name, object=name)
        return base.StorageMissing(provider=self.name, object=name, path=self.wire.address)

    def refused(self, response: httpx.Response, name: str = "") -> base.ProviderError:
        """The error that the status of a reply means."""
        return self.wire.refused(response, **({"object": name} if name else {}))

    def free(self) -> int | None:
        """Bytes of room left, where the server says it."""
        found = self.described("", properties=webdav_replies.QUOTA)
        return found.free if found else None

    def mark(self) -> None:
        """Makes the root and its mark, each if it is not there."""
        for place in ("", STAGING):
            response = self.wire.ask("MKCOL", place)
            if response.status_code == 201:
                continue
            found = self.described(place) if response.status_code != 409 else None
            if found is None or not found.collection:
                missing = response.status_code in (404, 409)
                raise (
                    base.StorageMissing(provider=self.name, path=self.wire.address)
                    if missing
                    else self.refused(response)
                )
