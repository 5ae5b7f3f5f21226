"""The shapes of requests, as Apple's CloudKit Web Services Reference documents them: what is not in here is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OPERATIONS_LIMIT = 200
RECORD_LIMIT = 1_000_000
ASSET_LIMIT = 50_000_000
RECORD_NAME = re.compile(r"[!-~]{1,255}", re.ASCII)

# The schema of the container: docs/providers.md asks for the same.
RECORD_TYPE = "ChatkeepObject"
FIELDS = {"name": "STRING", "size": "INT64", "sha256": "STRING", "body": "ASSETID"}
QUERYABLE = frozenset({"name"})
SORTABLE = frozenset({"name"})
PYTHON = {"STRING": str, "INT64": int, "ASSETID": dict}


class Refused(Exception):
    """A request, or an operation of one, that is not carried out."""

    def __init__(self, status: int, code: str, reason: str, after: float | None = None) -> None:
        super().__init__(code, reason)
        self.status, self.code, self.reason, self.after = status, code, reason, after

    def told(self, **more: object) -> dict[str, object]:
        waits = {} if self.after is None else {"retryAfter": self.after}
        return {**more, "uuid": "00000000-0000", "serverErrorCode": self.code, "reason": self.reason, **waits}


def bad(reason: str) -> Refused:
    return Refused(400, "BAD_REQUEST", reason)


def shape(found: object, required: Mapping[str, type], optional: Mapping[str, type] | None = None) -> Any:
    """A mapping with these keys and no others, each of its type."""
    if not isinstance(found, dict):
        raise bad("not a dictionary")
    known = {**required, **(optional or {})}
    for key in found:
        if key not in known:
            raise bad(f"unknown key {key}")
    for key, kind in known.items():
        if key in found and (not isinstance(found[key], kind) or (kind is int and isinstance(found[key], bool))):
            raise bad(f"wrong type of {key}")
    if missing := required.keys() - found.keys():
        raise bad(f"missing {sorted(missing)}")
    return found


def record_name(found: object) -> str:
    if not isinstance(found, str) or not RECORD_NAME.fullmatch(found) or found.startswith("_") or "/" in found:
        raise bad("invalid recordName")
    return found


def keys_wanted(found: object) -> frozenset[str] | None:
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise bad("desiredKeys")
    if unknown := set(found) - FIELDS.keys():
        raise bad(f"unknown field {sorted(unknown)}")
    return frozenset(found)


def fields(found: object) -> dict[str, Any]:
    """The values of a record's fields, by the schema."""
    if not isinstance(found, dict):
        raise bad("fields")
    values = {}
    for name, field in found.items():
        shape(field, {"value": object}, {"type": str})
        if name not in FIELDS:
            raise bad(f"Cannot create or modify unknown field {name} of the record type in production schema")
        if field.get("type", FIELDS[name]) != FIELDS[name]:
            raise bad(f"wrong type of field {name}")
        if not isinstance(field["value"], PYTHON[FIELDS[name]]) or isinstance(field["value"], bool):
            raise bad(f"wrong value of field {name}")
        values[name] = field["value"]
    return values


def prefix_of(query: object) -> str:
    """The prefix a query asks for: the only filter this container has an index for, and the order likewise."""
    found = shape(query, {"recordType": str}, {"filterBy": list, "sortBy": list})
    if found["recordType"] != RECORD_TYPE:
        raise bad(f"did not find record type: {found['recordType']}")
    for order in found.get("sortBy", []):
        shape(order, {"fieldName": str}, {"ascending": bool})
        if order["fieldName"] not in SORTABLE:
            raise bad(f"Field '{order['fieldName']}' is not marked sortable")
    if not found.get("filterBy"):
        return ""
    if len(found["filterBy"]) != 1:
        raise bad("number of conditions")
    condition = found["filterBy"][0]
    shape(condition, {"comparator": str, "fieldName": str, "fieldValue": dict})
    if condition["fieldName"] not in QUERYABLE:
        raise bad(f"Field '{condition['fieldName']}' is not marked queryable")
    value = shape(condition["fieldValue"], {"value": str}, {"type": str})
    if condition["comparator"] != "BEGINS_WITH" or value.get("type", "STRING") != "STRING" or not value["value"]:
        raise bad("unknown comparator")
    return str(value["value"])
