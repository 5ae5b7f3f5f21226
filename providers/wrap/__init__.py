"""Providers around a provider. Each is a `base.Provider`; none changes what a verb promises.

`Discreet` is around every provider that is opened: it keeps what libraries raised out of errors.
`Renewed` goes by a new key after an old one was refused.
`wrapped` puts together what every provider of a configuration gets: from inside out, `Daily` counts what really goes
out, `Narrow` lets so many calls through at a time, `Limited` keeps to the rates. `Retrying` goes around all of them, so
that each attempt is counted and waits its turn.
"""

from chatkeep.providers.wrap.assembly import wrapped
from chatkeep.providers.wrap.daily import Daily
from chatkeep.providers.wrap.discreet import Discreet
from chatkeep.providers.wrap.limited import Limited
from chatkeep.providers.wrap.narrow import Narrow
from chatkeep.providers.wrap.patience import Patience
from chatkeep.providers.wrap.renewed import Renewed
from chatkeep.providers.wrap.retrying import Retrying
from chatkeep.providers.wrap.unopened import Unopened

__all__ = [
    "Daily",
    "Discreet",
    "Limited",
    "Narrow",
    "Patience",
    "Renewed",
    "Retrying",
    "Unopened",
    "wrapped",
]
