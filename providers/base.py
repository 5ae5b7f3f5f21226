"""The contract of a provider, its errors, and the grammar of object names. All that an author of a provider must read.

An *object* is a name and an immutable run of bytes. A *provider* is one place that keeps objects: a folder, a bucket.
It knows nothing of packs, manifests or keys. What it is given is sealed, and it is
not trusted to return it unchanged: whoever reads an object checks it against the hash in its name or a signature.

What holds for every verb:

- **Threads.** Every verb may be called from any thread, several at once, for the same name too. A provider whose
  client cannot do that makes one client per thread; it does not serialise its callers.
- **Order.** Calls that run at once have none. A call that begins after a `put` or `delete` returned sees its effect,
  by `get` and `stat` in any process; by `list` perhaps later.
- **Cancellation.** A call that began runs to its end or to its own time-out; nothing interrupts it from outside.
  Callers ask whether to go on between two calls, which is often enough because objects are small (packs: 16 MiB).
- **Time-outs.** No call blocks for ever. The wait for a connection and the wait for the next byte in either direction
  are bounded (10 and 60 seconds where there is no reason for others), and a bound that passes is `Unavailable`. The
  whole of a call is not: a slow line that moves is not an error.
- **Retry.** A provider tries once. Trying again belongs to the wrapper `Retrying`, which trusts the disposition of the
  error. Every verb is idempotent so that it may: a reply that was lost is indistinguishable from a request that was.
  A client library's own retries are switched off: two loops multiply, and hide from the caller that the other side
  asked to be left alone.
- **A lost reply.** A put that failed may have been carried out. So a storage that refuses the next one because the
  name is taken (412, 409, EEXIST) has not said that there is a conflict: the provider looks at what stands under the
  name, and says `ObjectConflict` only of other bytes. Same bytes: done. The same holds for a client that repeats a
  request by itself and is refused the repetition. A storage that makes a second object of a second create (Drive)
  must be given an id that was recorded before the first.
- **Broken bodies.** A body that ends before the length that the reply announced is never returned and never taken for
  the end of the object. The provider asks for what is missing by a range, of the same version of the object where
  the storage has them, as long as each such request brings bytes; then it gives up with `Unavailable`.
- **Damage on the way.** A request carries the digest that this storage verifies, if it verifies one (`probe` finds
  out), and a digest that a reply reports of what was stored is compared. Otherwise a flipped bit is found by who reads.
- **Errors.** Nothing but a `ProviderError` leaves a provider (mistakes of the caller excepted). Library and system
  exceptions are translated where they are caught, `from` their cause. Parameters of every error: `provider`, the name
  it was opened under, `object`, where there is one, and plain facts such as `errno` or the status of a reply. Never a
  credential or a URL that carries one. Of the cause only types and numbers come out (`wrap.discreet`): libraries put
  addresses into texts, and keep whole requests.
- **Credentials that may only put** are enough for a backup, and a thief of them can then neither read nor delete. A
  taken name that may not be looked at is put again without a condition if it ends with the body's own SHA-256: the
  same bytes, which is right. Otherwise `PermissionRefused`. `probe` says what such a credential may, and does not fail.
- **The memo** that a provider is opened with (`memo.Memo`) keeps small facts that make it right after a restart: an id
  that was made before a create, how far an upload got. It is this device's alone and may be lost, and then only time
  and room may be lost with it: what is stored is found by asking the storage. No credential is written into it, but a
  token that a login gave.
- **Names** are checked on the way in, and on the way out of `list`: what storage holds under a name outside the grammar
  is somebody else's and is never handed to a caller, who would join it to a path.
- **Wrappers.** Retry, counting, limits are providers around a provider, never flags of one.

    ProviderError
      Unavailable        RETRY        no reply, a reply that makes no sense, or a passing failure of the other side
      Throttled          RETRY        asked to slow down, for a rate of requests too; `after` seconds if it said so
      ObjectNotFound     FATAL        asked for by its name, and the other side says it has none
      ObjectConflict     FATAL        other bytes are already stored under that name; they were left alone
      ObjectDamaged      FATAL        the object is there and cannot be read back whole
      QuotaExceeded      NEEDS_USER   no room: disk, quota or account. Whatever status it comes with (403, 413, 507)
      PermissionRefused  NEEDS_USER   not allowed: mode bits, read-only medium, credential, policy
        ObjectHeld         NEEDS_USER   this object may not be deleted yet: object lock
        CredentialRefused  NEEDS_USER   the key or password itself: wrong, revoked, expired
          LoginNeeded        NEEDS_USER   a person must log in again
      StorageMissing     NEEDS_USER   the place itself is gone: not mounted, bucket deleted
      ClientMissing      NEEDS_USER   the library that speaks to this storage is not installed
      SecretFileRefused  NEEDS_USER   the file of a credential: missing, readable by others, not in its form
      InvalidName        FATAL        outside the grammar, or one that this storage cannot hold
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from chatkeep.config.errors import ChatkeepError, Disposition

NAME_LIMIT = 200
"""Most characters in an object name. The longest of ours has 147; every file system and service allows 255 or more."""

# Lower case only: a service or a share that folds case would make two names one. No space, colon, backslash or
# non-ASCII: each is rewritten by some storage. A component does not begin with a dot, which covers `.` and `..` (out of
# the root) and hidden files (a folder's own temporary ones), nor end with one, which Windows shares strip.
_COMPONENT = r"[a-z0-9-](?:[a-z0-9.-]*[a-z0-9-])?"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_PREFIX = re.compile(rf"(?:{_COMPONENT}/)*(?:[a-z0-9-][a-z0-9.-]*)?", re.ASCII)


class ProviderError(ChatkeepError):
    """Storage did not do what it was asked. Raised as one of its children."""

    code = "provider-error"


class Unavailable(ProviderError):
    """No usable reply. The request may or may not have taken effect; repeating it settles that."""

    code = "unavailable"
    disposition = Disposition.RETRY


class Throttled(ProviderError):
    """The other side asks for fewer requests.

    Args:
        after: seconds to wait before the next one, as the other side said; None when it did not.
    """

    code = "throttled"
    disposition = Disposition.RETRY

    def __init__(self, *, after: float | None = None, **params: object) -> None:
        super().__init__(after=after, **params)
        self.after = after


class ObjectNotFound(ProviderError):
    """There is no object of that name. Said by the storage about this name, never concluded from a listing, nor from a
    status that a gateway before it can say as well: a 404 with a page of its own is `Unavailable` or `StorageMissing`.
    """

    code = "object-not-found"


class ObjectConflict(ProviderError):
    """Other bytes are stored under the name. Nothing was written.

    Names carry hashes, so this is damage or an attack, never a race between honest writers.
    """

    code = "object-conflict"


class ObjectDamaged(ProviderError):
    """The object exists and its bytes cannot be read back: a bad sector, fewer bytes than its own size."""

    code = "object-damaged"


class QuotaExceeded(ProviderError):
    """No room. A person frees some or buys more; waiting does not help."""

    code = "quota-exceeded"
    disposition = Disposition.NEEDS_USER


class PermissionRefused(ProviderError):
    """The storage is there and refuses: mode bits, a read-only medium, a credential without the right."""

    code = "permission-refused"
    disposition = Disposition.NEEDS_USER


class ObjectHeld(PermissionRefused):
    """The storage does not let this object be deleted now: object lock, a retention period, a legal hold.

    Apart from `PermissionRefused`, because others may be deleted, and nothing is wrong with the set-up.
    """

    code = "object-held"


class CredentialRefused(PermissionRefused):
    """The storage does not accept who asks: a wrong key or password, one that was revoked or has expired.

    Apart from `PermissionRefused`, where the storage knows who asks and does not let them: another remedy.
    """

    code = "storage-credential-refused"


class LoginNeeded(CredentialRefused):
    """What a login gave is no longer accepted, or there was none yet: `chatkeep providers login`, by a person."""

    code = "login-needed"


class StorageMissing(ProviderError):
    """The place itself is not there: a medium that is not mounted, a bucket that was deleted.

    Apart from `ObjectNotFound`, because an empty mount point must never be taken for an empty vault.
    """

    code = "storage-missing"
    disposition = Disposition.NEEDS_USER


class ClientMissing(ProviderError):
    """The library that speaks to this type of storage is not installed.

    Parameters: `type` as in the configuration, `package` that could not be imported, `extra` of Chatkeep that brings
    it.
    """

    code = "client-missing"
    disposition = Disposition.NEEDS_USER


class SecretFileRefused(ProviderError):
    """The file that holds a credential is not used.

    Parameters: `path`, `reason`: missing, unreadable, mode (others may read it), owner, kind (not a file), malformed.
    Never anything of what is in it.
    """

    code = "secret-file-refused"
    disposition = Disposition.NEEDS_USER


class InvalidName(ProviderError):
    """Not an object name (or not a prefix of one), or one this storage cannot hold."""

    code = "invalid-name"


def validate_name(name: str) -> str:
    """Returns `name` if it is an object name, or raises `InvalidName`.

    One or more components joined by single slashes; a component is made of a-z, 0-9, `-` and `.`, and neither begins
    nor ends with a dot; at most `NAME_LIMIT` characters in all.
    """
    if not is_name(name):
        raise InvalidName(object=name[: NAME_LIMIT + 1])
    return name


def is_name(name: str) -> bool:
    """Whether `name` is in the grammar of `validate_name`: for what a storage lists, where doubt is no error."""
    return len(name) <= NAME_LIMIT and _NAME.fullmatch(name) is not None


def validate_prefix(prefix: str) -> str:
    """Returns `prefix` if some object name could begin with it ("" and half a component included), or raises
    `InvalidName`.
    """
    if len(prefix) > NAME_LIMIT or _PREFIX.fullmatch(prefix) is None:
        raise InvalidName(object=prefix[: NAME_LIMIT + 1])
    return prefix


_NAMED_BY_HASH = re.compile(r"(?:.*[/-])?([0-9a-f]{64})", re.ASCII)


def named_sha256(name: str) -> str | None:
    """The SHA-256, in hex, that the name says its object has; None for a name that says nothing of it.

    It is what stands alone at the end, 64 digits after a slash or a hyphen: so the vault names all that is large. The
    caller of `put` vouches for it, so a provider need not hash the body a second time to declare its digest. One that
    does so, and is told that the digest is wrong, hashes the body to tell damage on the way (`Unavailable`) from a
    caller that was wrong (`ObjectDamaged`). It says nothing of what storage returns.
    """
    found = _NAMED_BY_HASH.fullmatch(name)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a storage says about an object without sending it.

    Attributes:
        name: the object name.
        size: its length in bytes.
        modified: when it was stored, in seconds since 1970 UTC by the storage's clock; None where it does not say.
    """

    name: str
    size: int
    modified: float | None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a storage was seen to do. Each field is the outcome of a request made by `probe`, not a claim of a manual:
    servers were measured that accept a condition and overwrite all the same.

    Attributes:
        exclusive_create: the storage itself refused a second put of other bytes under a name, so writers that race
            cannot replace each other's object. Where False, `put` compares first and a window remains.
        lists_at_once: an object showed in a listing right after its put.
        deletes: an object could be deleted, and was gone. False under object lock, or for a put-only credential.
        modified: `stat` tells when an object was stored.
        clock_ahead: seconds by which the storage's clock is ahead of this machine's (negative: behind), to about a
            second; None where it tells no time.
        free_bytes: room left, as the storage says; None where it does not.
        reads: objects can be read. False for a put-only credential, which is enough for backing up.
        lists: the place can be listed. False for a credential that may not.
        refuses_damage: the digest ("sha256", "md5", "crc32") by which the storage refused a body that did not match
            the one declared, in a request made to see that; None where a damaged body was stored, or none can be
            declared.
        reports_digest: the digest that the storage reported of what it had stored, and that was compared; None.
        versions: the place keeps what was overwritten or deleted, so room is not given back; None where it is not
            said.
        object_lock: the place can hold objects against deletion; None where it is not said.
        acknowledges: when `put` returns, the storage itself has the object. False where it was handed over to a client
            that uploads it some time, such as the folder of a sync client.
    """

    exclusive_create: bool
    lists_at_once: bool
    deletes: bool
    modified: bool
    clock_ahead: float | None
    free_bytes: int | None
    reads: bool = True
    lists: bool = True
    refuses_damage: str | None = None
    reports_digest: str | None = None
    versions: bool | None = None
    object_lock: bool | None = None
    acknowledges: bool = True


@runtime_checkable
class Adopts(Protocol):
    """What a provider may be besides: one that can take a file as it lies, without copying it."""

    def adopt(self, name: str, path: Path) -> bool:
        """Stores the file at `path` under `name`, as `put` stores bytes, by sharing the file instead of copying it.

        The file is durable, and nobody writes to it any more; its own name may go afterwards. False: nothing was
        done, because it cannot be shared or the name is taken: use `put`.

        Raises:
            ProviderError: as `put`.
        """
        ...


@runtime_checkable
class Paced(Protocol):
    """What a provider may be besides: one that lets its sending be slowed inside an object."""

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        """As `put`; calls `pace(n)` before each n <= 65536 bytes of the body leave, which may wait.

        What `pace` raises ends the put, as a broken connection would, and comes out of it unchanged. The time that it
        waits counts towards no time-out of the provider.
        """
        ...


@runtime_checkable
class Retains(Protocol):
    """What a provider may be besides: one whose storage holds objects against deletion, up to a time."""

    def retain(self, name: str, until: float) -> None:
        """Holds the object until `until` (seconds since 1970 UTC) at least. Never shortens: held for longer is done.

        Raises:
            ObjectNotFound: no object of that name.
            PermissionRefused: the place has no object lock, or the credential may not set it.
        """
        ...


@runtime_checkable
class Usage(Protocol):
    """What a provider may be besides: one that knows what a call costs."""

    def requests(self) -> Mapping[str, int]:
        """Requests made since it was opened, by a kind that the storage's price list knows ("put", "get", "list").

        Real ones: one put may take several.
        """
        ...


class Provider(Protocol):
    """One place that keeps objects. The module's page says what holds for every verb.

    Every verb may also raise `Unavailable`, `Throttled`, `PermissionRefused`, `StorageMissing` and `InvalidName`;
    the errors named below are those a caller plans for.
    """

    name: str
    """The name the configuration gives this provider; the `provider` parameter of its errors."""

    def put(self, name: str, body: bytes) -> None:
        """Stores `body` under `name`.

        On return the object is whole, survives a power cut, and a get of the name returns it. Killed or failed at any
        instant, a get finds either no object or all of it: never a part. Where the storage reports a digest or size of
        what it took, that was compared before returning.

        Idempotent: the same bytes under the same name again are done at once, also when several callers race, and
        when an earlier call failed after its bytes had arrived.

        Raises:
            ObjectConflict: other bytes are stored under the name. They stay.
            ObjectDamaged: something is stored under the name, and cannot be read to be compared. It stays. Or `body`
                is not what the name says (`named_sha256`), which a provider may find and need not look for.
            QuotaExceeded: no room. Nothing is left behind that counts against the room there is.
        """
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Returns bytes of the object: all of it, or `length` bytes from `offset`.

        `offset` < 0 asks for the last -offset bytes of the object (all of it when it is shorter); `length` then keeps
        the first of those. A range that passes the end yields what exists, which may be nothing; a range inside the
        object is never returned short, nor longer than asked.

        A get after a put of the same name by any writer whose put returned sees that object.

        Raises:
            ObjectNotFound: no object of that name.
            ObjectDamaged: it exists, and these bytes of it cannot be read.
            ValueError: a negative `length`.
        """
        ...

    def stat(self, name: str) -> ObjectStat:
        """Returns size and time of the object, as strongly consistent as `get`.

        Raises:
            ObjectNotFound: no object of that name.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yields the objects whose names begin with `prefix`, in no particular order, each once.

        The prefix may end inside a component; "" means all. The listing may be old: it can miss an object that was put
        and show one that was deleted. It never shows half an object, and **it is no proof of absence**: who must know
        asks `stat`. Pages of the listing are fetched as the iterator is drawn, so errors can come at any step; the
        iterator may be dropped half-way. Pages that bring nothing new any more end it (`paging`).
        """
        ...

    def delete(self, name: str) -> None:
        """Removes the object. On return a get of the name finds nothing, also after a power cut.

        Idempotent: an object that is not there is done. Only names that the caller knows from its own records or from
        signed ones are ever passed here, never names out of a listing alone.

        Raises:
            ObjectHeld: the storage keeps this one (object lock).
            PermissionRefused: it lets nothing be deleted (put-only credential, mode bits).
        """
        ...

    def probe(self) -> Capabilities:
        """Puts, reads, lists and deletes a small object under `probe/`, and returns what was seen.

        The first thing asked of a provider that a person configured: it raises the error that a backup would meet.
        The probe object's name is random, so probes do not meet; one that cannot be deleted stays and is harmless.
        """
        ...

    def close(self) -> None:
        """Gives back connections and threads. Twice is once. No verb is called afterwards."""
        ...
