"""The command `chatkeep`: what every command has in common, from the first word to the exit code.

Everything heavy is imported by the command that needs it: `--help`, `--version` and `config` start in the time that
Python and click take.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence

import click

from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.frame import Frame, Group, Later
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.output import Output, OutputLost, ReaderLeft, plain
from chatkeep.daemon.cli.stopping import interruptible
from chatkeep.daemon.cli.telling import Told, tell

_CLI = "chatkeep.daemon.cli"
# Full, read-only, forbidden, failing, too many files: facts about the machine, not mistakes of ours.
_OF_THE_SYSTEM = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EMFILE,
        errno.EBADF,
    }
)
COMMANDS = {
    "setup": Later(f"{_CLI}.setup_command", "setup", "Set everything up, from nothing to a first backup."),
    "init": Later(f"{_CLI}.init_command", "init", "Make the vault, its recovery key, and a passkey."),
    "backup": Later(f"{_CLI}.backup_command", "backup", "Back up what changed. Needs no secret."),
    "unlock": Later(f"{_CLI}.unlock_command", "unlock", "Open the vault for a while: one secret for many commands."),
    "lock": Later(f"{_CLI}.unlock_command", "lock", "Close the vault again."),
    "run": Later(f"{_CLI}.run_command", "run", "Run the daemon, in the foreground."),
    "status": Later(f"{_CLI}.status_command", "status", "Show how things stand."),
    "snapshots": Later(f"{_CLI}.snapshots_command", "snapshots", "List the snapshots."),
    "ls": Later(f"{_CLI}.browse_commands", "ls", "List what is in a snapshot."),
    "cat": Later(f"{_CLI}.browse_commands", "cat", "Write a file of a snapshot to standard output."),
    "restore": Later(f"{_CLI}.restore_command", "restore", "Restore a snapshot into a directory."),
    "verify": Later(f"{_CLI}.verify_command", "verify", "Check that storage holds what was sealed."),
    "drill": Later(f"{_CLI}.drill_command", "drill", "Restore on trial, and prove what comes back."),
    "prune": Later(f"{_CLI}.prune_command", "prune", "Let older snapshots go, as the retention policy has it."),
    "key": Later(f"{_CLI}.key_commands", "key", "The ways into the vault: list, add, remove; new keys."),
    "device": Later(f"{_CLI}.device_commands", "device", "The machines that write the vault: list, remove."),
    "mirror": Later(f"{_CLI}.mirror_command", "mirror", "Bring a provider up from another one."),
    "rebuild": Later(f"{_CLI}.rebuild_command", "rebuild", "Read back what is in the vault, after records were lost."),
    "join": Later(f"{_CLI}.join_command", "join", "Let this device write a vault that exists."),
    "providers": Later(f"{_CLI}.provider_commands", "providers", "The storage of the vault: list it, try it, log in."),
    "config": Later(f"{_CLI}.config_commands", "config", "Check the configuration, or learn to write it."),
    "doctor": Later(f"{_CLI}.doctor_command", "doctor", "Look for what is wrong with the set-up."),
    "reader": Later(f"{_CLI}.reader_command", "reader", "Print a program that restores without Chatkeep."),
}


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    number = version("chatkeep")
    ctx.ensure_object(Frame).out.result({"version": number}, f"chatkeep {number}")
    ctx.exit()


@click.group(cls=Group, later=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, callback=_version, help="Print the version.")
def cli() -> None:
    """End-to-end encrypted backup of a chat application's data, taken while it writes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (without the program's name) and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _fill_standard_streams()
    # Known before the line is parsed, so that an error of the parser comes out as JSON too.
    before_end = words[: words.index("--")] if "--" in words else words
    frame = Frame(out=Output(as_json="--json" in before_end))
    try:
        with interruptible():
            return _run(words, frame)
    except ReaderLeft:
        _let_go_of_output()
        return Exit.CANCELLED
    except OutputLost as lost:
        _let_go_of_output()
        frame.out.note(f"chatkeep: standard output: {os.strerror(lost.number)}.")
        return Exit.FAILED


def _fill_standard_streams() -> None:
    """Whoever started us may have closed some. The next file opened would get that number - a pack, a database - and
    every library that prints would write into it. Standard output is filled with what cannot be written: what is lost
    must not look as if it had been shown."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest free number
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.RawIOBase):
        # PYTHONUNBUFFERED, as in many containers. One write of a pipe may take less than it was given, for one when
        # the process was stopped meanwhile, and a stream without a buffer lets go of the rest without a word.
        # The stream itself is left as it is: whoever runs a command within another program goes on using it.
        raw = io.FileIO(sys.stdout.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), sys.stdout.encoding, sys.stdout.errors)


def _let_go_of_output() -> None:
    # What Python still holds would fail again, with a message, when it exits.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str], frame: Frame) -> int:
    try:
        code = cli.main(words, prog_name="chatkeep", standalone_mode=False, obj=frame)
        return worst([Exit(code) if isinstance(code, int) else Exit.DONE, frame.least])
    except click.exceptions.NoArgsIsHelpError as exc:
        if frame.out.as_json:
            return _report(frame.out, _usage(click.UsageError("Missing command.", exc.ctx)))
        frame.out.note(exc.format_message())
        return Exit.USAGE
    except click.ClickException as exc:
        return _report(frame.out, _usage(exc))
    except (click.Abort, KeyboardInterrupt):
        return _report(frame.out, tell(Cancelled()))
    except ChatkeepError as exc:
        return _report(frame.out, tell(exc))
    except (ReaderLeft, OutputLost):
        raise
    except OSError as exc:
        if exc.errno not in _OF_THE_SYSTEM:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _let_go_of_output()
        return _report(frame.out, _system(exc))
    except Exception as exc:
        if not frame.out.as_json:
            raise  # a mistake of ours: the traceback is the report
        frame.out.note("".join(traceback.format_exception(exc)))
        return _report(frame.out, Told("internal", f"{type(exc).__name__}", "", Exit.FAILED, {}))


def _usage(exc: click.ClickException) -> Told:
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "chatkeep"
    return Told("usage", exc.format_message(), f"See: {command} --help", Exit.USAGE, {})


def _system(exc: OSError) -> Told:
    """What the system refused, where nobody had a better word for it."""
    where = f"{printable(str(exc.filename))}: " if exc.filename is not None else ""
    return Told("system", f"{where}{os.strerror(exc.errno or 0)}.", "", Exit.FAILED, {"errno": exc.errno})


def _report(out: Output, told: Told) -> int:
    """The one place where an error becomes visible."""
    if out.as_json:
        error = {"code": told.code, "text": told.text, "remedy": told.remedy, "params": told.params}
        out.write(json.dumps({"error": error}, default=plain) + "\n")
    else:
        out.note(f"chatkeep: {told.text}" + (f"\n{told.remedy}" if told.remedy else ""))
    return told.exit


if __name__ == "__main__":
    sys.exit(main())
