// Calls to the service. Owns the API key: it is in this tab's storage and in a header, and nowhere else.

const KEY = "image-analysis-key";

/** An answer that is an error, in the words of the service. */
export class Problem extends Error {
  constructor(status, body, retryAfterMs) {
    super(body.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "unknown";
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request can succeed later. */
  get isTemporary() {
    return [408, 409, 429, 502, 503, 504].includes(this.status);
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

export function readRetryAfter(value) {
  const seconds = Number.parseInt(value ?? "", 10);
  return Number.isNaN(seconds) ? undefined : seconds * 1000;
}

/** Turn an error's text into a Problem, whatever a proxy on the way made of it. */
export function readProblem(status, text, retryAfter) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's own page.
  }
  const problem = new Problem(status, body, readRetryAfter(retryAfter));
  if (status === 401) access.forget(access.hasKey ? "The service does not know this key." : "");
  return problem;
}

/** Call the service. Throws a Problem for an error, a TypeError where nothing answers. */
export async function call(path, { headers = {}, ...options } = {}) {
  const answer = await fetch(address(path), {
    cache: "no-store",
    ...options,
    headers: { Accept: "application/json", ...access.headers, ...headers },
  });
  if (answer.ok) return answer;
  throw readProblem(answer.status, await answer.text(), answer.headers.get("Retry-After"));
}

export async function get(path, options) {
  return (await call(path, options)).json();
}
