"""How it is with a provider, as this device's records have it: the words of `status` and `providers list`. Pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from chatkeep.daemon.cli.measures import counted
from chatkeep.daemon.cli.telling import tell_code

if TYPE_CHECKING:
    from chatkeep.config.model import Config, ProviderConfig
    from chatkeep.daemon.state.glance import ProviderGlance


class State(enum.StrEnum):
    """What comes first is what a person has to know first."""

    LOGIN_NEEDED = "login-needed"
    KEY_REFUSED = "key-refused"
    FAILING = "failing"  # the last upload failed for another reason
    NEEDS_MIRROR = "needs-mirror"  # what it lacks is on this device no more
    BEHIND = "behind"
    UNKNOWN = "not-known"  # this device's records were lost
    NOTHING = "nothing-sent"
    HANDED_OVER = "handed-over"  # to another program, which uploads it
    WHOLE = "whole"


DOORS: Final = {"login-needed": State.LOGIN_NEEDED, "storage-credential-refused": State.KEY_REFUSED}


def state(config: ProviderConfig, found: ProviderGlance, *, lost: bool = False) -> State:
    """How it is. `lost`: the records do not say what was backed up."""
    if found.last_error is not None:
        return DOORS.get(found.last_error, State.FAILING)
    if found.left_behind is not None:
        return State.NEEDS_MIRROR
    if found.waiting_objects:
        return State.BEHIND
    if found.last_success is None:
        return State.UNKNOWN if lost else State.NOTHING
    return State.HANDED_OVER if hands_over(config) else State.WHOLE


def hands_over(config: ProviderConfig) -> bool:
    """Whether another program uploads what is put there, so that nobody here sees it arrive."""
    return bool(getattr(config.options, "synced", False))


def handing_over(config: Config) -> frozenset[str]:
    """The names of providers that do."""
    return frozenset(one.name for one in config.providers if hands_over(one))


def short(config: ProviderConfig, found: ProviderGlance, behind: int, *, lost: bool = False) -> str:
    """How it is, in a few words, with the command that mends it."""
    name = config.name
    match state(config, found, lost=lost):
        case State.LOGIN_NEEDED:
            return f"log in again: chatkeep providers login {name}"
        case State.KEY_REFUSED:
            return f"refuses its key: chatkeep providers test {name}"
        case State.FAILING:
            code = found.last_error or ""
            return tell_code(code, name_provider=False, provider=name, reason="expected").text.removesuffix(".")
        case State.NEEDS_MIRROR:
            return f"needs a mirror: chatkeep mirror {name}"
        case State.BEHIND:
            return f"{counted(behind, 'snapshot')} behind"
        case State.UNKNOWN:
            return "what it has is not known here"
        case State.NOTHING:
            return "nothing was sent yet"
        case State.HANDED_OVER:
            return "everything was handed over"
    return "has everything"
