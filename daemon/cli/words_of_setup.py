"""What helps when storage refuses while it is being set up: there is no configuration yet, and no backup that waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chatkeep.daemon.cli.saying import AGAIN

ANEW: Final = "Nothing is set up yet: answer again, or run setup again."

# By code and reason; without a reason, for every other one.
REMEDIES: Final[Mapping[tuple[str, str], str]] = {
    ("storage-missing", ""): "Mount the disk, make the directory or bucket, or correct its name.",
    ("storage-missing", "bucket-name"): "Give another name: --set bucket=NAME, or answer again.",
    ("storage-missing", "moved"): "Give the new address: --set url=URL, or answer again. It is not followed by itself, "
    "because the password would go along.",
    ("storage-credential-refused", ""): "It is wrong, was revoked or has expired. Give another: --secret-file FILE, or "
    "answer again.",
    ("storage-credential-refused", "none"): "Give one: --secret-file FILE, or answer again. It may also come from the "
    "environment, from ~/.aws, or be given to the machine.",
    ("storage-credential-refused", "anonymous"): "Give both: --set user=NAME and --secret-file password_file=FILE, or "
    "answer again.",
    ("login-needed", ""): "At a terminal, setup has you log in next.",
    ("login-needed", "never"): "At a terminal, setup has you log in next.",
    ("quota-exceeded", ""): "Free some room or get more.",
    ("clock-refused", ""): "Set the clock.",
    ("permission-refused", "no-lock"): "Make a bucket with it, or leave retain out.",
    ("opendal-service-unknown", ""): "Give one that it carries: --set service=NAME, or answer again. There are: "
    "{available}",
    ("secret-file-refused", "no-credentials"): "Give a file: --secret-file FILE.",
}
_ADDRESS: Final = f"See that this machine is online, and that the address is right. {ANEW}"
_UNREACHABLE: Final = ("no-connection", "EndpointConnectionError", "ConnectError", "ConnectionRefusedError", "gaierror")


def remedy(code: str, reason: str, otherwise: str) -> str:
    """What helps there, with parameters in braces; `otherwise` is what helps everywhere else."""
    if code == "unavailable" and reason in _UNREACHABLE:
        return _ADDRESS
    if code == "unavailable" and reason in ("no-answer", "reply"):
        return f"A network that wants you to log in first does that; so does a wrong address. {ANEW}"
    return REMEDIES.get((code, reason)) or REMEDIES.get((code, "")) or otherwise.replace(AGAIN, ANEW)
