"""Where a provider is, in words that hold no secret. Pure."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatkeep.config import storages
from chatkeep.config.proposal import short

if TYPE_CHECKING:
    from chatkeep.config.model import ProviderConfig

# What OpenDAL's services call the place; nothing else of their options is shown, since any may be a key.
_PLACES: Final = ("bucket", "container", "filesystem", "share_name", "root")


def place(config: ProviderConfig, home: Path | None) -> str:
    """One line; empty for a type of somebody else, whose keys are not known here. `home`: what `~` stands for, if it
    may stand for it."""
    options = config.options
    match options:
        case storages.FolderOptions():
            return short(options.path, home) if home is not None else str(options.path)
        case storages.S3Options():
            where = "/".join(filter(None, (options.bucket, options.prefix)))
            at = _host(options.endpoint) or options.region
            return f"{where} at {at}" if at else where
        case storages.DriveOptions():
            return f"My Drive/{options.folder}"
        case storages.CloudKitOptions():
            return f"{options.container}, {options.environment}"
        case storages.WebdavOptions():
            return _host(options.url) + urllib.parse.urlsplit(options.url).path.rstrip("/")
        case storages.OpendalOptions():
            named = [options.options[key].strip("/") for key in _PLACES if options.options.get(key, "").strip("/")]
            alone = named and not any(options.options.get(key) for key in _PLACES if key != "root")
            return " ".join(filter(None, (options.service, "/" * bool(alone) + "/".join(named))))
    return ""


def _host(url: str) -> str:
    """The host of a URL, without a user or a password that somebody may have put there."""
    parts = urllib.parse.urlsplit(url)
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.hostname}{port}" if parts.hostname else ""
