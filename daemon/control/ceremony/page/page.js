// The browser's part of a ceremony: asks for the next gesture, has the browser make it, brings its outcome.
// The secret of a passkey goes from navigator.credentials into the body of one request, as raw bytes, and is overwritten
// here: it is never text, never part of an address, of this document, of the console or of an error.

const $ = (id) => document.getElementById(id);

const NO_PRF =
  "Use a security key with “hmac-secret” (most that speak FIDO2), or a current Chrome, Edge or Safari " +
  "with its own password manager. Then run the command again.";

// How it ended, by code and reason of the error, or by its code alone.
const ENDINGS = {
  "ceremony-cancelled": ["Cancelled", "Nothing was changed.", "You can close this tab."],
  "ceremony-timed-out": ["Time is up", "The passkey was not used in time.", "Run the command again in the terminal."],
  "already-enrolled": [
    "This device already has a passkey of this vault",
    "One is enough: a second one here would only replace it.",
    "For another way in, run the command again and choose another device.",
  ],
  "wrong-passkey": [
    "Not the right passkey",
    "It answered, and its key does not open this vault.",
    "Run the command again and choose another one, or use the recovery key.",
  ],
  "passkey-refused:no-prf": ["This passkey cannot open a vault", "What keeps it does not support PRF.", NO_PRF],
  "passkey-refused:unstable": [
    "This passkey cannot open a vault",
    "It gave two different keys when it was asked twice.",
    "Delete it, then run the command again with another device.",
  ],
  "passkey-refused": ["The passkey was refused", "What the browser sent is not to be trusted.", "See the terminal."],
  used: [
    "This link was opened before",
    "It works once, in one tab.",
    "If that was not you, somebody else saw it: press Ctrl-C in the terminal. Else run the command again.",
  ],
  reloaded: ["This page cannot be reloaded", "It works once, in one tab.", "Run the command again in the terminal."],
  worker: [
    "This page is not alone",
    "A program that had this address before left something in your browser that could read along. Nothing was sent.",
    "Press Ctrl-C in the terminal, close this tab, and run the command again.",
  ],
  gone: ["The command has ended", "Nothing is waiting for this page any more.", "Run it again in the terminal."],
  browser: ["This browser has no passkeys", "It is too old, or they are turned off.", NO_PRF],
  "": ["It did not work", "The terminal says why.", "You can close this tab."],
};

let ticket = ""; // what the server knows this tab by
const stamp = document.querySelector("meta[name=page]").content; // what the server knows this page by
let enrolling = false;
let made = null; // the id of the credential that was made here
let first = true; // nobody has pressed the button yet
let over = false;
let late = false; // the deadline has passed
let abort = null; // ends what the browser is asking for now

// ---- bytes ----

const fromText = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));

const toText = (buffer) => {
  let letters = "";
  for (const byte of new Uint8Array(buffer)) letters += String.fromCharCode(byte);
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
};

const wiped = (...buffers) => {
  for (const each of buffers) if (each) new Uint8Array(each.buffer ?? each).fill(0);
};

// ---- the server ----

async function post(name, body, type = "application/json") {
  const answer = await fetch(`/api/${name}`, {
    method: "POST",
    headers: { "Content-Type": type, "X-Token": ticket, ...(name === "begin" && { "X-Page": stamp }) },
    body,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
  });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}

const say = (what) => post("next", JSON.stringify(what));

// One body: the length of the JSON (4 bytes, big-endian), the JSON, the secret.
async function sayWithSecret(what, secret) {
  const text = new TextEncoder().encode(JSON.stringify(what));
  const body = new Uint8Array(4 + text.length + secret.byteLength);
  new DataView(body.buffer).setUint32(0, text.length);
  body.set(text, 4);
  body.set(new Uint8Array(secret), 4 + text.length);
  wiped(secret);
  try {
    return await post("next", body, "application/octet-stream");
  } finally {
    wiped(body);
  }
}

// ---- what is shown ----

