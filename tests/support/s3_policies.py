"""The policies that docs/providers.md gives for keys of S3, read from there: what people copy is what is tested."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def put_only(bucket: str, prefix: str) -> dict[str, Any]:
    """Enough for backing up."""
    return _policy("put-only", bucket, prefix)


def full(bucket: str, prefix: str) -> dict[str, Any]:
    """Enough for everything."""
    return _policy("everything", bucket, prefix)


def _policy(word: str, bucket: str, prefix: str) -> dict[str, Any]:
    text = _PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- policy: {word} -->\s*```json\n(.*?)```", text, re.DOTALL)
    assert found, f"docs/providers.md has no policy {word}"
    policy: dict[str, Any] = json.loads(found[1].replace("my-chats", bucket).replace("laptop/chatkeep", prefix))
    return policy
