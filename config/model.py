"""The configuration as typed values.

These classes, and those of `running` and `storages`, are the one description of the file: the loader, the commented
example and the JSON Schema are all made from the annotations and the `Key` of each field. A new key is a new field,
nothing else.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from chatkeep.config.amounts import ALL, Amount, AtOnce, Duration
from chatkeep.config.key import Choose, Key, unwrap
from chatkeep.config.limits import Limit
from chatkeep.config.places import default_state_dir
from chatkeep.config.problems import Reason
from chatkeep.config.running import JobsConfig, OutboxConfig, SessionConfig, TellConfig, WatchConfig
from chatkeep.config.storages import PROVIDER_OPTIONS as PROVIDER_OPTIONS
from chatkeep.config.storages import FolderOptions as FolderOptions

# Names are shown, stored in snapshots and typed as arguments: nothing that looks like an option or a path, nothing
# invisible.
NAME: Final = r"^[^\s/\x00-\x1f\x7f-]([^/\x00-\x1f\x7f]{0,98}[^\s/\x00-\x1f\x7f])?$"
# Relative to the source and never out of it.
PATTERN: Final = r"^(?!/)(?!(.*/)?\.\.(/|$))[^\x00]+$"


Compression = Literal["auto", "off"]


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """The vault all sources are kept in."""

    name: Annotated[
        str,
        Key(
            "What this vault is called in messages and in the list of passkeys.", pattern=NAME, refused=Reason.BAD_NAME
        ),
    ] = "chatkeep"


@dataclass(frozen=True, slots=True)
class Source:
    """A directory that is kept. May be written as the path alone."""

    shorthand: ClassVar[str] = "path"

    path: Annotated[
        Path,
        Key(
            "The directory of the chat application: an absolute path, or one that begins with ~. Variables such as "
            "$HOME are not replaced.",
            example="~/.config/ExampleChat",
        ),
    ]
    name: Annotated[
        str,
        Key(
            "What the source is called in messages and commands. Left out: the last part of its path.",
            example="ExampleChat",
            pattern=NAME,
            refused=Reason.BAD_NAME,
        ),
    ] = ""
    exclude: Annotated[
        tuple[
            Annotated[str, Key("A pattern.", example="Cache/**", pattern=PATTERN, refused=Reason.BAD_PATTERN)],
            ...,
        ],
        Key(
            "What is left out, as patterns of paths from the source down: *.tmp means its top directory, **/*.tmp "
            "every level, Cache/ only a directory. * and ? match within one name, ** any number of names. A directory "
            "that matches takes everything below it with it."
        ),
    ] = ()
    compression: Annotated[
        Compression,
        Key(
            "auto compresses what becomes smaller by it. off never tries: more is stored, and sizes tell nothing of "
            "what is in a message or a name."
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", os.path.basename(os.path.normpath(self.path)))


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A place where the vault is stored. Each receives everything."""

    name: Annotated[
        str,
        Key(
            "What the provider is called in messages and commands. Must stay the same: what it already holds is "
            "remembered under its name.",
            example="disk",
            pattern=NAME,
            refused=Reason.BAD_NAME,
        ),
    ]
    type: Annotated[
        str,
        Key(
            "Which kind of storage it is. chatkeep config example --type KIND shows the keys of another kind; one that "
            "does not exist is answered with the list.",
            example="folder",
        ),
    ]
    options: Annotated[Any, Choose(by="type", table=PROVIDER_OPTIONS)]
    required: Annotated[
        bool,
        Key("A backup counts as done when every required provider holds it. false: this one may lag behind."),
    ] = True
    connections: Annotated[
        AtOnce, Key("So many calls to it are on their way at the same time at most: a number from 1 to 64.")
    ] = AtOnce(4)
    limit: Annotated[Limit, Key("How much of the line it may take.")] = Limit()
    memory: Path | None = field(default=None, compare=False, repr=False)
    """Where this device remembers what the provider must (`chatkeep.providers.memo`); None: nowhere. Not a key."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Which snapshots stay when chatkeep prune is run. The newest always does. By itself nothing is, see jobs.prune."""

    everything_for: Annotated[Duration, Key("So long every snapshot stays.")] = Duration(86_400)
    hourly: Annotated[
        Amount,
        Key(
            "Of so many hours that have a snapshot, counted back from the newest, one stays: a number, or all. Hours, "
            "days, weeks (from Monday), months and years are those of UTC.",
        ),
    ] = Amount(48)
    daily: Annotated[Amount, Key("The same of days.")] = Amount(30)
    weekly: Annotated[Amount, Key("The same of weeks.")] = Amount(26)
    monthly: Annotated[Amount, Key("The same of months.")] = Amount(24)
    yearly: Annotated[Amount, Key("The same of years.")] = ALL
    minimum: Annotated[Amount, Key("So many of the newest stay, however old they are.")] = Amount(24)
    grace: Annotated[
        Duration,
        Key(
            "Storage deletes what was pruned so long after it was told. Until then prune with another policy takes it "
            "back, and a restore that is running goes on.",
        ),
    ] = Duration(7 * 86_400)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a configuration was read from, so that what is found wrong later can still name its line."""

    file: Path = Path()
    marks: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # key path > line and column, from 1

    def mark(self, key: str) -> tuple[int, int] | tuple[None, None]:
        """Line and column of a key, or of the nearest thing around it that stands in the file."""
        while key:
            if key in self.marks:
                return self.marks[key]
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.marks.get("", (None, None))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the file says."""

    sources: Annotated[tuple[Source, ...], Key("The directories that are kept. At least one.")]
    providers: Annotated[tuple[ProviderConfig, ...], Key("Where the vault is stored. At least one.")]
    vault: Annotated[VaultConfig, Key("The vault that all sources are kept in.")] = VaultConfig()
    retention: Annotated[Retention, Key("Which snapshots stay when chatkeep prune is run.")] = Retention()
    watch: Annotated[WatchConfig, Key("When a source that changes is kept again.")] = WatchConfig()
    session: Annotated[
        SessionConfig, Key("How long the vault stays open after chatkeep unlock, and what waits for it.")
    ] = SessionConfig()
    outbox: Annotated[OutboxConfig, Key("What waits on this device to be uploaded.")] = OutboxConfig()
    jobs: Annotated[JobsConfig, Key("What the daemon does from time to time.")] = JobsConfig()
    tell: Annotated[TellConfig, Key("Who is told when something is wrong, and how.")] = TellConfig()
    state_dir: Annotated[
        Path,
        Key(
            "What this device remembers between backups, its key for writing, and what waits to be uploaded. Left out: "
            "$XDG_STATE_HOME/chatkeep. Never inside a source or a provider's folder.",
            example="~/.local/state/chatkeep",
        ),
    ] = field(default_factory=default_state_dir)
    rebuild_patience: Annotated[
        Duration,
        Key(
            "So long this device waits for chatkeep rebuild after its records were lost. Then chatkeep backup sends "
            "everything again."
        ),
    ] = Duration(86_400)
    origin: Origin = field(default_factory=Origin, compare=False, repr=False)

    @property
    def vault_name(self) -> str:
        """The name of the vault, for people."""
        return self.vault.name


@dataclass(frozen=True, slots=True)
class Shape:
    """One key of the file, read from the model. `field` is its name there: a word that Python keeps for itself stands
    with an underscore behind it."""

    name: str
    field: str
    type: Any
    key: Key
    required: bool
    default: object  # None for a required key


def shapes(model: type) -> tuple[Shape, ...]:
    """The keys of a mapping in the order of the model; those that depend on another key come from `choice`."""
    hints = typing.get_type_hints(model, include_extras=True)
    found = []
    for item in dataclasses.fields(model):
        bare, key = unwrap(hints[item.name])
        if key is not None:
            required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
            default = None if item.default is dataclasses.MISSING else item.default
            found.append(Shape(item.name.removesuffix("_"), item.name, bare, key, required, default))
    return tuple(found)


def made(model: type, values: Mapping[str, Any]) -> Any:
    """A model from the values of its keys; other fields under their own names."""
    fields = {shape.name: shape.field for shape in shapes(model)}
    return model(**{fields.get(name, name): value for name, value in values.items()})


def choice(model: type) -> tuple[str, Choose] | None:
    """The field of a model whose keys depend on the value of another key, with what it depends on."""
    for name, hint in typing.get_type_hints(model, include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Choose):
                return name, extra
    return None
