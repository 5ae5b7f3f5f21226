"""Restores a Chatkeep vault without Chatkeep: for the day on which the project is gone.

Written from docs/format.md alone ([n] is its section n), it shares no code with Chatkeep. It needs Python 3.11 and
three packages:  pip install "cryptography>=50" blake3 "zstandard>=0.23"

    python3 chatkeep-reader.py VAULT                          which snapshots there are
    python3 chatkeep-reader.py VAULT TARGET                   restores the newest into a folder that is new or empty
    python3 chatkeep-reader.py VAULT TARGET --snapshot 12     an older one

VAULT is the vault's folder, or one with a copy of its objects, each a file under its name; it is only read. The key or
passphrase is asked for, or read from --key-file F or --passphrase-file F. A passkey needs a browser, which this program
has not; one on a security key opens the vault all the same, through libfido2: --passkeys says how, --prf-file F takes
the answer. With several devices or sources choose one: --device HEX, --source NAME, --stream HEX (its beginning will
do). Signatures, tags and ids are always checked; digests of pages are not, for ids prove more. What is missing or
damaged is told and left out, and the rest is restored, without owners, set-user-id bits, and attributes other than
`user.`.
Exit codes: 0 all is well, 2 usage, 3 no key, or it opens nothing, 4 storage or target, 5 damage was found, 6 stopped.
"""

from __future__ import annotations

import argparse
import getpass
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag

from chatkeep.daemon.cli.standalone.keys import recovery_key
from chatkeep.daemon.cli.standalone.passkeys import PASSKEY, answered, counted, slots_here, told
from chatkeep.daemon.cli.standalone.restore import restore
from chatkeep.daemon.cli.standalone.snapshots import Snapshot, snapshots
from chatkeep.daemon.cli.standalone.storage import Directory, Notes
from chatkeep.daemon.cli.standalone.strict import NoKey
from chatkeep.daemon.cli.standalone.vault import Vault

CHOICES = ("device", "source", "stream")
ENDINGS: tuple[tuple[type[BaseException], str, int], ...] = (  # what ended it, what is told of that, the exit code
    (NoKey, "", 3),
    (EOFError, "no key was given", 3),
    (OSError, "", 4),
    (KeyboardInterrupt, "stopped", 6),
    (InvalidTag, "it does not decrypt", 5),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, as the top of this file tells it. Returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    noted: list[str] = []

    def note(text: str) -> None:
        noted.append(text)
        sys.stderr.write(f"! {plain(text)}\n")

    try:
        storage = Directory(options.vault)
        if options.passkeys:
            sys.stdout.writelines(f"{line}\n" for line in told(storage, Notes(note)))
            return 5 if noted else 0
        kind, secret = ask_secret(storage, options)
        vault = Vault(storage, kind, secret, note)
        found = chosen(list(snapshots(vault)), options)
        if not options.target:
            for snapshot in found:
                sys.stdout.write(f"{plain(describe(snapshot))}\n")
        elif not found:
            parser.error("there is no such snapshot: see --list")
        elif len({(it.device, it.source) for it in found}) > 1 or (options.snapshot and len(found) > 1):
            parser.error("choose by --device, --source, --stream: see --list")
        else:
            newest = max(found, key=lambda it: (it.time, it.seq))
            restore(vault, newest, options.target)
            sys.stdout.write(f"snapshot {newest.seq} of {plain(newest.source)} is restored into {options.target}\n")
    except (Exception, KeyboardInterrupt) as problem:  # whatever hostile bytes make the code raise
        text, code = next((ending[1:] for ending in ENDINGS if isinstance(problem, ending[0])), ("", 5))
        sys.stderr.write(f"! {plain(text or str(problem) or type(problem).__name__)}\n")
        return code
    if noted:
        sys.stderr.write(f"! damaged or missing: {len(noted)}, told above; all else is as it was backed up\n")
    return 5 if noted else 0


def plain(text: str) -> str:
    """A line that does nothing to a terminal: names come from storage, or from whoever wrote a snapshot."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def make_parser() -> argparse.ArgumentParser:
    """What the program takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vault", metavar="VAULT")
    parser.add_argument("target", metavar="TARGET", nargs="?")
    parser.add_argument("--list", dest="target", action="store_const", const=None, help="as without TARGET")
    parser.add_argument("--snapshot", type=int, metavar="N")
    files = [(f"{name}-file", "F") for name in ("key", "passphrase", "prf")]
    for name, shown in (*files, ("device", "HEX"), ("source", "NAME"), ("stream", "HEX")):
        parser.add_argument(f"--{name}", metavar=shown)
    parser.add_argument("--passkeys", action="store_true", help="how a security key opens the vault")
    return parser


def ask_secret(storage: Directory, options: argparse.Namespace) -> tuple[str, bytes]:
    """The kind of the key slots to try, and the secret. Raises NoKey when a recovery key has a slip."""
    if options.prf_file:
        return PASSKEY, answered(Path(options.prf_file).read_bytes())
    path = options.key_file or options.passphrase_file
    if not path:
        here = slots_here(storage, Notes(lambda _: None))  # what is wrong with them is told when they are tried
        if any(slot.outer["kind"] == PASSKEY for slot in here):
            text = "A passkey cannot be used here: use the recovery key, or see --passkeys"
            sys.stderr.write(f"{text} ({counted(here)}).\n")
    text = Path(path).read_text("utf-8") if path else getpass.getpass("recovery key or passphrase: ")
    if options.key_file or (not path and re.fullmatch(r"\s*(\d[\s-]*){64}", text)):
        return "recovery-64", recovery_key(text)
    return "passphrase", text.removesuffix("\n").encode()


def chosen(found: list[Snapshot], options: argparse.Namespace) -> list[Snapshot]:
    """The snapshots that the options leave."""
    return [
        snapshot
        for snapshot in found
        if options.snapshot in (None, snapshot.seq)
        and all(getattr(snapshot, name).startswith(getattr(options, name) or "") for name in CHOICES)
    ]


def describe(snapshot: Snapshot) -> str:
    """A snapshot in a line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.time // 10**9))
    parts = [f"{snapshot.seq:6}", when, snapshot.source, f"{snapshot.totals[0]} files, {snapshot.totals[1]} bytes"]
    parts += [] if snapshot.complete else ["not complete"]
    return "  ".join([*parts, f"device {snapshot.device}", f"stream {snapshot.stream}"])


if __name__ == "__main__":
    sys.exit(main())
