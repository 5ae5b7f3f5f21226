"""`chatkeep setup`: from nothing to backups that happen by themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from chatkeep.config.model import Config
from chatkeep.config.places import default_file
from chatkeep.daemon.cli import (
    ask,
    paper,
    setup_draft,
    setup_report,
    setup_search,
    setup_storage,
    setup_work,
    unit_files,
    user_services,
)
from chatkeep.daemon.cli.errors import ConfigDiffers, UnitNotOurs
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.frame import Command, Frame, pass_frame
from chatkeep.daemon.cli.init_command import Wishes as InitWishes
from chatkeep.daemon.cli.init_command import refuse_second
from chatkeep.daemon.cli.measures import printable
from chatkeep.daemon.cli.setup_draft import Asked, Candidate, Draft
from chatkeep.daemon.cli.setup_plan import Name, State, Step, Wanted, plan
from chatkeep.daemon.cli.setup_storage import SecretFiles, Storing, secret_files
from chatkeep.daemon.cli.setup_work import Work
from chatkeep.daemon.cli.unit_files import Standing
from chatkeep.daemon.cli.unlocking import patience_option


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says. None where a person is to be asked, if there is one."""

    sources: tuple[Path, ...]
    all_found: bool
    store: Path | None
    type: str | None
    settings: tuple[str, ...]
    secret_files: tuple[str, ...]
    replace_config: bool
    key_file: Path | None
    passkey: bool | None
    security_key: bool
    unit: bool | None
    linger: bool | None
    backup: bool
    yes: bool
    dry_run: bool
    remove_unit: bool
    passkey_timeout: int

    @property
    def storing(self) -> Storing:
        """What is said of where it is stored."""
        return Storing(self.store, self.type, self.settings, self.secret_files)


_PATH = click.Path(path_type=Path)


@click.command(cls=Command, short_help="Set everything up, from nothing to a first backup.")
@click.option("--source", "sources", metavar="DIR", type=_PATH, multiple=True, help="Keep this directory. Repeatable.")
@click.option("--all-found", is_flag=True, help="Keep every chat application that is found.")
@click.option("--store", metavar="FOLDER", type=_PATH, help="Store the backup in this directory.")
@click.option("--type", metavar="TYPE", help="Store it elsewhere: s3, webdav, gdrive, icloud, opendal.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A key of that type. Repeatable.")
@click.option(
    "--secret-file",
    "secret_files",
    metavar="[KEY=]F",
    multiple=True,
    help="Keep the secret in F, - or /dev/fd/N, in a file beside the configuration.",
)
@click.option("--replace-config", is_flag=True, help="Write a new configuration. The old one is kept beside it.")
@click.option(paper.OPTION, "key_file", metavar="F", type=_PATH, help="Write the recovery key to this new file.")
@click.option("--passkey/--no-passkey", default=None, help="Add a passkey in the browser, or not.")
@click.option("--security-key", is_flag=True, help="Add a passkey on a security key plugged in here.")
@click.option("--unit/--no-unit", default=None, help="Install the service that backs up by itself, or not.")
@click.option("--linger/--no-linger", default=None, help="Have the service run while you are logged out, or not.")
@click.option("--backup/--no-backup", default=True, help="Take the first snapshot, or leave it for later.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing; what no option says is left at its default.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--remove-unit", is_flag=True, help="Stop the service and remove its unit, and nothing else.")
@patience_option
@pass_frame
def setup(frame: Frame, /, **options: Any) -> int:
    """Set everything up, from nothing to a first backup.

    Looks for chat applications, writes the configuration, makes the vault with its recovery key and a passkey, takes
    the first snapshot, and installs the service. What is done already is left as it is: run it again whenever you like.
    """
    wishes = Wishes(**options)
    _check(wishes)
    if wishes.remove_unit:
        return _remove_unit(frame, dry_run=wishes.dry_run)
    file = Path(os.path.abspath(frame.config_file)) if frame.config_file is not None else default_file()
    with secret_files(file.parent) as files:
        return _set_up(frame, wishes, file, files)


def _set_up(frame: Frame, wishes: Wishes, file: Path, files: SecretFiles) -> int:
    asks = ask.has_terminal() and not wishes.yes and not frame.out.as_json
    there = os.path.lexists(file)
    seen = _search(frame)
    if there and not wishes.replace_config:
        draft, config = None, frame.config()
        _require_same(file, config, wishes)
    else:
        draft = _draft(frame, wishes, file, seen, files, asks=asks)
        config = draft.config
    # Where XDG_CONFIG_HOME leads elsewhere, the service manager may not know of it.
    named = file if file != Path.home() / ".config/chatkeep/chatkeep.yaml" else None
    facts = setup_work.look(config, configured=there, named=named)
    steps = plan(facts, Wanted(wishes.replace_config, wishes.backup, wishes.unit))
    init = _init_wishes(frame, config, wishes, asks=asks, needed=not facts.vault)
    shown = setup_report.Shown(config, file, draft.text if draft is not None else None, seen)
    if wishes.dry_run:
        frame.out.result(setup_report.planned(shown, steps), *setup_report.plan_lines(frame.out, shown, steps))
        return Exit.DONE
    if asks and any(step.state is State.TO_DO for step in steps):
        _agree(frame, shown, steps)
    work = Work(frame, config, shown.text, file, named is not None, init, lambda: _linger(frame, wishes, asks=asks))
    work.apply(steps)
    if any(step.name is Name.CONFIGURATION and step.state is State.DONE for step in work.steps):
        files.keep()
    frame.out.result(setup_report.value(shown, work), *setup_report.lines(frame.out, shown, work))
    impossible = any(step.name is Name.SERVICE and step.state is State.IMPOSSIBLE for step in steps)
    return worst([work.exit(), *([Exit.FAILED] if wishes.unit and impossible else [])])


