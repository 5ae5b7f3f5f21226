"""Which addresses out of a reply are used."""

from __future__ import annotations

import pytest

from chatkeep.providers import base, icloud_places

APPLE = "https://api.apple-cloudkit.com"


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.216.34/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://10.1.2.3/x",
        "https://192.168.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1%25eth0]/x",
        "https://0.0.0.0/x",
        "https://user:password@93.184.216.34/x",
        "https:///x",
        "file:///etc/passwd",
        "ftp://93.184.216.34/x",
        "https://93.184.216.34:99999/x",
        "https://93.184.216.34/ x",
        "https://93.184.216.34/\r\nX: y",
        "https://93.184.216.34/" + "x" * 5000,
        "",
    ],
)
def test_addresses_that_are_never_used(url: str) -> None:
    with pytest.raises(base.Unavailable) as caught:
        icloud_places.allowed(url, APPLE)
    assert caught.value.params == {"reason": "address"}
    with pytest.raises(base.Unavailable):
        icloud_places.allowed(url, "http://127.0.0.1:9")


def test_addresses_that_are_used() -> None:
    assert icloud_places.allowed("https://93.184.216.34/B/a/${f}?o=1", APPLE) == "https://93.184.216.34/B/a/object?o=1"
    assert icloud_places.allowed("http://127.0.0.1:9/x", "http://127.0.0.1:9") == "http://127.0.0.1:9/x"
    with pytest.raises(base.Unavailable):
        icloud_places.allowed("http://127.0.0.1:10/x", "http://127.0.0.1:9")
