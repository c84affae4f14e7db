// The picker of classifiers: those of the chosen model. The choice stays in this tab.

import { byId, make, setText } from "./dom.js";
import { access, call, get } from "./service.js";
import { count, percent } from "./words.js";

const FEW_LABELS = 20;
const CHOSEN = "image-analysis-classifier";

/** Sends `change` when another classifier is chosen, or none. */
export class Classifiers extends EventTarget {
  found = []; // as GET /classifiers has them
  #picker = byId("classifier");
  #model = null;
  #asked = "";
  #say;

  /** `say` announces a text. */
  constructor(say) {
    super();
    this.#say = say;
    byId("delete-classifier").addEventListener("click", () => this.#delete());
    this.#picker.addEventListener("change", () => this.#keep());
    access.addEventListener("change", () => (this.#asked = ""));
  }

  /** The classifier to send; none for the model's own labels. */
  get choice() {
    return this.#picker.value || undefined;
  }

  /** Offer the classifiers of a model, if its workers train some. */
  async show(model) {
    this.#model = model?.trains ? model : null;
    byId("classifier-field").hidden = !this.#model;
    const asked = this.#model ? `${model.id}@${model.revision}` : "";
    if (asked === this.#asked) return;
    this.#asked = asked;
    await this.refresh();
  }

  /** Ask for the classifiers again, and choose one. */
  async refresh(chosen = sessionStorage.getItem(CHOSEN)) {
    try {
      this.found = this.#model ? (await get("classifiers")).classifiers : [];
    } catch {
      this.#asked = ""; // the next change of the models asks again
      return;
    }
    this.#draw(chosen);
    if (this.#model) this.#keep();
    else this.dispatchEvent(new Event("change"));
  }

  #draw(chosen) {
    const ours = this.found.filter(({ model }) => model.id === this.#model?.id);
    const options = ours.map(({ name, model }) => {
      const disabled = model.revision !== this.#model.revision;
      return make("option", { value: name, disabled }, disabled ? `${name} (of an earlier model)` : name);
    });
    this.#picker.replaceChildren(make("option", { value: "" }, "None: the model's labels"), ...options);
    if (options.some((option) => option.value === chosen && !option.disabled)) this.#picker.value = chosen;
  }

  #keep() {
    sessionStorage.setItem(CHOSEN, this.#picker.value);
    const chosen = this.found.find(({ name }) => name === this.choice);
    for (const id of ["classifier-notice", "delete-classifier"]) byId(id).hidden = !chosen;
    if (chosen) setText(byId("classifier-notice"), describe(chosen));
    byId("delete-classifier").setAttribute("aria-label", `Delete ${this.choice}`);
    this.dispatchEvent(new Event("change"));
  }

  async #delete() {
    const name = this.choice;
    if (!confirm(`Delete the classifier ${name}, and what it learned from your photos?`)) return;
    try {
      await call(`classifiers/${name}`, { method: "DELETE" });
      await this.refresh("");
      this.#say(`${name} is deleted.`);
      this.#picker.focus();
    } catch (error) {
      setText(byId("classifier-notice"), `${name} was not deleted: ${error.message}`);
    }
  }
}

function describe({ labels, accuracy }) {
  const own = labels.length > FEW_LABELS ? `one of ${count(labels.length, "label")}` : labels.join(", ");
  return `Pictures get these labels instead: ${own}, or none of these. It was right for ${percent(accuracy)} of its photos in cross-validation.`;
}
