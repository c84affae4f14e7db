// What a screen reader says. Many ends in a short time become one sentence.

import { byId, setText } from "./dom.js";
import { percent } from "./words.js";

const COLLECT_MS = 700;
const FEW = 3;

export class Announcer {
  #ended = [];
  #timer = 0;

  say(text) {
    setText(byId("live"), text);
  }

  /** Announce that an item has ended; `progress` says how far all of them are. */
  end(item, progress) {
    this.#ended.push(item);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.say(this.#ended.length > FEW ? progress() : this.#ended.map(describe).join(" "));
      this.#ended = [];
    }, COLLECT_MS);
  }
}

function describe({ name, state, job, error }) {
  if (state === "completed") return `${name}: ${job.result.label}, ${percent(job.result.confidence)}.`;
  return state === "failed" ? `${name} failed: ${error?.detail ?? ""}` : `${name} was cancelled.`;
}