def _check(wishes: Wishes) -> None:
    others = (wishes.sources, wishes.all_found, wishes.storing.word, wishes.replace_config, wishes.key_file)
    if wishes.remove_unit and any(others):
        raise click.UsageError("--remove-unit goes with no other option than --dry-run.")
    if wishes.passkey is False and wishes.security_key:
        raise click.UsageError("--no-passkey and --security-key contradict each other.")


def _search(frame: Frame) -> list[Candidate]:
    with frame.out.progress() as step:
        step("Looking for chat applications", 0, None)
        return setup_draft.candidates(setup_search.find(setup_search.bases()))


def _draft(
    frame: Frame, wishes: Wishes, file: Path, seen: Sequence[Candidate], files: SecretFiles, *, asks: bool
) -> Draft:
    found = [one.finding for one in seen]
    asked = Asked(wishes.sources, wishes.all_found, wishes.storing, files, tries=not wishes.dry_run)
    if asks:
        return setup_draft.asked_for(frame.out, file, seen, asked)
    if not wishes.sources and not wishes.all_found:
        raise click.UsageError("Say what to keep: --all-found, or --source DIR.")
    return setup_draft.from_options(frame.out, file, found, asked)


def _require_same(file: Path, config: Config, wishes: Wishes) -> None:
    """What was asked for is in the configuration that is there. Raises ConfigDiffers."""
    sources = {os.path.realpath(source.path) for source in config.sources}
    lacking = [f"--source {path}" for path in wishes.sources if os.path.realpath(path.expanduser()) not in sources]
    lacking += setup_storage.lacking(config, wishes.storing)
    if lacking:
        raise ConfigDiffers(file=str(file), lacking=lacking)


def _init_wishes(frame: Frame, config: Config, wishes: Wishes, *, asks: bool, needed: bool) -> InitWishes:
    """How the vault is to be made. What would keep it from being made is told before anything is written."""
    passkey, passphrase = wishes.passkey, None if asks else False
    if passkey is None and not asks:
        passkey = False
    init = InitWishes(wishes.key_file, passkey, wishes.security_key, passphrase, None, patience=wishes.passkey_timeout)
    if needed:
        refuse_second(config)
        if not wishes.dry_run:
            init.check(frame.out)
        if wishes.key_file is not None:
            paper.require_new(wishes.key_file, first=True)
    return init


def _agree(frame: Frame, shown: setup_report.Shown, steps: Sequence[Step]) -> None:
    for line in setup_report.plan_lines(frame.out, shown, steps):
        frame.out.note(line)
    frame.out.note("")
    if not ask.agreed("Go on?", default=True):
        raise click.Abort


def _linger(frame: Frame, wishes: Wishes, *, asks: bool) -> bool:
    if wishes.linger is not None or not asks:
        return bool(wishes.linger)
    frame.out.note("\nThe service runs while you are logged in.")
    return ask.agreed("Is it to run from boot on as well, with nobody logged in?")


def _remove_unit(frame: Frame, *, dry_run: bool) -> int:
    """Stops the service and takes its unit away; what was backed up stays. Raises UnitNotOurs, SystemdFailed."""
    file = user_services.unit_file()
    raw = setup_work.read_unit(file)
    standing = unit_files.standing(raw, wanted=unit_files.NONE)
    if standing in {Standing.FOREIGN, Standing.EDITED}:
        raise UnitNotOurs(path=str(file))
    shown = printable(str(file))
    if standing is Standing.ABSENT or dry_run:
        text = f"There is no unit at {shown}." if standing is Standing.ABSENT else f"Would remove {shown}."
        frame.out.result({"unit": file, "removed": False, "dry_run": dry_run}, text)
        return Exit.DONE
    manager = user_services.reachable()
    if manager:
        user_services.stop()
    file.unlink()
    if manager:
        user_services.reload()
    lines = [f"The service is stopped, and {shown} is gone. What was backed up stays."]
    if user_services.lingers():
        lines.append("Your other services still run from boot on. If nothing else needs that: loginctl disable-linger")
    frame.out.result({"unit": file, "removed": True, "dry_run": False}, *lines)
    return Exit.DONE
