"""The schema that docs/providers.md has people import is the one that objects need."""

from __future__ import annotations

import re
from pathlib import Path

from chatkeep.providers.icloud import RECORD_TYPE
from tests.support.fake_cloudkit import shapes

PAGE = Path(__file__).parents[3] / "docs" / "providers.md"


def test_the_schema_on_the_page() -> None:
    (found,) = re.findall(r"RECORD TYPE (\w+) \((.*?)\);", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = re.findall(r"^\s+(\w+)\s+([A-Z0-9]+)((?: [A-Z]+)*),$", found[1], re.MULTILINE)
    fields = {name: (kind, set(indexes.split())) for name, kind, indexes in lines if kind != "CREATE"}
    assert found[0] == RECORD_TYPE == shapes.RECORD_TYPE
    assert {name: kind for name, (kind, _) in fields.items()} == {
        name: kind.replace("ASSETID", "ASSET") for name, kind in shapes.FIELDS.items()
    }
    assert {name for name, (_, indexes) in fields.items() if "QUERYABLE" in indexes} == shapes.QUERYABLE
    assert {name for name, (_, indexes) in fields.items() if "SORTABLE" in indexes} == shapes.SORTABLE
    assert '"_world"' not in found[1]
