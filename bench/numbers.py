"""Medians, quantiles, and numbers as people read them. Pure."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

MIB = 1 << 20
GB = 10**9
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": GB, "TB": 10**12, "KIB": 1 << 10, "MIB": MIB, "GIB": 1 << 30}


def median(values: Sequence[float]) -> float:
    """The middle value; the mean of the two in the middle of an even number. ValueError for none."""
    if not values:
        raise ValueError("no values")
    return statistics.median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed. ValueError for none."""
    if not values or not 0 <= share <= 1:
        raise ValueError((len(values), share))
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def parse_size(text: str) -> int:
    """Bytes from `100MB`, `1.5 GB`, `512MiB`, `1000`. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is no size: say for instance 100MB or 1GB")
    return round(float(found[1]) * _UNITS[found[2].upper()])


def size(count: float) -> str:
    """Bytes with three digits: `412 B`, `49.2 kB`, `1.06 GB`."""
    for limit, unit in ((10**3, "B"), (10**6, "kB"), (GB, "MB"), (10**12, "GB")):
        if count < limit * 0.9995:
            return f"{count:.0f} B" if unit == "B" else f"{_three(count * 1000 / limit)} {unit}"
    return f"{_three(count / 10**12)} TB"


def seconds(value: float) -> str:
    """Seconds with about three digits."""
    return f"{value:.3f}" if value < 1 else _three(value)


def ratio(value: float) -> str:
    """`1.35 x`."""
    return f"{_three(value)} x"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
