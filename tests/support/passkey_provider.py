"""A passkey provider for a tab: what the page asks of the browser is answered by fido2's client, unmodified, from an
authenticator in software. So a credential can be carried to another browser, or to the command line, with its PRF's
seed, which Chromium's own virtual authenticators never give away.

The page's own script runs as it is: only `navigator.credentials` is somebody else.
"""

from __future__ import annotations

import json
from typing import Any

from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.ctap import CtapDevice, CtapError

from tests.support.chromium import Tab, origin

# What a page gets in a browser for it: Web Authentication Level 3, sections 5.1.3 and 5.1.4. A browser says NotAllowed
# of nearly everything, so that a page learns nothing of the authenticators there are.
_SCRIPT = """(() => {
  const plain = (value) => {
    if (value instanceof ArrayBuffer) value = new Uint8Array(value);
    if (ArrayBuffer.isView(value)) {
      const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
      return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    }
    if (Array.isArray(value)) return value.map(plain);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
    return value;
  };
  const bytes = (text) => {
    const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return Uint8Array.from(raw, (letter) => letter.charCodeAt(0)).buffer;
  };
  const show = (object, shown) => {
    for (const [name, value] of Object.entries(shown)) Object.defineProperty(object, name, {value, enumerable: true});
    return object;
  };
  const credential = (json) => {
    const {response} = json;
    const of = Object.fromEntries(Object.entries(response)
      .filter(([, value]) => typeof value === "string").map(([key, value]) => [key, bytes(value)]));
    const shape = response.attestationObject ? AuthenticatorAttestationResponse : AuthenticatorAssertionResponse;
    const extensions = structuredClone(json.clientExtensionResults);
    if (extensions.prf && extensions.prf.results)
      extensions.prf.results = Object.fromEntries(
        Object.entries(extensions.prf.results).map(([key, value]) => [key, bytes(value)]));
    return show(Object.create(PublicKeyCredential.prototype), {
      id: json.id, rawId: bytes(json.rawId), type: json.type, authenticatorAttachment: json.authenticatorAttachment,
      response: show(Object.create(shape.prototype), {...of, getTransports: () => ["usb"]}),
      getClientExtensionResults: () => extensions, toJSON: () => structuredClone(json)});
  };
  const ask = (kind) => async (options) => {
    options.signal?.throwIfAborted();
    const aborted = new Promise((_, no) =>
      options.signal?.addEventListener("abort", () => no(options.signal.reason)));
    const asked = window.__passkeyProvider(kind, JSON.stringify(plain(options.publicKey)));
    const told = JSON.parse(await Promise.race([aborted, asked]));
    if (told.error) throw new DOMException(told.message, told.error);
    return credential(told);
  };
  navigator.credentials.create = ask("create");
  navigator.credentials.get = ask("get");
})();"""


class PasskeyProvider(UserInteraction):
    """Answers for a tab with the credentials of one device. `asked` counts what the page asked for.

    A device that is not asked for its PIN verifies by itself who holds it.
    """

    def __init__(self, device: CtapDevice, pin: str | None = None) -> None:
        self.device = device
        self.asked: list[str] = []
        self._pin = pin

    def serve(self, tab: Tab) -> None:
        """Is this tab's provider, from the next page on that it loads."""
        tab.context.expose_binding("__passkeyProvider", self._answer)
        tab.context.add_init_script(_SCRIPT)

    def request_pin(self, permissions: Any, rp_id: str | None) -> str | None:
        return self._pin

    def _answer(self, source: Any, kind: str, text: str) -> str:
        self.asked.append(kind)
        # The origin is the browser's word: the page that asks could say any.
        where = DefaultClientDataCollector(origin(source["frame"].url))
        try:
            client = Fido2Client(self.device, where, user_interaction=self)
            options = json.loads(text)
            made = (
                client.make_credential(options) if kind == "create" else client.get_assertion(options).get_response(0)
            )
        except ClientError as error:
            return json.dumps({"error": named(error), "message": f"{kind} was refused"})
        return json.dumps(_json(made))


def named(error: ClientError) -> str:
    """What a browser calls it."""
    if error.code == ClientError.ERR.BAD_REQUEST and error.cause is None:
        return "SecurityError"  # the relying party is not one of this page's
    if isinstance(error.cause, CtapError) and error.cause.code == CtapError.ERR.CREDENTIAL_EXCLUDED:
        return "InvalidStateError"
    return "NotAllowedError"


def _json(made: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(made), default=dict))
    results = found["clientExtensionResults"].get("prf", {}).get("results", {})
    if not results.get(
        "second", True
    ):  # the library says an empty list of what was not asked for; browsers say nothing
        del results["second"]
    return found
