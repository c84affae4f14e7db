// The options that go with each new image. They stay as they are in this tab.

import { byId, setText } from "./dom.js";

const KEPT = "image-analysis-options";
const DEFAULT_TOP_K = 5;
const MAX_TOP_K = 100;

export class Options {
  #topK = byId("top-k");
  #threshold = byId("threshold");

  constructor() {
    this.#restore();
    this.#threshold.addEventListener("input", () => this.#draw());
    this.#topK.addEventListener("change", () => (this.#topK.value = this.topK));
    for (const input of document.querySelectorAll(".options input")) {
      input.addEventListener("change", () => sessionStorage.setItem(KEPT, JSON.stringify(this.#values)));
    }
    this.#draw();
  }

  get topK() {
    const wanted = this.#topK.value === "" ? DEFAULT_TOP_K : Math.round(Number(this.#topK.value));
    return Math.min(MAX_TOP_K, Math.max(1, wanted));
  }

  /** The fields to send: what differs from the service's defaults. */
  get chosen() {
    const { topK, threshold, priority } = this.#values;
    return {
      ...(topK !== DEFAULT_TOP_K && { top_k: topK }),
      ...(threshold > 0 && { min_confidence: threshold / 100 }),
      ...(priority !== "normal" && { priority }),
    };
  }

  get #values() {
    const priority = document.querySelector("[name=priority]:checked").value;
    return { topK: this.topK, threshold: Number(this.#threshold.value), priority };
  }

  #restore() {
    try {
      const { topK, threshold, priority } = JSON.parse(sessionStorage.getItem(KEPT));
      this.#topK.value = topK;
      this.#threshold.value = threshold;
      document.querySelector(`[name=priority][value="${CSS.escape(priority)}"]`).checked = true;
    } catch {
      // Nothing was kept.
    }
  }

  #draw() {
    setText(byId("threshold-value"), `${this.#threshold.value}%`);
  }
}
