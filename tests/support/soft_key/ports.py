"""The test's side of the desk: keys that another process holds, and the environment in which a command sees them.

with Ports(tmp_path) as ports:
    key = ports.key("one", pin="1234")
    subprocess.run([...], env={**os.environ, **ports.environment()})
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TOP = Path(__file__).parents[3]
PLUG = Path(__file__).parent / "plug"
VARIABLE = "TESTS_SOFT_KEYS"  # the directory whose sockets are the keys that are plugged in


class PluggedKey:
    """One key on the desk."""

    def __init__(self, ports: Ports, name: str) -> None:
        self._ports, self.name = ports, name

    def _do(self, act: str, **arguments: Any) -> Any:
        return self._ports.request({"do": act, "key": self.name, **arguments})

    def plug(self) -> None:
        """Puts it in."""
        self._do("plug")

    def pull(self) -> None:
        """Pulls it out."""
        self._do("pull")

    def pull_at(self, command: int) -> None:
        """Pulls it out when the n-th command from now on arrives."""
        self._do("pull_at", command=command)

    def person(self, **changes: Any) -> None:
        """Changes who touches it: touch (yes, deny, never), finger, patience (seconds), wrong_fingers (first)."""
        self._do("person", **changes)

    def pin_left(self, tries: int) -> None:
        """Somebody has used up the other ones."""
        self._do("pin_left", tries=tries)

    def lie(self, *lies: str) -> None:
        """Makes it dishonest: names of `acts.Lie`."""
        self._do("lie", lies=list(lies))

    def waits_for_touch(self, seconds: float = 20.0) -> bool:
        """Whether it blinks, at once or within so long."""
        return bool(self._do("waits", seconds=seconds))

    def export(self) -> list[dict[str, Any]]:
        """Its credentials."""
        exported: list[dict[str, Any]] = self._do("export")
        return exported

    def restore(self, exported: Sequence[Mapping[str, Any]]) -> None:
        """Credentials of another key."""
        self._do("restore", exported=list(exported))

    @property
    def state(self) -> dict[str, Any]:
        """What it saw: commands, pin_retries, uv_retries, blinked, pulled, told."""
        state: dict[str, Any] = self._do("state")
        return state


class Ports:
    """A machine's USB ports, and the process that holds the keys."""

    def __init__(self) -> None:
        # Not below a test's own directory: a socket's path has room for 107 bytes.
        self._directory = tempfile.TemporaryDirectory(prefix="keys-")

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.soft_key.desk", self._directory.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        self._directory.cleanup()
        if error is None:
            assert code == 0, "the keys' process failed"

    def key(self, name: str, pin: str | None = None, *, plugged: bool = True, **traits: Any) -> PluggedKey:
        """A new key; traits are those of `acts.Traits`."""
        self.request({"do": "make", "key": name, "pin": pin, "traits": traits})
        made = PluggedKey(self, name)
        if plugged:
            made.plug()
        return made

    def clear(self) -> None:
        """No key is left."""
        self.request({"do": "clear"})

    def environment(self) -> dict[str, str]:
        """With this a command, and what it starts, sees the keys."""
        path = [str(PLUG), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(part for part in path if part), VARIABLE: self._directory.name}

    def request(self, asked: dict[str, Any]) -> Any:
        """One request to the desk."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the keys' process ended at {asked['do']}"
        return json.loads(answer)
