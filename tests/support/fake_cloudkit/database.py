"""The public database of the fake: records, assets, tokens, and the knobs that tests turn."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.fake_cloudkit import shapes
from tests.support.fake_cloudkit.shapes import Refused, bad, shape


@dataclasses.dataclass
class Stored:
    """A record."""

    fields: dict[str, Any]
    tag: str
    created: int  # milliseconds


@dataclasses.dataclass
class Database:
    """Records by name, and what leads to their assets.

    Attributes:
        page: most records in an answer to a query.
        now: its clock, in seconds.
        hidden: names of objects that queries leave out, as an index that lags does.
        ghosts: records that queries still show although they were deleted.
        salted: digests of assets differ between two uploads of the same bytes.
        repeats_create: a create of a record that exists is answered EXISTS or CONFLICT.
        room: bytes of assets that fit in all; None: any number.
    """

    now: Callable[[], float]
    page: int = 200
    hidden: set[str] = dataclasses.field(default_factory=set)
    ghosts: dict[str, Stored] = dataclasses.field(default_factory=dict)
    salted: bool = False
    taken_is: str = "CONFLICT"
    room: int | None = None
    schema: bool = True
    fired: Counter[str] = dataclasses.field(default_factory=Counter)
    records: dict[str, Stored] = dataclasses.field(default_factory=dict)
    assets: dict[str, bytes] = dataclasses.field(default_factory=dict)  # by checksum
    tokens: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # token > record, field
    receipts: dict[str, tuple[str, str, str]] = dataclasses.field(default_factory=dict)  # > record, field, checksum
    markers: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)  # marker > prefix, last name
    addresses: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict)  # token > checksum, until
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def answer(self, operation: str, question: dict[str, Any], home: str) -> dict[str, Any]:
        verbs = {
            "assets/upload": self._tokens,
            "records/modify": self._modify,
            "records/lookup": self._lookup,
            "records/query": self._query,
        }
        if operation not in verbs:
            raise Refused(404, "NOT_FOUND", "no such operation")
        with self.lock:
            return verbs[operation](question, home)

    def take(self, token: str, body: bytes) -> dict[str, Any]:
        """The bytes of an asset, for a token that is good once."""
        with self.lock:
            if token not in self.tokens:
                raise Refused(403, "ACCESS_DENIED", "unknown or used token")
            record, field = self.tokens.pop(token)
            if len(body) > shapes.ASSET_LIMIT:
                raise Refused(413, "BAD_REQUEST", "asset too large")
            if not body:
                raise bad("an empty asset")
            if self.room is not None and sum(map(len, self.assets.values())) + len(body) > self.room:
                self.fired["quota"] += 1
                raise Refused(413, "QUOTA_EXCEEDED", "no room")
            salt = os.urandom(8) if self.salted else b""
            checksum = base64.b64encode(b"\x01" + hashlib.sha1(salt + body, usedforsecurity=False).digest()).decode()
            self.assets[checksum] = body
            receipt = base64.b64encode(os.urandom(24)).decode()
            self.receipts[receipt] = (record, field, checksum)
        return {"singleFile": {"fileChecksum": checksum, "size": len(body), "receipt": receipt}}

    def bytes_at(self, token: str) -> bytes:
        """What is at an address that was given out, while it is good."""
        with self.lock:
            checksum, until = self.addresses.get(token, ("", 0.0))
            if self.now() > until or checksum not in self.assets:
                raise Refused(410, "NOT_FOUND", "expired")
            return self.assets[checksum]

    def _tokens(self, question: dict[str, Any], home: str) -> dict[str, Any]:
        shape(question, {"tokens": list}, {"zoneID": dict})
        if not 0 < len(question["tokens"]) <= shapes.OPERATIONS_LIMIT:
            raise bad("number of tokens")
        made = []
        for each in question["tokens"]:
            shape(each, {"recordType": str, "fieldName": str}, {"recordName": str})
            self._known(each["recordType"])
            if shapes.FIELDS.get(each["fieldName"]) != "ASSETID":
                raise bad("no asset field")
            name, token = shapes.record_name(each.get("recordName")), os.urandom(16).hex()
            self.tokens[token] = (name, each["fieldName"])
            made.append({"recordName": name, "fieldName": each["fieldName"], "url": f"{home}/upload/{token}"})
        return {"tokens": made}

    def _known(self, record_type: str) -> None:
        if not self.schema or record_type != shapes.RECORD_TYPE:
            self.fired["schema"] += 1
            raise bad(f"did not find record type: {record_type}")

    def _modify(self, question: dict[str, Any], home: str) -> dict[str, Any]:
        shape(question, {"operations": list}, {"zoneID": dict, "atomic": bool, "desiredKeys": list})
        if not 0 < len(question["operations"]) <= shapes.OPERATIONS_LIMIT:
            raise bad("number of operations")
        wanted = shapes.keys_wanted(question.get("desiredKeys"))
        return {"records": [self._operate(each, wanted, home) for each in question["operations"]]}

    def _operate(self, operation: object, wanted: frozenset[str] | None, home: str) -> dict[str, Any]:
        found = shape(operation, {"operationType": str, "record": dict})
        record = shape(
            found["record"], {"recordName": str}, {"recordType": str, "recordChangeTag": str, "fields": dict}
        )
        name = shapes.record_name(record["recordName"])
        verbs = {"create": self._create, "delete": self._delete, "forceDelete": self._delete}
        if found["operationType"] not in verbs:
            raise bad("operation that this fake does not know")
        try:
            return verbs[found["operationType"]](name, record, found["operationType"], wanted, home)
        except Refused as refused:
            if refused.code == "BAD_REQUEST":
                raise
            return refused.told(recordName=name)

    def _create(
        self, name: str, record: dict[str, Any], operation: str, wanted: frozenset[str] | None, home: str
    ) -> dict[str, Any]:
        self._known(record.get("recordType", ""))
        values = shapes.fields(record.get("fields", {}))
        if len(json.dumps(record)) > shapes.RECORD_LIMIT:
            raise bad("record too large")
        if "recordChangeTag" in record:
            raise bad("a change tag in a create")
        if "body" in values:
            values["body"] = self._asset(name, "body", values["body"])
        if name in self.records:
            self.fired["taken"] += 1
            raise Refused(409, self.taken_is, "record to insert already exists")
        self.records[name] = Stored(values, os.urandom(4).hex(), int(self.now() * 1000))
        return self._told(name, self.records[name], wanted, home)

    def _asset(self, record: str, field: str, asset: dict[str, Any]) -> str:
        shape(asset, {"fileChecksum": str, "size": int, "receipt": str})
        if self.receipts.get(asset["receipt"]) != (record, field, asset["fileChecksum"]):
            raise bad("receipt of another asset")
        if len(self.assets[asset["fileChecksum"]]) != asset["size"]:
            raise bad("size of the asset")
        return str(asset["fileChecksum"])

    def _delete(
        self, name: str, record: dict[str, Any], operation: str, wanted: frozenset[str] | None, home: str
    ) -> dict[str, Any]:
        if "fields" in record:
            raise bad("fields in a delete")
        if name not in self.records:
            raise Refused(404, "NOT_FOUND", "Record not found")
        if operation == "delete" and record.get("recordChangeTag") != self.records[name].tag:
            raise Refused(409, "CONFLICT", "oplock mismatch")
        del self.records[name]
        return {"recordName": name, "deleted": True}

    def _lookup(self, question: dict[str, Any], home: str) -> dict[str, Any]:
        shape(question, {"records": list}, {"zoneID": dict, "desiredKeys": list})
        if not 0 < len(question["records"]) <= shapes.OPERATIONS_LIMIT:
            raise bad("number of records")
        wanted = shapes.keys_wanted(question.get("desiredKeys"))
        told = []
        for each in question["records"]:
            name = shapes.record_name(shape(each, {"recordName": str}, {"desiredKeys": list})["recordName"])
            if name in self.records:
                told.append(self._told(name, self.records[name], wanted, home))
            else:
                told.append(Refused(404, "NOT_FOUND", "Record not found").told(recordName=name))
        return {"records": told}

    def _query(self, question: dict[str, Any], home: str) -> dict[str, Any]:
        optional = {"zoneID": dict, "resultsLimit": int, "desiredKeys": list, "continuationMarker": str}
        shape(question, {"query": dict}, optional)
        self._known(question["query"].get("recordType", ""))
        prefix, limit = shapes.prefix_of(question["query"]), question.get("resultsLimit", shapes.OPERATIONS_LIMIT)
        if not 0 < limit <= shapes.OPERATIONS_LIMIT:
            raise bad("resultsLimit")
        after = ""
        if "continuationMarker" in question:
            if question["continuationMarker"] not in self.markers:
                raise bad("unknown continuationMarker")
            of, after = self.markers[question["continuationMarker"]]
            if of != prefix:
                raise bad("continuationMarker of another query")
        wanted = shapes.keys_wanted(question.get("desiredKeys"))
        found = {name: each for name, each in self.records.items() if each.fields["name"] not in self.hidden}
        self.fired["stale"] += len(self.records) - len(found) + len(self.ghosts)
        found.update(self.ghosts)
        rows = sorted(
            ((each.fields["name"], name) for name, each in found.items() if each.fields["name"].startswith(prefix))
        )
        rows = [row for row in rows if row[0] > after]
        page = rows[: min(limit, self.page)]
        told: dict[str, Any] = {"records": [self._told(name, found[name], wanted, home) for _, name in page]}
        if len(page) < len(rows):
            marker = base64.b64encode(os.urandom(12)).decode()
            self.markers[marker] = (prefix, page[-1][0])
            told["continuationMarker"] = marker
        return told

    def _told(self, name: str, record: Stored, wanted: frozenset[str] | None, home: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in record.fields.items():
            if wanted is not None and key not in wanted:
                continue
            if shapes.FIELDS[key] == "ASSETID":
                token = os.urandom(16).hex()
                self.addresses[token] = (value, self.now() + 900)
                size = len(self.assets[value])
                value = {"fileChecksum": value, "size": size, "downloadURL": f"{home}/asset/{token}/${{f}}"}
            fields[key] = {"value": value, "type": shapes.FIELDS[key]}
        stamp = {"timestamp": record.created, "userRecordName": "_server", "deviceID": "2"}
        told = {"recordName": name, "recordType": shapes.RECORD_TYPE, "recordChangeTag": record.tag, "fields": fields}
        return {**told, "created": stamp, "modified": stamp, "deleted": False, "pluginFields": {}}
