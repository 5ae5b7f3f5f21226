"""The keys of each type of provider, and where types come from: those that are built in, and installed packages.

A built-in type is a class of options here and a row in `BUILT_IN_OPTIONS`, with a row of the same word in
`chatkeep.providers.registry.BUILT_IN`. A package of somebody else registers under the entry point group
`chatkeep.providers` an object whose `options` is such a class.

No key holds a secret. A key that names a file with one is marked `secret=True`: it also takes `credential:NAME`. A
class variable `place` names the keys that say where things are stored: two providers that agree in them are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from chatkeep.config.amounts import Duration
from chatkeep.config.key import Key
from chatkeep.config.problems import Reason

_PRODUCT: Final = __name__.partition(".")[0]
if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = f"{_PRODUCT}.providers"
"""The entry point group under which packages register types of providers."""

# A URL without user and password in it, and without a space: https://host, and a path if it has one.
URL: Final = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"
# The same where a password goes along: plain http only to this machine itself.
SECURE_URL: Final = r"^(https://[^\s/?#@]+|http://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?)(/[^\s?#]*)?$"
# What is put in front of every object name: as object names are, with single slashes between and none at the ends.
PREFIX: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """A directory: a disk, a network mount, or a folder that another program synchronises."""

    path: Annotated[
        Path,
        Key(
            "The directory that holds the vault. chatkeep init makes it where its parent exists; nothing else does: a "
            "disk that is not mounted must not be mistaken for an empty one.",
            example="/mnt/backup/chatkeep",
        ),
    ]
    synced: Annotated[
        bool,
        Key(
            "Another program uploads this directory: iCloud Drive, Dropbox, Nextcloud, Syncthing. What it changes by "
            "itself, such as conflict copies and files taken off the disk, is then understood. That it has uploaded "
            "anything cannot be seen: a backup is handed over to it, no more."
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket of S3, at Amazon or at anybody who speaks its protocol: MinIO, R2, B2, Wasabi, Ceph."""

    place: ClassVar[tuple[str, ...]] = ("endpoint", "bucket", "prefix")

    bucket: Annotated[
        str,
        Key(
            "The bucket. It must exist.",
            example="my-chats",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$",
        ),
    ]
    prefix: Annotated[
        str,
        Key("The folder within the bucket. Left out: the bucket itself.", example="laptop/chatkeep", pattern=PREFIX),
    ] = ""
    region: Annotated[str, Key("The region of the bucket, where the service has regions.", example="eu-central-1")] = ""
    endpoint: Annotated[
        str,
        Key(
            "The URL of the service when it is not Amazon's. No password belongs into it.",
            example="https://s3.example.org",
            pattern=URL,
            refused=Reason.BAD_URL,
        ),
    ] = ""
    style: Annotated[
        Literal["auto", "path", "virtual"],
        Key(
            "Where the name of the bucket stands in addresses: virtual in the host name, path behind it. auto: virtual "
            "at Amazon, path at an endpoint."
        ),
    ] = "auto"
    profile: Annotated[
        str,
        Key(
            "The profile in ~/.aws/credentials and ~/.aws/config. Left out: the environment, the default profile, or "
            "what the machine itself was given.",
            example="backup",
        ),
    ] = ""
    credentials_file: Annotated[
        Path | None,
        Key(
            "A file like ~/.aws/credentials that only this user may read (chmod 600), in place of the usual one.",
            example="~/.config/chatkeep/s3-credentials",
            secret=True,
        ),
    ] = None
    storage_class: Annotated[
        str, Key("The storage class of objects. Left out: the service's own.", example="STANDARD_IA")
    ] = ""
    retain: Annotated[
        Duration | None,
        Key(
            "Objects are locked for so long, and again before that ends while they are needed: nobody can delete them "
            "until then, whoever has the keys. Only in a bucket that was made with object lock.",
            example="30 days",
            least=Duration(60),
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class DriveOptions:
    """Google Drive. chatkeep providers login asks for access once."""

    place: ClassVar[tuple[str, ...]] = ("client_file", "token_file", "folder")

    client_file: Annotated[
        Path,
        Key(
            "The OAuth client of type Desktop app that you made in the Google Cloud console, as the JSON file it gives "
            "for it. Only this user may read the file (chmod 600).",
            example="~/.config/chatkeep/google-client.json",
            secret=True,
        ),
    ]
    folder: Annotated[
        str, Key("The folder in My Drive. chatkeep init makes it.", pattern=r"^[^/\x00-\x1f\x7f]{1,200}$")
    ] = "chatkeep"
    token_file: Annotated[
        Path | None,
        Key(
            "The file that holds the access which chatkeep providers login got. Left out: in the state directory.",
            example="~/.config/chatkeep/google-token.json",
            secret=True,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class CloudKitOptions:
    """iCloud, through a CloudKit container of your own: needs a membership of Apple's developer program."""

    place: ClassVar[tuple[str, ...]] = ("container", "environment", "endpoint")

    container: Annotated[
        str,
        Key(
            "The container.",
            example="iCloud.org.example.chatkeep",
            pattern=r"^iCloud\.[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$",
        ),
    ]
    key_id: Annotated[
        str,
        Key(
            "The id of the server-to-server key, as the CloudKit console shows it.",
            example="0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            pattern="^[0-9A-Fa-f]{16,128}$",
        ),
    ]
    key_file: Annotated[
        Path,
        Key(
            "The private part of that key, as PEM. Only this user may read the file (chmod 600).",
            example="~/.config/chatkeep/cloudkit-key.pem",
            secret=True,
        ),
    ]
    environment: Annotated[
        Literal["development", "production"],
        Key("Which of the two databases of the container: production, once its schema was deployed there."),
    ] = "production"
    endpoint: Annotated[
        str,
        Key("Another address than Apple's, for tests.", pattern=SECURE_URL, refused=Reason.BAD_URL),
    ] = "https://api.apple-cloudkit.com"


@dataclass(frozen=True, slots=True)
class WebdavOptions:
    """A WebDAV server: Nextcloud, Apache and others."""

    place: ClassVar[tuple[str, ...]] = ("url", "user")

    url: Annotated[
        str,
        Key(
            "The folder on the server. Its parent must exist. User and password do not belong into it.",
            example="https://cloud.example.org/remote.php/dav/files/me/chatkeep",
            pattern=SECURE_URL,
            refused=Reason.BAD_URL,
        ),
    ]
    user: Annotated[str, Key("The user's name there. Left out: nobody logs in.", example="me")] = ""
    password_file: Annotated[
        Path | None,
        Key(
            "A file that holds the password, better one made for this program alone (an app password). Only this user "
            "may read the file (chmod 600).",
            example="~/.config/chatkeep/webdav-password",
            secret=True,
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        Key(
            "A file that holds a token, for a server that wants one in place of user and password. Only this user may "
            "read the file (chmod 600).",
            example="~/.config/chatkeep/webdav-token",
            secret=True,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        Key(
            "Certificates (PEM) that the server is trusted by, in place of those that the system trusts.",
            example="~/.config/chatkeep/webdav-ca.pem",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class OpendalOptions:
    """Any service that OpenDAL carries: Dropbox, OneDrive, Azure Blob and many more."""

    place: ClassVar[tuple[str, ...]] = ("service", "options", "options_file")

    service: Annotated[
        str,
        Key("What OpenDAL calls the service.", example="azblob", pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$"),
    ]
    options: Annotated[
        Mapping[str, str],
        Key(
            "What OpenDAL's page of the service asks for, as it is called there. Secret ones belong into options_file.",
            example="container: chats",
            secrets="options_file",
        ),
    ] = field(default_factory=dict)
    options_file: Annotated[
        Path | None,
        Key(
            "A file that holds the rest of the options, the secret ones, as key=value lines. Only this user may read "
            "the file (chmod 600).",
            example="~/.config/chatkeep/opendal-options",
            secret=True,
        ),
    ] = None


# The word for `type` > the class of its options. The type itself stands in chatkeep.providers.registry.BUILT_IN.
BUILT_IN_OPTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "folder": FolderOptions,
        "gdrive": DriveOptions,
        "icloud": CloudKitOptions,
        "opendal": OpendalOptions,
        "s3": S3Options,
        "webdav": WebdavOptions,
    }
)


def entry_of(word: str) -> EntryPoint | None:
    """What an installed package registered under this word, not yet imported. A built-in type cannot be replaced."""
    if word in BUILT_IN_OPTIONS:
        return None
    # Imported when somebody asks for what is not built in: it takes longer than all the rest of a configuration.
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP, name=word)
    return next(iter(sorted(found, key=lambda entry: entry.value)), None)


class _Options(Mapping[str, type]):
    """The class of options of every type that can be used here. Asking for one of a package imports that package.

    Iterating imports nothing, so that a list of words is no reason to run anybody's code.
    """

    def __getitem__(self, word: str) -> type:
        if word in BUILT_IN_OPTIONS:
            return BUILT_IN_OPTIONS[word]
        entry = entry_of(word)
        if entry is None:
            raise KeyError(word)
        try:
            options = getattr(entry.load(), "options", None)
        except Exception as problem:  # whatever somebody else's module does when it is imported
            raise TypeUnusable(word, entry.value, type(problem).__name__) from problem
        if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
            raise TypeUnusable(word, entry.value, "no options")
        return options

    def __iter__(self) -> Iterator[str]:
        yield from BUILT_IN_OPTIONS
        from importlib.metadata import entry_points

        named = {entry.name for entry in entry_points(group=GROUP)}
        yield from sorted(named - set(BUILT_IN_OPTIONS))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and (word in BUILT_IN_OPTIONS or entry_of(word) is not None)


class TypeUnusable(KeyError):
    """A package registered a type that cannot be used: its import failed, or it is no type."""

    def __init__(self, word: str, place: str, cause: str) -> None:
        super().__init__(word)
        self.place, self.cause = place, cause


PROVIDER_OPTIONS: Final[Mapping[str, type]] = _Options()
