"""Why nothing is pruned.

PruneError
  PruneRefused   something must be seen to first; parameter: reason
  PruneTooMuch   more would go than anybody means by accident; parameter: reasons
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class PruneError(ChatkeepError):
    """Nothing was pruned, and nothing was changed."""

    code = "prune"
    disposition = Disposition.NEEDS_USER


class PruneRefused(PruneError):
    """It is not safe to say what may be deleted. Parameter `reason`:

    `capsules`: sealed objects (`count`, the first is `object`) that do not open.
    `clock`: a storage's clock (`where`) and this device's are `minutes` apart.
    `storage`: what storage has of this device's snapshots is not what was sealed (`count` findings, the first is
    `finding`).
    `lost`: the same, and all of it is that snapshots that must live are in no storage; a person may give them up.
    `away`: they would be given up, and a storage cannot be asked: it may have them.
    `confirm`: they would be given up, and nobody said yes.
    `behind`: storage has other or newer snapshots of the source `source` than this device's records know.
    `records`: this device's records are lost or too old to be relied on.
    `epoch`: no storage that could be asked has the vault's newest keys that this device knows of.
    `outbox`: what waits to be uploaded is lost on this device.
    `device`: this device does not write the vault any more.
    """

    code = "prune-refused"


class PruneTooMuch(PruneError):
    """Parameter `reasons`: values of `retention.Alarm`."""

    code = "prune-too-much"
