"""The steps of setup, done one after the other. What was done stands, and is told, whatever becomes of the next."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from chatkeep.config.document import MAX_BYTES
from chatkeep.config.errors import Cancelled, ChatkeepError
from chatkeep.daemon.cli import unit_files, user_services
from chatkeep.daemon.cli.errors import FileRefused, UnitNotOurs
from chatkeep.daemon.cli.exits import Exit, worst
from chatkeep.daemon.cli.frame import Frame
from chatkeep.daemon.cli.init_command import Wishes as InitWishes
from chatkeep.daemon.cli.provider_standing import handing_over
from chatkeep.daemon.cli.setup_plan import Facts, Name, State, Step, UnitFacts, Why
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.cli.unit_files import ForUser, Standing

if TYPE_CHECKING:
    from chatkeep.config.model import Config

OLD: Final = ".old"
MOST_UNIT: Final = 256 * 1024  # bytes; a longer file is not ours


@dataclass
class Work:
    """What is to be done, and what became of it.

    Attributes:
        text: the configuration to write; None when it is there. file: where.
        config_named: whether another configuration than the usual one was named, which a service has to be told.
        values: what each step says of itself, for --json. codes: how the command ends for each.
        steps: what became of each, in order. error: what ended it early.
    """

    frame: Frame
    config: Config
    text: str | None
    file: Path
    config_named: bool
    init: InitWishes
    linger: Callable[[], bool]
    values: dict[Name, Mapping[str, Any]] = field(default_factory=dict)
    codes: list[Exit] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    error: ChatkeepError | click.ClickException | None = None
    kept_old: Path | None = None

    def apply(self, plan: Sequence[Step]) -> None:
        """Does what is to do, until something fails or somebody stops it."""
        for number, step in enumerate(plan):
            if step.state is not State.TO_DO:
                self.steps.append(step)
                continue
            state = self._attempt(step)
            self.steps.append(Step(step.name, state, step.why))
            if state is not State.DONE:
                self.steps += plan[number + 1 :]
                return

    def exit(self) -> Exit:
        """The worst of all steps."""
        if isinstance(self.error, ChatkeepError):
            return worst([*self.codes, tell(self.error).exit])
        return worst([*self.codes, *([Exit.USAGE] if self.error is not None else [])])

    def _attempt(self, step: Step) -> State:
        does: dict[Name, Callable[[], State]] = {
            Name.CONFIGURATION: self._configuration,
            Name.VAULT: self._vault,
            Name.SNAPSHOT: self._snapshot,
            Name.SERVICE: lambda: self._service(step.why),
        }
        try:
            return does[step.name]()
        except (KeyboardInterrupt, click.Abort):
            self.error = Cancelled()
            return State.CANCELLED
        except Cancelled as exc:
            self.error = exc
            return State.CANCELLED
        except (ChatkeepError, click.ClickException) as exc:
            self.error = exc
            return State.FAILED

    def _configuration(self) -> State:
        assert self.text is not None
        from chatkeep.daemon.cli import by_daemon

        self.kept_old = write_config(self.file, self.text)
        if (daemon := by_daemon.daemon_of(self.config)) is not None:
            daemon.reload()  # it would go on with what was there before
        return State.DONE

    def _vault(self) -> State:
        from chatkeep.daemon.cli import init_command

        self._show("")
        outcome = init_command.perform(self.frame, self.config, self.init)
        self.values[Name.VAULT] = outcome.value
        self.codes.append(outcome.exit)
        self._show(*outcome.lines, "", *outcome.remarks)
        return State.DONE

    def _snapshot(self) -> State:
        from chatkeep.daemon.cli import backup_command
        from chatkeep.daemon.cli.backup_report import exit_of, lines_of, value_of

        self._show("", "Taking the first snapshot. It can be interrupted: the next one goes on.")
        report = backup_command.perform(self.frame, self.config)
        self.values[Name.SNAPSHOT] = value_of(report)
        self.codes.append(exit_of(report))
        self._show("", *lines_of(report, self.frame.out, handing_over(self.config)))
        if report.cancelled:
            self.error = Cancelled()
            return State.CANCELLED
        errors = [source.error for source in report.sources]
        if errors and all(errors):
            self.error = errors[0]
            return State.FAILED
        return State.DONE

    def _service(self, why: Why | None) -> State:
        file = user_services.unit_file()
        if why is not Why.EDITED:
            write_unit(file, wanted_unit(self.config, self.file if self.config_named else None))
        user_services.reload()
        user_services.start()
        # Known from here on: whatever becomes of the question that follows, the service runs.
        self.values[Name.SERVICE] = {"unit": file, "lingers": user_services.lingers()}
        if self.values[Name.SERVICE]["lingers"] is False and self.linger():
            user_services.linger()
            self.values[Name.SERVICE] = {"unit": file, "lingers": True}
        return State.DONE

    def _show(self, *lines: str) -> None:
        if not self.frame.out.as_json:
            for line in lines:
                self.frame.out.note(line)


def look(config: Config, *, configured: bool, named: Path | None) -> Facts:
    """What is there. `named`: the configuration, if not the usual one."""
    from chatkeep.daemon.service.device import is_set_up

    vault = is_set_up(config)
    unit = unit_facts(wanted_unit(config, named))
    return Facts(configured, vault, vault and _has_snapshots(config), unit)


def unit_facts(wanted: str) -> UnitFacts:
    """The service as it is."""
    standing = unit_files.standing(read_unit(user_services.unit_file()), wanted)
    if not user_services.reachable():
        return UnitFacts(False, standing, enabled=False, active=False)
    return UnitFacts(True, standing, user_services.enabled(), user_services.active())


def wanted_unit(config: Config, named: Path | None) -> str:
    """The unit for this user and what this configuration needs. `named`: its file; None for the usual one."""
    from chatkeep.config.model import FolderOptions

    stores = [one.options.path for one in config.providers if isinstance(one.options, FolderOptions)]
    state = os.environ.get("XDG_STATE_HOME", "")
    user = ForUser(
        user_services.own_command(),
        named,
        unit_files.out_of_reach([*stores, config.state_dir], Path.home()),
        # Set in a shell only, it would have the service look for its records elsewhere.
        {"XDG_STATE_HOME": state} if os.path.isabs(state) else {},
    )
    return unit_files.rendered(unit_files.shipped(), user)


def read_unit(file: Path) -> bytes | None:
    """What lies where the unit belongs; None when nothing does. What is no file of ours is read as foreign."""
    from chatkeep.providers.durable import read_bounded

    try:
        return read_bounded(file, MOST_UNIT)
    except FileNotFoundError:
        return b"" if os.path.islink(file) else None  # a link to nothing is how systemd masks a unit
    except OSError:
        return b""


def write_unit(file: Path, text: str) -> None:
    """Writes the unit. Raises UnitNotOurs, FileRefused."""
    from chatkeep.providers.durable import make_directories, write_durably

    if unit_files.standing(read_unit(file), text) in {Standing.FOREIGN, Standing.EDITED}:
        raise UnitNotOurs(path=str(file))
    with _refusals(file):
        make_directories(file.parent, 0o755)
        write_durably(file, text.encode(), mode=0o644)


def write_config(file: Path, text: str) -> Path | None:
    """Writes the configuration, for this user's eyes only. What was there is kept beside it under the name returned.

    A link is followed: whoever keeps his configuration elsewhere gets it there. Raises FileRefused.
    """
    from chatkeep.providers.durable import create_durably, make_directories, read_bounded, write_durably

    file = Path(os.path.realpath(file))
    old = None
    with _refusals(file):
        make_directories(file.parent)
        if file.exists():
            old = _free(file)
            create_durably(old, read_bounded(file, MAX_BYTES), mode=0o600)
            write_durably(file, text.encode(), mode=0o600)
        else:
            # Not to be replaced even if it came in this very moment.
            create_durably(file, text.encode(), mode=0o600)
    return old


@contextlib.contextmanager
def _refusals(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise FileRefused(path=str(file), errno=exc.errno) from exc


def _free(file: Path) -> Path:
    names = [file.with_name(f"{file.name}{OLD}"), *(file.with_name(f"{file.name}{OLD}-{n}") for n in range(2, 100))]
    return next(name for name in names if not os.path.lexists(name))


def _has_snapshots(config: Config) -> bool:
    """Whether every source has one, whole: of a first one that was interrupted the rest is still to be taken."""
    from chatkeep.daemon.state import StateDamaged, glance

    if not glance.exists(config.state_dir):
        return False
    with contextlib.suppress(StateDamaged), glance.Glance(config.state_dir) as seen:
        newest = {name: one.snapshot for name, one in seen.sources().items()}
        return all((made := newest.get(source.name)) is not None and made.complete for source in config.sources)
    return False
