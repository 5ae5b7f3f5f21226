"""Faults that a test orders from the fake, and whether they happened."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Something that goes wrong with some requests.

    Attributes:
        on: the calls it happens to, such as "files.create", "upload.chunk", "token"; a "*" at the end stands for
            anything.
        status: answered in place of carrying the request out; 0: it is carried out.
        reason: in the error's JSON.
        retry_after: the header of that name.
        drop: the connection is cut instead of a reply, after the request was carried out.
        before: the same, and it was not.
        keep: of an upload's chunk, so many bytes arrive before the connection is cut.
        cut: the reply's body ends after so many bytes, before what its length says.
        change: what becomes of a body: of an upload before it is stored, of a download before it is sent.
        text: the body of the answer in place of the error's JSON.
        times: to how many requests; None: until it is taken back.
        after: so many requests pass first.
        fired: to how many it happened.
    """

    on: str
    status: int = 0
    reason: str = ""
    retry_after: str | None = None
    drop: bool = False
    before: bool = False
    keep: int | None = None
    cut: int | None = None
    change: Callable[[bytes], bytes] | None = None
    text: bytes | None = None
    times: int | None = 1
    after: int = 0
    fired: int = 0

    def concerns(self, call: str) -> bool:
        """Whether it is about calls of that kind."""
        return call.startswith(self.on[:-1]) if self.on.endswith("*") else call == self.on


@dataclass
class Faults:
    """Those that were ordered."""

    ordered: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, fault: Fault) -> Fault:
        """From now on. Returns the fault, whose `fired` tells."""
        with self.lock:
            self.ordered.append(fault)
        return fault

    def end(self) -> None:
        """Takes all back."""
        with self.lock:
            self.ordered.clear()

    def struck(self, call: str) -> Fault | None:
        """The fault that happens to this request."""
        with self.lock:
            for fault in self.ordered:
                if not fault.concerns(call) or fault.times == 0:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                fault.fired += 1
                return fault
        return None
