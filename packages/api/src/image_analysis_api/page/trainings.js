// Trainings in the service: asked for, followed to their end, stopped on demand.

import { call, Problem } from "./service.js";

const RETRY_MS = 2000;

export class Trainings {
  #tracker;
  #cancel;

  /** `tracker` and `cancel` are the page's. */
  constructor(tracker, cancel) {
    this.#tracker = tracker;
    this.#cancel = cancel;
  }

  /** Send a request for a training, and give the classifier that it makes. A limit or a restart only delays it. */
  async run(item, path, method, examples) {
    // As for an upload: a cancellation waits for the job's ID.
    item.update({ state: "uploading", loaded: 1, total: 1 });
    const answer = await ask(item, path, method, examples);
    if (answer) {
      item.apply(answer);
      if (item.isStopping) await this.#cancel(item);
      if (!item.hasEnded) this.#tracker.track(item);
      await untilEnd(item);
    }
    if (item.state !== "completed") throw new Problem(0, item.error ?? { detail: "The training was stopped." });
    return item.job.classifier;
  }
}

/** Give the body of the answer; none if the item is stopped before the service accepts it. */
async function ask(item, path, method, examples) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": item.requestId };
  while (!item.isStopping) {
    try {
      return await (await call(path, { method, headers, body: JSON.stringify({ examples }) })).json();
    } catch (error) {
      if (error instanceof Problem && !error.isTemporary) throw error;
      if (item.isStopping) break;
      await new Promise((resolve) => {
        item.addEventListener("change", resolve, { once: true });
        setTimeout(resolve, error.retryAfterMs ?? RETRY_MS);
      });
    }
  }
  return null;
}

/** Wait until an item has ended. */
export async function untilEnd(item) {
  if (!item.hasEnded) await new Promise((resolve) => item.addEventListener("end", resolve, { once: true }));
}
