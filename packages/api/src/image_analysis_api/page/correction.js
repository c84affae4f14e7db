// Below the answer of a classifier: another label. The picture becomes an example of it, and the classifier learns it.

import { keepFocus, make, setText } from "./dom.js";
import { Item } from "./item.js";
import { percent } from "./words.js";

let learned = Promise.resolve();

/** Draws a choice of the classifier's other labels. `parts`: classifiers, trainings. */
export class Correction {
  #item;
  #parts;
  #shown = "";
  #isSent = false;
  #text = make("p", { className: "muted", tabIndex: -1, attributes: { role: "status" } });
  #picker = make("select");
  #button = make("button", { type: "button", className: "button small", hidden: true }, "Teach it");
  #field = make("div", { className: "correction-field" }, make("span", { className: "muted" }, "Wrong? It is"), this.#picker, this.#button);

  constructor(item, parts) {
    this.#item = item;
    this.#parts = parts;
    this.#picker.setAttribute("aria-label", `Right label of ${item.name}`);
    this.#picker.addEventListener("change", () => this.#draw());
    this.#button.addEventListener("click", () => this.#correct(this.#picker.value));
    this.element = make("div", { className: "correction" }, this.#field, this.#text);
    const draw = () => this.#draw();
    parts.classifiers.addEventListener("change", draw);
    item.addEventListener("removed", () => parts.classifiers.removeEventListener("change", draw), { once: true });
    draw();
  }

  #draw() {
    const known = this.#parts.classifiers.found.find(({ name }) => name === this.#item.options.classifier);
    const labels = (known?.labels ?? []).filter((label) => label !== this.#item.job.result.label);
    const shown = JSON.stringify(labels);
    // A choice that is being made stays when another card's picture has been learned.
    if (shown !== this.#shown) {
      const options = labels.map((label) => make("option", { value: label }, label));
      this.#picker.replaceChildren(make("option", { value: "" }, "…"), ...options);
      this.#shown = shown;
    }
    const hide = () => {
      this.#button.hidden = !this.#picker.value;
      this.#field.hidden = !labels.length || this.#isSent;
    };
    keepFocus(hide, this.#picker, this.#text);
  }

  #correct(label) {
    const name = this.#item.options.classifier;
    this.#say(`${name} learns that this is ${label} …`, true);
    // One after another: each training begins with the examples of the last one.
    learned = learned.then(() => this.#learn(name, label));
  }

  async #learn(name, label) {
    const examples = [{ label, job_id: this.#item.jobId }];
    try {
      const { accuracy } = await this.#parts.trainings.run(new Item({ name }), `classifiers/${name}/examples`, "POST", examples);
      this.#say(`Learned as ${label}. In cross-validation, ${name} is now right for ${percent(accuracy)} of its photos.`, true);
      await this.#parts.classifiers.refresh();
    } catch (error) {
      this.#say(error.message, false);
    }
  }

  #say(text, isSent) {
    setText(this.#text, text);
    this.#isSent = isSent;
    this.#draw();
  }
}
