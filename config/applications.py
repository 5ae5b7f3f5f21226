"""Chat applications that are known, and where on Linux they keep what is worth keeping. Values, and pure rules on them.

Nothing is concluded from a name alone: a directory is an application's when the files that it cannot do without are
there. What an application fetches or computes again (caches of pages, shaders and pictures, logs, crash reports, the
link that says that it runs) is left out; what is merely not understood is kept.

Where each fact comes from stands beside it, as the thread or the source in which it can be looked up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

Listing = Mapping[str, bool]  # path below a directory, with slashes > whether it is a directory. No links in it.


class Base(enum.StrEnum):
    """What a place is counted from. XDG base directories and user directories, as they are on the machine."""

    HOME = "home"
    CONFIG = "config"
    DATA = "data"
    DOWNLOADS = "downloads"
    DOCUMENTS = "documents"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an application may keep its directory. The last part of `path` may be a pattern; `how` it came there."""

    base: Base
    path: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Application:
    """One application.

    Attributes:
        name: what its source is called. title: what people call it.
        marks: alternatives; of one of them every path must be there. A slash at the end means a directory, `*` any
            letters within one part.
        exclude: patterns as in the configuration.
        note: what a person has to know to be able to use what is restored; empty when there is nothing.
    """

    name: str
    title: str
    places: tuple[Place, ...]
    marks: tuple[tuple[str, ...], ...]
    exclude: tuple[str, ...] = ()
    note: str = ""


# Directories of Chromium, on which Electron's applications stand: Cache, Code Cache, GPUCache, DawnWebGPUCache and
# their like are made again when they are missing. Session data lies beside them, in other directories:
# https://www.electronjs.org/docs/latest/api/app#appgetpathname (userData, sessionData).
_ELECTRON: Final = (
    *("*Cache/", "Service Worker/*Cache*/", "Partitions/*/*Cache/", "Partitions/*/Service Worker/*Cache*/"),
    *("Crashpad/", "Crash Reports/", "logs/", "blob_storage/"),
    "Singleton*",  # SingletonLock and its two companions: which process runs now
)

