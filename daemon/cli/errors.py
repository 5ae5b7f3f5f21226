"""What a command refuses before the engine is asked.

CommandError
  AlreadySetUp        this device writes a vault already
  RecordsInTheWay     records of another vault lie in the state directory
  NotSetUp            no vault was made or joined on this device
  NoSuchSnapshot      no snapshot is meant by what was typed
  SeveralSnapshots    more than one is
  TargetInsideVault   a restore would write into the storage, or among this device's records
  ConfigDiffers       the configuration that is there does not say what setup was asked for
  NothingToKeep       setup was given no directory, and found none
  NoDaemon            none runs, and one is needed
  NotByDaemon         the daemon that runs does not do it so
  FileRefused         the system does not let a file be written that setup has to write
  UnitNotOurs         another unit of systemd has the name of ours
  SystemdFailed       systemd did not do what it was asked
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class CommandError(ChatkeepError):
    """A command cannot do what it was asked for."""

    code = "command-error"
    disposition = Disposition.NEEDS_USER


class AlreadySetUp(CommandError):
    """This device writes a vault already. Parameters: vault (hex), path of its credential."""

    code = "already-set-up"


class RecordsInTheWay(CommandError):
    """Records without a credential lie in the state directory: of a vault this device wrote. Parameter: path."""

    code = "records-in-the-way"


class NotSetUp(CommandError):
    """No vault was made or joined on this device. Parameter: path, where its credential would be."""

    code = "not-set-up"


class NoSuchSnapshot(CommandError):
    """No snapshot is meant by what was typed. Parameters: wanted, known (the newest one, in words)."""

    code = "no-such-snapshot"


class SeveralSnapshots(CommandError):
    """More than one snapshot is meant. Parameters: wanted, candidates (ways to name each)."""

    code = "several-snapshots"


class TargetInsideVault(CommandError):
    """A restore would leave plain files where the vault or the state is. Parameters: path, folder."""

    code = "target-inside-vault"


class ConfigDiffers(CommandError):
    """The configuration is there and does not have what setup was asked for. Parameters: file, lacking (options)."""

    code = "config-differs"


class NothingToKeep(CommandError):
    """There is nothing that setup could keep: nothing was named, nothing was found."""

    code = "nothing-to-keep"


class FileRefused(CommandError):
    """The system does not let a file be written. Parameters: path, errno."""

    code = "file-refused"


class UnitNotOurs(CommandError):
    """A unit of that name is there that was not written by setup. Parameter: path."""

    code = "unit-not-ours"


class SystemdFailed(CommandError):
    """A command of systemd failed. Parameters: command, said (its first line)."""

    code = "systemd-failed"


class NoDaemon(CommandError):
    """No daemon runs with this configuration's state directory."""

    code = "no-daemon"


class NotByDaemon(CommandError):
    """The daemon that runs does not do what an option asks for. Parameter: option."""

    code = "not-by-daemon"
