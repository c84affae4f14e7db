// Calls to the service. Owns the API key: it is in this tab's storage and in a header, and nowhere else.

const KEY = "image-analysis-key";
const UNKNOWN = "unknown"; // the code of an answer that has none

/** An answer that is an error, in the words of the service. */
export class Problem extends Error {
  constructor(status, body, retryAfterMs) {
    super(body.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body.code ?? UNKNOWN;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request can succeed later. */
  get isTemporary() {
    if (this.status === 409) return this.code === "request_in_progress";
    // A 408 is no such answer: the same body would take too long again.
    return this.isUnrouted || [429, 502, 503, 504].includes(this.status);
  }

  /** Whether a proxy finds no service at the moment, as while it restarts. The service's own 404 has a code. */
  get isUnrouted() {
    return this.status === 404 && this.code === UNKNOWN;
  }

  /** Whether asking for the same job again is useless, such as for one that has expired. */
  get isFinal() {
    return !this.isTemporary && ![401, 408].includes(this.status) && this.status < 500;
  }
}

class Access extends EventTarget {
  isWanted = false;
  #key = sessionStorage.getItem(KEY) ?? "";

  get hasKey() {
    return this.#key !== "";
  }

  /** Whether calls are useless until a key is given. */
  get isBlocked() {
    return this.isWanted && !this.hasKey;
  }

  get headers() {
    return this.hasKey ? { Authorization: `Bearer ${this.#key}` } : {};
  }

  use(key) {
    this.#key = key;
    sessionStorage.setItem(KEY, key);
    this.dispatchEvent(new Event("change"));
  }

  /** Forget the key. `message` says why, if that was not the user's wish. */
  forget(message = "") {
    this.isWanted = true;
    this.message = message;
    this.#key = "";
    sessionStorage.removeItem(KEY);
    this.dispatchEvent(new Event("change"));
  }

  /** Take in a 401 to a request with these headers. It may come late: then it says nothing about a newer key. */
  refuse({ Authorization }) {
    if (Authorization === this.headers.Authorization) this.forget(this.hasKey ? "The service does not know this key." : "");
  }

  /** Wait for a key if one is needed. */
  async ready() {
    while (this.isBlocked) await new Promise((resolve) => this.addEventListener("change", resolve, { once: true }));
  }
}

export const access = new Access();

/** The address of a call. All are relative: the service may be under a prefix. */
export function address(path) {
  return new URL(path, new URL(".", document.baseURI)).href;
}

function readRetryAfter(value) {
  const seconds = Number.parseInt(value ?? "", 10);
  return Number.isNaN(seconds) ? undefined : seconds * 1000;
}

/** Read an answer's text; anything but JSON, such as a proxy's own page, is an empty object. */
export function readBody(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** Turn an error's text into a Problem. `sent` are the headers of its request. */
export function readProblem(status, text, retryAfter, sent) {
  if (status === 401) access.refuse(sent);
  return new Problem(status, readBody(text), readRetryAfter(retryAfter));
}

/** Call the service. Throws a Problem for an error, a TypeError where nothing answers. */
export async function call(path, { headers = {}, ...options } = {}) {
  const sent = { Accept: "application/json", ...access.headers, ...headers };
  const answer = await fetch(address(path), { cache: "no-store", ...options, headers: sent });
  if (answer.ok) return answer;
  throw readProblem(answer.status, await answer.text(), answer.headers.get("Retry-After"), sent);
}

export async function get(path, options) {
  return (await call(path, options)).json();
}
