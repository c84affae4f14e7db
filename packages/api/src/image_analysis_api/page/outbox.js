// The images that wait in this page, in their order. A limit, a full queue, a restart: it waits, and loses none.

import { access, Problem } from "./service.js";
import { submit, Unreachable } from "./submission.js";

const AT_ONCE = 2; // a browser opens six connections to one host, and following jobs needs some
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 15_000;

/** Sends `change` when it pauses or goes on, and calls `onAccepted(item)` for each job that has not ended. */
export class Outbox extends EventTarget {
  reason = ""; // why it pauses: "limit", "busy" or "offline"
  #resumeAtMs = 0;
  #waiting = [];
  #active = 0;
  #timer = 0;
  #retryMs = FIRST_RETRY_MS;
  #onAccepted;

  constructor(onAccepted) {
    super();
    this.#onAccepted = onAccepted;
    access.addEventListener("change", () => this.#advance());
  }

  get pausedMs() {
    return Math.max(0, this.#resumeAtMs - Date.now());
  }

  get length() {
    return this.#waiting.length;
  }

  add(item) {
    this.#waiting.push(item);
    this.#waiting.sort((one, other) => one.number - other.number);
    this.#advance();
  }

  remove(item) {
    this.#waiting = this.#waiting.filter((other) => other !== item);
    this.#report();
  }

  #advance() {
    clearTimeout(this.#timer);
    if (this.pausedMs) {
      this.#timer = setTimeout(() => this.#advance(), this.pausedMs);
    } else {
      while (!access.isBlocked && this.#active < AT_ONCE && this.#waiting.length) this.#send(this.#waiting.shift());
    }
    this.#report();
  }

  #report() {
    if (!this.pausedMs || !this.#waiting.length) this.reason = "";
    this.dispatchEvent(new Event("change"));
  }

  async #send(item) {
    this.#active += 1;
    const { signal } = item.controller;
    item.update({ state: "uploading", loaded: 0, startedMs: performance.now(), note: "" });
    try {
      const answer = await submit(item);
      this.#retryMs = FIRST_RETRY_MS;
      item.apply(answer);
      if (!item.hasEnded) this.#onAccepted(item);
    } catch (error) {
      // The item may have been cancelled, and even sent again, before the reason of the error was known.
      if (!signal.aborted) this.#handle(item, error);
    } finally {
      this.#active -= 1;
      this.#advance();
    }
  }

  #handle(item, error) {
    if (error.name === "AbortError") return;
    if (item.isStopping) {
      item.update({ state: "cancelled" });
      return;
    }
    if (error instanceof Problem && error.status === 401) {
      this.#hold(item);
    } else if (error instanceof Problem && error.isTemporary) {
      const reason = error.status === 429 ? "limit" : "busy";
      this.#pause(error.isUnrouted ? "offline" : reason, error.retryAfterMs);
      this.#hold(item);
    } else if (error instanceof Unreachable) {
      this.#pause("offline");
      this.#hold(item);
    } else {
      item.fail(error.code ?? "unknown", error.message);
    }
  }

  #hold(item) {
    item.update({ state: "held", loaded: 0 });
    this.add(item);
  }

  #pause(reason, retryAfterMs) {
    this.reason = reason;
    this.#resumeAtMs = Math.max(this.#resumeAtMs, Date.now() + (retryAfterMs ?? this.#retryMs));
    if (retryAfterMs === undefined) this.#retryMs = Math.min(2 * this.#retryMs, LAST_RETRY_MS);
  }
}
