"""A software CTAP2 authenticator for tests, written from the specification and independent of the client's crypto."""

from tests.support.soft_key.acts import Lie, Traits
from tests.support.soft_key.authenticator import SoftAuthenticator
from tests.support.soft_key.credentials import Credential
from tests.support.soft_key.device import SoftCtapDevice
from tests.support.soft_key.ports import PluggedKey, Ports
from tests.support.soft_key.presence import Touch
from tests.support.soft_key.statuses import Status

__all__ = [
    "Credential",
    "Lie",
    "PluggedKey",
    "Ports",
    "SoftAuthenticator",
    "SoftCtapDevice",
    "Status",
    "Touch",
    "Traits",
]