function show(state, { title, status = "", detail = "", go = "", stop = false }) {
  document.body.dataset.state = state;
  if (title) $("title").textContent = title;
  $("status").textContent = status;
  $("detail").textContent = detail;
  $("go").textContent = go;
  $("go").hidden = !go;
  $("stop").hidden = !stop;
  document.title = `${title ?? $("title").textContent} · Chatkeep`;
}

function showVault({ vault, code, steps }) {
  enrolling = steps > 1;
  $("vault-name").textContent = vault;
  $("vault").hidden = false;
  for (const part of [code.slice(0, 3), code.slice(3)]) {
    const group = document.createElement("span");
    group.textContent = part;
    $("code").append(group);
  }
  $("compare").hidden = false;
  $("steps").hidden = !enrolling;
}

function showStep(number) {
  [...$("steps").children].forEach((item, at) => {
    item.classList.toggle("done", at + 1 < number);
    if (at + 1 === number) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
}

function end({ ok, code }) {
  if (over) return;
  over = true;
  abort?.abort();
  $("compare").hidden = true;
  if (ok) {
    showStep(4);
    show("done", {
      title: enrolling ? "Your passkey is ready" : "Unlocked",
      status: enrolling ? "It opens this vault from now on." : "",
      detail: enrolling ? "You can close this tab." : "The terminal goes on. You can close this tab.",
    });
  } else {
    $("steps").hidden = true;
    const [title, status, detail] = ENDINGS[code] ?? ENDINGS[code.split(":")[0]] ?? ENDINGS[""];
    show("over", { title, status, detail });
  }
  $("title").focus();
}

// ---- gestures ----

const TITLE = () => (enrolling ? "Add a passkey" : "Unlock the vault");

// Resolves when the person presses the button. A browser wants that before it shows its own window.
const pressed = () => new Promise((resolve) => $("go").addEventListener("click", resolve, { once: true }));

async function ready(step) {
  showStep(step.step);
  if (step.again) {
    show("failed", {
      title: TITLE(),
      status: "Cancelled, timed out, or not the right passkey.",
      detail: enrolling
        ? "The vault is as it was. You can also try another device."
        : "Without a passkey at hand: cancel, and use the recovery key in the terminal.",
      go: "Try again",
      stop: true,
    });
    $("go").focus();
    await pressed();
  } else if (first) {
    show("ready", {
      title: TITLE(),
      detail: enrolling
        ? "On this device, your phone or a security key. One touch makes it, two more check that it always gives the " +
          "same key."
        : "With the passkey of this device, your phone or a security key.",
      go: enrolling ? "Create the passkey" : "Unlock with a passkey",
      stop: true,
    });
    await pressed();
  }
  first = false;
  const status =
    step.do === "create"
      ? "Follow your browser: it asks where to keep the passkey."
      : enrolling
        ? `Touch again to confirm (${step.step} of 3)`
        : "Follow your browser: it asks for the passkey.";
  show("busy", { title: TITLE(), status, stop: true });
}

// Does what a step asks for, and returns the server's answer to its outcome.
async function perform(step) {
  abort = new AbortController();
  const timer = setTimeout(() => {
    late = true; // whatever the browser does with its own limit: this is ours
    abort.abort();
  }, step.seconds * 1000);
  try {
    return step.do === "create" ? await create(step) : await get(step);
  } finally {
    clearTimeout(timer);
    abort = null;
  }
}

async function create(step) {
  const publicKey = step.options;
  publicKey.challenge = fromText(publicKey.challenge);
  publicKey.user.id = fromText(publicKey.user.id);
  for (const each of publicKey.excludeCredentials) each.id = fromText(each.id);
  let credential;
  try {
    credential = await navigator.credentials.create({ publicKey, signal: abort.signal });
  } catch (error) {
    if (error.name === "InvalidStateError") return say({ say: "there", id: step.id });
    return failed(step, error);
  }
  made = toText(credential.rawId);
  const prf = credential.getClientExtensionResults().prf;
  wiped(prf?.results?.first, prf?.results?.second);
  if (prf?.enabled === false) return useless(step);
  return say({
    say: "created",
    id: step.id,
    credential: made,
    client: toText(credential.response.clientDataJSON),
    made: toText(credential.response.attestationObject),
  });
}

async function get(step) {
  const publicKey = step.options;
  publicKey.challenge = fromText(publicKey.challenge);
  for (const each of publicKey.allowCredentials) each.id = fromText(each.id);
  for (const each of Object.values(publicKey.extensions.prf.evalByCredential)) each.first = fromText(each.first);
  let credential;
  try {
    credential = await navigator.credentials.get({ publicKey, signal: abort.signal });
  } catch (error) {
    return failed(step, error);
  }
  const secret = credential.getClientExtensionResults().prf?.results?.first;
  if (!secret) return useless(step);
  const { clientDataJSON, authenticatorData, signature } = credential.response;
  return sayWithSecret(
    {
      say: "got",
      id: step.id,
      credential: toText(credential.rawId),
      client: toText(clientDataJSON),
      authenticator: toText(authenticatorData),
      signature: toText(signature),
    },
    secret,
  );
}

// The browser does not tell a wrong passkey, a wrong finger, a "no" and a timeout apart, so neither can we.
async function failed(step, error) {
  if (over || late) return { do: "wait" }; // not the person's doing: the end is on its way
  return say({ say: "failed", id: step.id, name: error.name });
}

// No PRF: the passkey signs, and opens nothing. One that was made here only now is to go again.
async function useless(step) {
  if (made !== null) {
    try {
      await PublicKeyCredential.signalUnknownCredential?.({ rpId: "localhost", credentialId: made });
    } catch {
      // Then it stays with whoever keeps it, and does no harm.
    }
  }
  return say({ say: "no-prf", id: step.id });
}

// Whether making a passkey here is known to be in vain. Where the browser does not say, it is tried.
async function inVain() {
  try {
    const able = await PublicKeyCredential.getClientCapabilities?.();
    return able?.["extension:prf"] === false;
  } catch {
    return false;
  }
}

// ---- from beginning to end ----

// Whether a service worker is here: of whoever had this port before. It would see all that is said to the server.
async function isWatched() {
  const workers = navigator.serviceWorker;
  if (!workers) return false;
  const found = await workers.getRegistrations().catch(() => []); // where it may not look there is none
  await Promise.allSettled(found.map((each) => each.unregister()));
  return found.length > 0 || workers.controller !== null;
}

async function watch() {
  while (!over) {
    const answer = await post("over", "{}");
    if (answer.do === "end") end(answer);
  }
}

async function follow() {
  let answer = await say({ say: "next" });
  while (!over) {
    if (answer.do === "end") return end(answer);
    if (answer.do === "wait") {
      if (!first && !late) {
        show("waiting", { title: TITLE(), status: "Thank you. The terminal goes on from here.", detail: "" });
      }
      answer = await say({ say: "next" });
      continue;
    }
    if (answer.do === "create" && (await inVain())) {
      answer = await say({ say: "no-prf", id: answer.id });
      continue;
    }
    await ready(answer);
    if (over) return;
    answer = await perform(answer);
  }
}

async function begin() {
  if (document.prerendering) {
    // A page that is loaded on a guess must not use up the link.
    await new Promise((resolve) => document.addEventListener("prerenderingchange", resolve, { once: true }));
  }
  ticket = location.hash.slice(1);
  history.replaceState(null, "", "/"); // out of the address bar and of the history
  if (!ticket) return end({ ok: false, code: "reloaded" });
  if (await isWatched()) return end({ ok: false, code: "worker" });
  let opening;
  try {
    opening = await post("begin", "{}");
  } catch (error) {
    return end({ ok: false, code: error instanceof TypeError ? "gone" : "used" });
  }
  ticket = opening.ticket;
  showVault(opening);
  if (!window.PublicKeyCredential || !navigator.credentials) {
    const step = await say({ say: "next" });
    if (step.id) await say({ say: "no-prf", id: step.id });
    return end({ ok: false, code: "browser" });
  }
  $("stop").addEventListener("click", () => say({ say: "stop" }).catch(() => {}));
  try {
    await Promise.race([watch(), follow()]);
  } catch {
    end({ ok: false, code: "gone" });
  }
}

begin();
