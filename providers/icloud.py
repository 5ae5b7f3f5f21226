"""iCloud as a provider: a CloudKit container of one's own, by Apple's CloudKit Web Services.

An object is a record of the type `ChatkeepObject` in the public database, which is the one that a server-to-server key
opens; its bytes are an asset of that record. What makes that sound:

- **The record's name is the object's** with `_` for `/`. No object name has a `_`, so no two objects share a record,
  and creating a record that exists is refused by CloudKit itself, not by a look before.
- **A put has three steps**: an address for the bytes, the bytes, the record. Until the last there is no object; bytes
  that no record refers to are Apple's to remove, and count for nothing.
- **Records are asked for by name**, which is consistent. The query behind `list` reads an index and may lag.
- **Bytes are checked**: the receipt's size after they were sent, the hash in the record when they come back whole.

An object without bytes has no asset: whether CloudKit takes an empty one is not documented.

Written from Apple's documentation and tested against a fake of it (`tests/support/fake_cloudkit`), never against Apple.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from chatkeep.config.storages import CloudKitOptions
from chatkeep.providers import base, icloud_replies
from chatkeep.providers.icloud_replies import ObjectTooLarge, Record
from chatkeep.providers.paging import Pages
from chatkeep.providers.probing import observe
from chatkeep.providers.registry import Opening, ProviderType

if TYPE_CHECKING:
    from chatkeep.providers.icloud_calls import Calls

RECORD_TYPE: Final = "ChatkeepObject"
ASSET_LIMIT: Final = 50_000_000
"""Most bytes of an asset. The reference says 50 MB; the smaller meaning of MB is the safe one."""

PAGE: Final = 200
"""Most records in one answer."""

_WHOLE = ["name", "size", "sha256", "body"]


class CloudKitProvider:
    """Objects as records. See `base.Provider` for the verbs.

    Args:
        name: the configured name.
        calls: the way to the container. Nothing is asked until a verb is called.
    """

    def __init__(self, name: str, calls: Calls) -> None:
        self.name = name
        self._calls = calls

    def put(self, name: str, body: bytes) -> None:
        self._put(name, body, None)

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        self._put(name, body, pace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise ValueError("length")
        with self._about(name):
            record = self._look_up(name, _WHOLE)
            start = max(0, record.size + offset) if offset < 0 else min(offset, record.size)
            wanted = record.size - start if length is None else min(length, record.size - start)
            whole = wanted == record.size
            body = self._read(name, record, start, wanted)
            if whole and not _is(record, body):
                # Once more: the bytes may have been damaged on the way. Twice the same is how they are stored.
                body, first = self._read(name, record, 0, wanted), body
                if not _is(record, body):
                    if body == first:
                        raise base.ObjectDamaged(provider=self.name, object=name, reason="digest")
                    raise base.Unavailable(reason="digest")
            return body

    def stat(self, name: str) -> base.ObjectStat:
        with self._about(name):
            return _stat(self._look_up(name, ["name", "size"]))

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self._listing(base.validate_prefix(prefix))

    def delete(self, name: str) -> None:
        with self._about(name):
            # Whatever its change tag: an object does not change, and a delete that was repeated must not be refused.
            self._modify("forceDelete", {"recordName": _record_name(name)}, settled={"NOT_FOUND"})

    def probe(self) -> base.Capabilities:
        return dataclasses.replace(observe(self), clock_ahead=self._calls.clock_ahead)

    def requests(self) -> Mapping[str, int]:
        """Requests made, by the path of the database or `asset-put` and `asset-get`. See `base.Usage`."""
        return self._calls.counted()

    def close(self) -> None:
        self._calls.close()

    def _put(self, name: str, body: bytes, pace: Callable[[int], None] | None) -> None:
        with self._about(name):
            record_name = _record_name(name)
            if len(body) > ASSET_LIMIT:
                raise ObjectTooLarge(provider=self.name, object=name, size=len(body), limit=ASSET_LIMIT)
            fields: dict[str, Any] = {
                "name": {"value": name},
                "size": {"value": len(body)},
                "sha256": {"value": hashlib.sha256(body).hexdigest()},
            }
            if body:
                fields["body"] = {"value": self._send(record_name, body, pace)}
            made = self._modify(
                "create",
                {"recordName": record_name, "recordType": RECORD_TYPE, "fields": fields},
                settled=icloud_replies.TAKEN,
            )
            if made is None:
                self._compare(name, body, fields)
            elif made.name != name or made.size != len(body):
                raise base.Unavailable(reason="another-record")

    def _send(self, record_name: str, body: bytes, pace: Callable[[int], None] | None) -> dict[str, Any]:
        """Steps one and two of a put; returns what the record says of the asset."""
        token = {"recordName": record_name, "recordType": RECORD_TYPE, "fieldName": "body"}
        url = icloud_replies.upload_url(self._calls.database("assets/upload", {"tokens": [token]}), record_name)
        return icloud_replies.receipt_of(self._calls.send(url, body, pace), len(body))

    def _compare(self, name: str, body: bytes, fields: Mapping[str, Any]) -> None:
        """The name is taken: done if by these bytes. An earlier put may have been carried out and its reply lost."""
        try:
            record = self._look_up(name, _WHOLE)
        except base.ObjectNotFound as problem:  # deleted a moment ago
            raise base.Unavailable(reason="gone") from problem
        if record.size != len(body):
            raise base.ObjectConflict(provider=self.name, object=name, size=record.size)
        sent = fields.get("body", {}).get("value", {}).get("fileChecksum")
        if record.asset is not None and record.asset.checksum == sent and record.sha256 == fields["sha256"]["value"]:
            return  # Apple's digest of what we sent just now is that of what it holds: not fetched to be compared
        if self._read(name, record, 0, record.size) != body:
            raise base.ObjectConflict(provider=self.name, object=name, size=record.size)

    def _look_up(self, name: str, keys: Sequence[str]) -> Record:
        record_name = _record_name(name)
        question = {"records": [{"recordName": record_name}], "desiredKeys": [*keys]}
        found = icloud_replies.one_of(self._calls.database("records/lookup", question), record_name)
        refused = icloud_replies.refusal(found)
        if (refused is not None and refused.code == "NOT_FOUND") or found.get("deleted") is True:
            raise base.ObjectNotFound(provider=self.name, object=name)
        if refused is not None:
            raise self._error(refused)
        record = icloud_replies.record_of(found)
        if record is None or record.name != name or ("body" in keys and (record.asset is None) != (record.size == 0)):
            raise base.ObjectDamaged(provider=self.name, object=name, reason="record")
        return record

    def _modify(self, operation: str, record: Mapping[str, Any], settled: frozenset[str] | set[str]) -> Record | None:
        """Changes one record; None when it was deleted, or refused for a reason among `settled`."""
        question = {"operations": [{"operationType": operation, "record": record}], "desiredKeys": ["name", "size"]}
        found = icloud_replies.one_of(self._calls.database("records/modify", question), record["recordName"])
        refused = icloud_replies.refusal(found)
        if refused is not None:
            if refused.code in settled:
                return None
            raise self._error(refused)
        if operation == "forceDelete":
            return None
        made = icloud_replies.record_of(found)
        if made is None:
            raise base.Unavailable(reason="no-record")
        return made

    def _read(self, name: str, record: Record, start: int, wanted: int) -> bytes:
        """Bytes of the asset, as many requests as it takes while each brings some."""
        from chatkeep.providers.icloud_calls import AddressStale, SizeDiffers

        found = bytearray()
        asked_anew = False
        while len(found) < wanted and record.asset is not None:
            try:
                self._calls.receive(record.asset.url, start + len(found), found, wanted - len(found), record.size)
                asked_anew = False
            except SizeDiffers as problem:
                raise base.ObjectDamaged(provider=self.name, object=name, reason="size") from problem
            except AddressStale as problem:
                if asked_anew:
                    raise base.Unavailable(reason="address") from problem
                fresh = self._look_up(name, _WHOLE)
                if fresh.tag != record.tag:  # deleted and put again meanwhile: parts of two objects are none
                    raise base.Unavailable(reason="changed") from problem
                record, asked_anew = fresh, True
        return bytes(found)

    def _listing(self, prefix: str) -> Iterator[base.ObjectStat]:
        marker: str | None = None
        pages = Pages(self.name)
        while True:
            with self._about():
                answer = self._calls.database("records/query", _query(prefix, marker))
                found = {str(each.get("recordName")): each for each in icloud_replies.records_of(answer)}
                page = [self._listed(found[each]) for each in pages.new(found)]
                marker = answer.get("continuationMarker")
                if marker is not None and not isinstance(marker, str):
                    raise base.Unavailable(reason="marker")
            yield from (each for each in page if each is not None and each.name.startswith(prefix))
            if not marker:
                return

    def _listed(self, found: Mapping[str, Any]) -> base.ObjectStat | None:
        """None for what is none of ours: somebody else's record under our type."""
        refused = icloud_replies.refusal(found)
        if refused is not None:
            raise self._error(refused)
        record = icloud_replies.record_of(found)
        if record is None or not base.is_name(record.name) or _record_name(record.name) != record.record_name:
            return None
        return _stat(record)

    def _error(self, refused: icloud_replies.Refusal) -> base.ProviderError:
        """What the refusal of a single record means, in a request that was accepted."""
        return icloud_replies.error_of(refused, 200, self._calls.place)

    @contextlib.contextmanager
    def _about(self, name: str | None = None) -> Iterator[None]:
        """Every error says whose it is, and about what."""
        try:
            yield
        except base.ProviderError as problem:
            problem.params.setdefault("provider", self.name)
            if name is not None:
                problem.params.setdefault("object", name)
            raise