# Flatpak gives every application an XDG tree of its own below ~/.var/app, snap one below ~/snap/NAME/current.
_SIGNAL = Application(
    "Signal",
    "Signal Desktop",
    (
        Place(Base.CONFIG, "Signal"),
        # github.com/tbvdm/sigtop issues 4 (snap) and 7 (flatpak); github.com/bepaald/signalbackup-tools issue 387
        Place(Base.HOME, ".var/app/org.signal.Signal/config/Signal", "flatpak"),
        Place(Base.HOME, "snap/signal-desktop/current/.config/Signal", "snap"),
        Place(Base.CONFIG, "Signal Beta", "beta"),
    ),
    (("config.json", "sql/db.sqlite"),),
    # temp, update-cache: app/attachments.ts in github.com/signalapp/Signal-Desktop
    (*_ELECTRON, "temp/", "update-cache/"),
    # github.com/signalapp/Signal-Desktop pull request 6849, issues 6944 and 7944: "key" in plain, or "encryptedKey" and
    # "safeStorageBackend". github.com/bepaald/signalbackup-tools issue 348: a move that worked, with the plain key.
    "Signal encrypts its database. The key is in config.json, which is kept; since version 7.16 a secret in this "
    "system's keyring locks that key. To use a restore on another machine, you need the keyring too: keep a copy of it "
    "(~/.local/share/keyrings, or kwalletd beside it). Without it, link Signal Desktop to your phone anew; it begins "
    "with little or no history then.",
)
_TELEGRAM = Application(
    "Telegram",
    "Telegram Desktop",
    (
        Place(Base.DATA, "TelegramDesktop"),
        # github.com/telegramdesktop/tdesktop issue 107: still used where it exists
        Place(Base.HOME, ".TelegramDesktop", "old place"),
        Place(Base.HOME, ".var/app/org.telegram.desktop/data/TelegramDesktop", "flatpak"),
        Place(Base.HOME, "snap/telegram-desktop/current/.local/share/TelegramDesktop", "snap"),
    ),
    (("tdata/key_datas",),),  # github.com/openwall/john issue 4387
    # github.com/telegramdesktop/tdesktop issues 7423 and 25194. temp_data stays: exports can end up in it.
    (
        *("tdata/user_data*/cache/", "tdata/user_data*/media_cache/", "tdata/emoji/", "tdata/dumps/"),
        *("log*.txt", "DebugLogs/"),
    ),
    "Telegram keeps chats on its servers. This directory holds your login, drafts and settings, and whoever restores "
    "it is logged in as you. To keep the messages themselves, export them: Settings, Advanced, Export Telegram data.",
)
_TELEGRAM_EXPORTS = Application(
    "Telegram-exports",
    "Telegram exports",
    (Place(Base.DOWNLOADS, "Telegram Desktop"),),
    # github.com/flathub/org.telegram.desktop pull request 58 (the folder), github.com/axisrow/tg_content_factory issue
    # 834 (what is in it). One chat makes ChatExport_DATE, the whole account DataExport_DATE.
    tuple(
        (f"{kind}Export_*/{file}",)
        for kind in ("Chat", "Data")
        for file in ("result.json", "messages.html", "export_results.html")
    ),
    (),
    "The folder also holds files that you saved from chats; they are kept too.",
)
_ELEMENT = Application(
    "Element",
    "Element",
    (
        Place(Base.CONFIG, "Element"),
        # github.com/flathub/im.riot.Riot issue 416, github.com/element-hq/element-web issue 16078
        Place(Base.HOME, ".var/app/im.riot.Riot/config/Element", "flatpak"),
        Place(Base.HOME, "snap/element-desktop/current/.config/Element", "snap"),
        Place(Base.CONFIG, "Element-Nightly", "nightly"),
    ),
    # The page of Element has the origin vector://vector. EventStore: its index of encrypted messages for searching.
    (("IndexedDB/vector_vector_0.indexeddb.leveldb/",), ("EventStore/", "Local Storage/", "IndexedDB/")),
    _ELECTRON,
    # github.com/element-hq/element-desktop issue 1019, github.com/element-hq/element-web issue 30160
    "Your server keeps the messages; this directory holds the keys of this login, locked with a secret of this "
    "system's keyring. On another machine it may not open: keep Element's own recovery key with your papers as well.",
)
_BEEPER = Application(
    "Beeper",
    "Beeper",
    # github.com/beeper/bridge-manager, cmd/bbctl/desktopauth.go: one more directory for each further profile
    (Place(Base.CONFIG, "BeeperTexts"), Place(Base.CONFIG, "BeeperTexts-*", "profile")),
    (("index.db", "account.db"),),
    _ELECTRON,
    "This directory holds your login as well: whoever restores it may be logged in as you. Keep Beeper's recovery key "
    "with your papers.",
)
_WHATSAPP_PHONE = Application(
    "WhatsApp-phone",
    "WhatsApp, copied from an Android phone",
    tuple(
        Place(base, name)
        for base in (Base.HOME, Base.DOCUMENTS, Base.DOWNLOADS)
        for name in ("WhatsApp", "com.whatsapp", "com.whatsapp.w4b", "Android/media/com.whatsapp")
    ),
    # Android/media/com.whatsapp/WhatsApp/Databases on the phone; the files named msgstore-increment are only parts.
    tuple(
        (f"{top}Databases/msgstore{dated}.db{kind}",)
        for top in ("", "WhatsApp/", "WhatsApp Business/")
        for dated in ("", "-20*")
        for kind in (".crypt1[245]", "")
    ),
    ("**/.trash/", "**/.Thumbs/"),
    # github.com/KnugiHK/Whatsapp-Chat-Exporter/wiki/Android-Usage
    "WhatsApp's databases are encrypted. Keep what opens them with your papers: the 64-digit key that the phone showed "
    "when end-to-end encrypted backup was turned on, or the file named key from a rooted phone.",
)
_WHATSAPP_EXPORTS = Application(
    "WhatsApp-exports",
    "WhatsApp exports",
    (
        *(
            Place(base, name)
            for base in (Base.HOME, Base.DOCUMENTS, Base.DOWNLOADS)
            for name in ("WhatsApp", "WhatsApp exports", "WhatsApp Chat*", "WhatsApp-Chat*")
        ),
    ),
    # github.com/rodrigogs/whats-reader pull request 25 (_chat.txt of iOS), github.com/mtln/chat-export issue 13
    (("_chat.txt",), *((f"WhatsApp{gap}Chat*.{kind}",) for gap in (" ", "-") for kind in ("txt", "zip"))),
)
_IMESSAGE = Application(
    "iMessage",
    "iMessage, copied from a Mac",
    tuple(
        Place(base, name)
        for base in (Base.HOME, Base.DOCUMENTS, Base.DOWNLOADS)
        for name in ("Messages", "iMessage", "Library/Messages")
    ),
    # ~/Library/Messages on a Mac: github.com/ReagentX/imessage-exporter
    (("chat.db", "Attachments/"),),
    ("Caches/", "**/.DS_Store"),
)

APPLICATIONS: Final[tuple[Application, ...]] = (
    _SIGNAL,
    _TELEGRAM,
    _TELEGRAM_EXPORTS,
    _ELEMENT,
    _BEEPER,
    _WHATSAPP_PHONE,
    _WHATSAPP_EXPORTS,
    _IMESSAGE,
)
"""Every application that is known, in the order in which they are shown."""


def recognised(application: Application, listing: Listing) -> bool:
    """Whether a directory with this in it is the application's for certain."""
    return any(all(_there(mark, listing) for mark in marks) for marks in application.marks)


def known_as(listing: Listing) -> Application | None:
    """The application that a directory is of, wherever it stands; None when it is none that is known."""
    return next((one for one in APPLICATIONS if recognised(one, listing)), None)


def worth_listing(applications: Iterable[Application], path: str) -> bool:
    """Whether what is below a directory (its path from the candidate down) can decide what the candidate is."""
    parts = path.split("/")
    return any(
        len(wanted) > len(parts) and all(map(fnmatchcase, parts, wanted))
        for application in applications
        for marks in application.marks
        for wanted in (mark.rstrip("/").split("/") for mark in marks)
    )


def source_name(application: Application, place: Place | None, taken: Sequence[str]) -> str:
    """A name for the source that none has yet: of the application, with how it was installed or a number if need be."""
    names = [application.name]
    if place is not None and place.how:
        names.append(f"{application.name}-{place.how.replace(' ', '-')}")
    return free_name(names, taken)


def free_name(names: Sequence[str], taken: Sequence[str]) -> str:
    """The first of the names that is not taken, else the first with the lowest number that is free."""
    numbered = (f"{names[0]}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (*names, *numbered) if name not in taken)


def _there(mark: str, listing: Listing) -> bool:
    wanted, directory = mark.rstrip("/").split("/"), mark.endswith("/")
    for path, is_directory in listing.items():
        parts = path.split("/")
        if is_directory is directory and len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
            return True
    return False
