"""A WebDAV server that wants a login from somebody who gave none."""

from __future__ import annotations

import httpx
import pytest

from chatkeep.daemon.cli.telling import tell
from chatkeep.providers import base
from chatkeep.providers.webdav_wire import Password, Token, Wire


@pytest.mark.parametrize("credential", [None, Password("me", ""), Password("me", "wrong"), Token("wrong")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_password_that_was_not_given_is_not_called_wrong(status: int, credential: Password | Token | None) -> None:
    given = not (credential is None or (isinstance(credential, Password) and credential.empty))
    wire = Wire("cloud", "http://127.0.0.1/dav", credential)
    try:
        found = wire.refused(httpx.Response(status))
    finally:
        wire.close()
    if status == 403:
        assert type(found) is base.PermissionRefused
        return
    assert type(found) is base.CredentialRefused
    told = tell(found)
    assert ("was given no password" in told.text) is not given
    assert ("does not accept" in told.text) is given
    assert ("password_file" in told.remedy) is not given
