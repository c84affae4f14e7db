// The jobs in the service: a few are followed by events at once, and the place in the queue of all is asked for in turn.

import { follow } from "./events.js";
import { access, get, Problem } from "./service.js";

const STREAMS = 2; // of the six connections that a browser opens to one host
const POLL_MS = 1000;
const POLLED = 20; // the jobs that wait longest; the others come up to them
const GAP_MS = 50;

export class Tracker {
  #queue = [];
  #pending = new Set();
  #streams = 0;
  #isPolling = false;

  track(item) {
    this.#queue.push(item);
    this.#pending.add(item);
    item.addEventListener("end", () => this.#pending.delete(item), { once: true });
    this.#advance();
    if (!this.#isPolling) this.#poll();
  }

  async #advance() {
    if (this.#streams === STREAMS || !this.#queue.length) return;
    this.#streams += 1;
    const item = this.#queue.shift();
    if (!item.hasEnded) await follow(item);
    this.#streams -= 1;
    this.#advance();
  }

  /** Events do not tell the place in the queue. A job that is gone fails alone; any other error ends this round. */
  async #poll() {
    this.#isPolling = true;
    while (this.#pending.size) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      await access.ready();
      for (const item of [...this.#pending].slice(0, POLLED)) {
        if (item.hasEnded || item.isStopping) continue;
        try {
          item.apply(await get(`analysis-status/${item.jobId}`, { signal: item.controller.signal }));
        } catch (error) {
          if (item.controller.signal.aborted || item.isStopping) continue;
          if (!(error instanceof Problem && error.isFinal)) break;
          item.fail(error.code, error.message);
        }
        await new Promise((resolve) => setTimeout(resolve, GAP_MS));
      }
    }
    this.#isPolling = false;
  }
}
