"""What can be wrong with the ways that problems are told. None of it stops a backup.

TellingError
  AddressRefused   the file that holds a URL cannot be used
  Undelivered      a notice did not get through
"""

from __future__ import annotations

from chatkeep.config.errors import ChatkeepError, Disposition


class TellingError(ChatkeepError):
    """A problem cannot be told in one of the ways that the configuration asks for."""

    code = "telling-error"


class AddressRefused(TellingError):
    """A file does not hold a URL that may be used. What it holds is in no parameter.

    Parameters: path; reason, one of
        missing     there is no such file
        unreadable  it cannot be read
        owner       it belongs to another user
        mode        others than its owner may read or write it
        kind        it is no ordinary file
        malformed   its first line is no http or https URL, or another is no header
    """

    code = "address-refused"
    disposition = Disposition.NEEDS_USER


class Undelivered(TellingError):
    """A notice did not get through; it is tried again.

    Parameters: channel; reason, one of
        absent       there is nobody to tell: no desktop
        unreachable  the other side cannot be connected to
        untrusted    it cannot prove who it is
        silent       it did not answer in time
        redirect     it sends us elsewhere, where nothing is sent
        refused      it does not want it; status: of HTTP
        failed       the program ended so; status: its exit status, negative of the signal that ended it
        start        the program could not be started; errno
    """

    code = "undelivered"
    disposition = Disposition.RETRY