def _record_name(name: str) -> str:
    """The record of an object. At most 200 characters of the 255 that CloudKit takes, and none of them first that it
    keeps for itself (`_`), since no component of an object name is empty."""
    return base.validate_name(name).replace("/", "_")


def _stat(record: Record) -> base.ObjectStat:
    return base.ObjectStat(record.name, record.size, record.created)


def _is(record: Record, body: bytes) -> bool:
    return hashlib.sha256(body).hexdigest() == record.sha256


def _query(prefix: str, marker: str | None) -> dict[str, Any]:
    starts = {"comparator": "BEGINS_WITH", "fieldName": "name", "fieldValue": {"value": prefix, "type": "STRING"}}
    query = {
        "recordType": RECORD_TYPE,
        "filterBy": [starts] if prefix else [],
        # An order that stays: a page begins where the last one ended, whatever is put or deleted meanwhile.
        "sortBy": [{"fieldName": "name", "ascending": True}],
    }
    question: dict[str, Any] = {"query": query, "resultsLimit": PAGE, "desiredKeys": ["name", "size"]}
    return question if marker is None else {**question, "continuationMarker": marker}


def _open(opening: Opening) -> base.Provider:
    try:
        from chatkeep.providers.icloud_calls import Calls
    except ModuleNotFoundError as problem:
        raise base.ClientMissing(
            provider=opening.name, type="icloud", package=problem.name or "httpx", extra="icloud"
        ) from problem
    from chatkeep.providers.icloud_signing import Signer

    options: CloudKitOptions = opening.options
    return CloudKitProvider(opening.name, Calls(opening.name, options, Signer(options.key_id, options.key_file)))


TYPE = ProviderType(CloudKitOptions, _open)
