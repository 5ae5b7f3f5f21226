"""A CloudKit that follows Apple's published protocol, strictly, for tests.

What it does not know it refuses with 400 and remembers in `refused`: a client that sends a key nobody documents fails
here, and would only perhaps fail there.
"""

from tests.support.fake_cloudkit.server import FakeCloudKit

__all__ = ["FakeCloudKit"]
