// The picker of models: which there are, who serves them, and what they know.

import { byId, make, setText } from "./dom.js";
import { access, get } from "./service.js";
import { count, percent } from "./words.js";

const REFRESH_MS = 10_000;
const FEW_LABELS = 20;
const DEMO_MODEL = "vit-tiny-cifar10"; // it comes with the service
const ZERO_SHOT = "zero-shot-image-classification";
const CHOSEN = "image-analysis-model";

/** Sends `change` when another model is chosen, or the service says something else of it. */
export class Models extends EventTarget {
  #picker = byId("model");
  #found = new Map();
  #isKnown = false; // whether the service has said which models there are
  #details = new Map();
  #timer = 0;

  constructor() {
    super();
    this.#picker.addEventListener("change", () => {
      sessionStorage.setItem(CHOSEN, this.#picker.value);
      this.#describe();
    });
    document.addEventListener("visibilitychange", () => this.refresh());
    access.addEventListener("change", () => this.refresh());
    byId("show-labels").addEventListener("click", () => this.#showLabels());
    byId("labels-filter").addEventListener("input", ({ target }) => this.#filter(target.value));
    this.#drawPicker();
  }

  /** The model to send; none for the service's default. */
  get choice() {
    const model = this.chosen;
    return model && !model.is_default ? model.id : undefined;
  }

  /** The chosen model, as GET /models has it; undefined if there is none. */
  get chosen() {
    return this.#found.get(this.#picker.value);
  }

  /** Whether the chosen model needs labels with each image. */
  get isZeroShot() {
    return this.chosen?.task === ZERO_SHOT;
  }

  /** Whether no worker serves a model, or the default one; false while that is not known. */
  lacksWorker(id) {
    const models = [...this.#found.values()];
    return this.#isKnown && !models.some((model) => model.workers > 0 && (id ? model.id === id : model.is_default));
  }

  async refresh() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    if (access.isBlocked) {
      drawWorkers("unknown", "API key needed");
      return;
    }
    try {
      const { models } = await get("models", { signal: AbortSignal.timeout(REFRESH_MS) });
      models.sort((one, other) => other.is_default - one.is_default);
      this.#found = new Map(models.map((model) => [model.id, model]));
      this.#isKnown = true;
      this.#drawPicker();
    } catch (error) {
      if (error.status === 401) return; // another key is asked for, or there is one already
      drawWorkers("down", error.status ? error.message : "The service cannot be reached");
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), REFRESH_MS);
  }

  #drawPicker() {
    const chosen = this.#picker.value || sessionStorage.getItem(CHOSEN);
    const models = [...this.#found.values()];
    const options = models.map((model) => make("option", { value: model.id }, model.workers ? model.id : `${model.id} (no worker)`));
    if (!models.some((model) => model.is_default)) options.unshift(make("option", { value: "" }, "Default model"));
    // Replacing the options would close a list that is open.
    const describe = (list) => list.map((option) => `${option.value} ${option.text}`).join("\n");
    if (describe([...this.#picker.options]) !== describe(options)) {
      this.#picker.replaceChildren(...options);
      if (options.some((option) => option.value === chosen)) this.#picker.value = chosen;
    }
    if (this.#isKnown) this.#describe();
  }

  async #describe() {
    const model = this.chosen;
    const workers = model?.workers ?? 0;
    this.dispatchEvent(new Event("change"));
    drawWorkers(workers ? "ready" : "idle", workers ? `${count(workers, "worker")} ready` : "No worker");
    const lines = [];
    if (!workers) {
      lines.push(make("p", { className: "notice warning" }, "No worker serves this model now. Images wait in the queue until one starts."));
    }
    byId("show-labels").hidden = !model || model.labels_count <= FEW_LABELS;
    if (model) {
      const labels = await this.#labels(model);
      if (model.id !== this.#picker.value) return;
      lines.push(describeLabels(model, labels));
    }
    const notice = byId("model-notice");
    if (notice.textContent !== lines.map((line) => line.textContent).join("")) notice.replaceChildren(...lines);
  }

  async #labels(model) {
    const version = `${model.id}@${model.revision}`;
    if (!this.#details.has(version)) {
      try {
        const path = model.id.split("/").map(encodeURIComponent).join("/");
        this.#details.set(version, (await get(`models/${path}`)).labels);
      } catch {
        return []; // the next refresh asks again
      }
    }
    return this.#details.get(version);
  }

  async #showLabels() {
    const model = this.chosen;
    const labels = await this.#labels(model);
    setText(byId("labels-title"), `${count(labels.length, "label")} of ${model.id}`);
    byId("labels").replaceChildren(...labels.map((label) => make("li", {}, label)));
    byId("labels-filter").value = "";
    byId("labels-dialog").showModal();
  }

  #filter(text) {
    const wanted = text.trim().toLowerCase();
    for (const row of byId("labels").children) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
}

function describeLabels(model, labels) {
  if (model.task === ZERO_SHOT) {
    return make("p", { className: "notice" }, "This model has no labels of its own. It says which of yours fits a picture.");
  }
  const isSmall = labels.length > 0 && labels.length <= FEW_LABELS;
  const known = `This ${model.id === DEMO_MODEL ? "demo " : ""}model knows ${count(model.labels_count, "thing")}`;
  const limits = isSmall ? `: ${labels.join(", ")}. It gives every picture one of these labels.` : ".";
  const accuracy = model.accuracy ? ` It is right for ${percent(model.accuracy)} of its test images.` : "";
  return make("p", { className: isSmall ? "notice" : "muted" }, known + limits + accuracy);
}

function drawWorkers(state, text) {
  byId("workers").dataset.state = state;
  setText(byId("workers-text"), text);
}
