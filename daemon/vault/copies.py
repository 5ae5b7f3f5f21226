"""The same object at several providers: any one that has it whole suffices, and what the others did is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.vault.errors import Malformed, MissingObject, Unreadable, VaultError, VaultLocked
from chatkeep.daemon.vault.fetch import get_bounded
from chatkeep.daemon.vault.names import ObjectName, parse
from chatkeep.daemon.vault.preference import in_order, why_it_rests
from chatkeep.providers.base import ObjectDamaged, ObjectNotFound, Provider, ProviderError

Made = TypeVar("Made")


MOST_FINDINGS: Final = 10_000
"""Findings kept. Storage can show a million objects that are nobody's; nobody reads a million findings."""


class Findings:
    """What was met in storage and ought not to be: in order, each once. The last of `MOST_FINDINGS` says that there are
    more."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], ChatkeepError] = {}

    def add(self, problem: ChatkeepError, **where: object) -> None:
        """Adds a problem; `where` (the provider, the object) goes to its parameters unless they are there."""
        for key, value in where.items():
            problem.params.setdefault(key, value)
        if len(self._found) >= MOST_FINDINGS - 1:
            problem = Malformed(what="findings", reason="too-many", limit=MOST_FINDINGS)
        self._found.setdefault((problem.code, repr(sorted(problem.params.items(), key=str))), problem)

    def __iter__(self) -> Iterator[ChatkeepError]:
        return iter(list(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)


def listed_names(providers: Sequence[Provider], prefix: str, most: int, findings: Findings) -> Iterator[ObjectName]:
    """The names of objects that each provider in turn lists below `prefix`, at most `most` of each.

    A provider that cannot be asked, or lists more, is a finding.

    Raises:
        ProviderError: none could be asked.
    """
    failure: ProviderError | None = None
    answered = False
    for provider in (providers[number] for number in in_order(providers)):
        if answered and (problem := why_it_rests(provider)) is not None:
            # A listing that is left out is as one that is old. Told here too: nobody else may have, and what is newest
            # without it may not be the newest.
            tell(findings, problem, provider)
            continue
        try:
            for count, found in enumerate(provider.list(prefix)):
                if count >= most:
                    findings.add(Malformed(what="listing", reason="too-many"), provider=provider.name, name=prefix)
                    break
                try:
                    name = parse(found.name)
                except Malformed:
                    continue  # no name of ours: somebody else's file
                yield name
            answered = True
        except ProviderError as exc:
            findings.add(exc, provider=provider.name)
            failure = failure or exc
    if failure is not None and not answered:
        raise failure


def first_whole(
    providers: Sequence[Provider],
    name: ObjectName,
    limit: int,
    check: Callable[[bytes], Made],
    findings: Findings,
) -> Made:
    """What `check` makes of the first copy it accepts; providers are asked in order, but those that rest at last.

    A copy that is refused, and a provider that cannot be asked, is a finding. A provider that has no copy is none: it
    may be behind.

    Raises:
        MissingObject: every provider was asked by name and has none. The only proof of absence there is.
        Unreadable: some copy was refused, or some provider could not be asked, and no other had it.
        VaultLocked: as `check` raised it.
    """
    reasons: dict[str, str] = {}
    asked = [providers[number] for number in in_order(providers)]
    while asked:
        refused = []
        for provider in asked:
            try:
                return check(get_bounded(provider, str(name), limit))
            except MissingObject:
                continue
            except VaultLocked:
                raise
            except (VaultError, ProviderError) as exc:
                # Damage on the way passes. It may be the only copy: those that came damaged are asked once more.
                refused += [provider] if isinstance(exc, VaultError) and provider.name not in reasons else []
                reasons[provider.name] = exc.code
                note(findings, exc, provider, name)
        asked = refused
    if reasons:
        raise Unreadable(name=str(name), reasons=reasons)
    raise MissingObject(str(name))


def note(findings: Findings, problem: VaultError | ProviderError, provider: Provider, name: ObjectName) -> None:
    """Adds what a provider did with an object."""
    if isinstance(problem, VaultError):
        findings.add(problem, provider=provider.name, name=str(name))
    elif isinstance(problem, (ObjectNotFound, ObjectDamaged)):
        findings.add(problem, provider=provider.name, object=str(name))
    else:
        tell(findings, problem, provider)


def tell(findings: Findings, problem: ProviderError, provider: Provider) -> None:
    """Adds that a provider is down. Without the object: it fails for every one, which is one thing to tell."""
    problem.params.pop("object", None)
    findings.add(problem, provider=provider.name)
