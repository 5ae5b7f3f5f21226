"""A Google Drive for tests, made from the published protocol: strict, with knobs, on the loopback interface."""

from tests.support.fake_drive.accounts import SCOPE
from tests.support.fake_drive.faults import Fault
from tests.support.fake_drive.server import HOSTS, FakeDrive
from tests.support.fake_drive.world import FOLDER, File

__all__ = ["FOLDER", "HOSTS", "SCOPE", "FakeDrive", "Fault", "File"]
