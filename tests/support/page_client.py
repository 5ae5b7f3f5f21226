"""What a program without a browser can say to the page's server: one HTTP request, with any headers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def visit(port: int) -> dict[str, str]:
    """The headers of a browser that a person sends to the page."""
    fetch = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    return {"Host": f"localhost:{port}", **fetch}


def stamp(port: int) -> str:
    """The word in the page, which its script says when it begins."""
    page = request(port, "GET", "/", visit(port))
    assert page.status == 200
    found = re.search(r'<meta name="page" content="([\w-]{43})">', page.body.decode())
    assert found
    return found[1]


def honest(port: int, token: str) -> dict[str, str]:
    """The headers that the page's own script sends with its token."""
    return {
        "X-Page": stamp(port),
        "Host": f"localhost:{port}",
        "Origin": f"http://localhost:{port}",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
        "X-Token": token,
    }


def call(port: int, name: str, headers: Mapping[str, str], body: bytes = b"{}", address: str = "127.0.0.1") -> Reply:
    """Calls the page's API. Raises OSError or HTTPException when the connection is cut."""
    return request(port, "POST", f"/api/{name}", headers, body, address)


def request(
    port: int, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", address: str = "127.0.0.1"
) -> Reply:
    """Any request."""
    connection = http.client.HTTPConnection(address, port, timeout=PATIENCE)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for key, value in headers.items():
            connection.putheader(key, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()
