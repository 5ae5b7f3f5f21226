"""A command that is a ceremony with a security key and no more: `python -m tests.support.soft_key.command PLAN REPORT`.

PLAN is JSON: `deadline`, and `do`, a list of `["enrol", [credential...]]` and `["ask", [credential...], evaluation]`,
all in hex; a credential `made` is the one that was made. What happened goes to the file REPORT: events, answers, the
error, and everything that went through the channel and into the start of the other process. Events are also shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony import channel, client
from chatkeep.daemon.control.ceremony.events import Event, to_frame
from chatkeep.daemon.keys.passkey import Question


class Record:
    """Everything that a secret could have leaked into."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.answers: list[Any] = []
        self.error: dict[str, Any] | None = None
        self.wire = bytearray()
        self.started: list[str] = []
        self.pid = 0

    def watch(self) -> None:
        """Puts taps on the channel and on the start of the process."""
        send, receive, start = channel.Channel.send, channel.Channel._exactly, subprocess.Popen

        def sent(this: channel.Channel, frame: Any, secret: Any = None) -> None:
            self.wire += json.dumps(frame).encode() + bytes(secret or b"")
            send(this, frame, secret)

        def received(this: channel.Channel, size: int) -> bytearray:
            got = receive(this, size)
            self.wire += got
            return got

        def started(argv: list[str], **more: Any) -> Any:
            environment = more.get("env") or os.environ
            self.started += [*argv, *(f"{name}={value}" for name, value in environment.items())]
            made = start(argv, **more)
            self.pid = made.pid
            return made

        channel.Channel.send, channel.Channel._exactly = sent, received  # type: ignore[method-assign, assignment]
        subprocess.Popen = started  # type: ignore[misc, assignment]

    def tell(self, event: Event) -> None:
        frame = to_frame(event)
        self.events.append(frame)
        self.started.append(Path(f"/proc/{self.pid}/cmdline").read_text())
        sys.stdout.write(f"[{frame['event']}]\n")
        sys.stdout.flush()

    def save(self, path: str, echo: bool | None) -> None:
        plain = {"events": self.events, "answers": self.answers, "error": self.error}
        more = {"wire": self.wire.hex(), "started": self.started, "echo": echo}
        Path(path).write_text(json.dumps(plain | more))


def main() -> None:
    plan, report = json.loads(sys.argv[1]), sys.argv[2]
    record = Record()
    record.watch()
    try:
        with client.ChildCeremony(
            "security-key", vault="chats", user="chats", steps=3, tell=record.tell, deadline=plan["deadline"]
        ) as ceremony:
            made = b""
            for act, credentials, *evaluation in plan["do"]:
                ids = [made if each == "made" else bytes.fromhex(each) for each in credentials]
                if act == "enrol":
                    new = ceremony.enrol(ids)
                    made = new.credential
                    record.answers.append([new.credential.hex(), new.synced])
                else:
                    answer = ceremony.ask([Question(each, bytes.fromhex(evaluation[0])) for each in ids])
                    record.answers.append([answer.credential.hex(), bytes(answer.secret).hex()])
            ceremony.end()
    except ChatkeepError as error:
        record.error = {"code": error.code, **error.params}
    finally:
        echo = None
        if sys.stdin.isatty():
            echo = bool(termios.tcgetattr(0)[3] & termios.ECHO)
        record.save(report, echo)


if __name__ == "__main__":
    main()
