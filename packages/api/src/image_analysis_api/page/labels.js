// The labels for a zero-shot model, as chips in a field. They stay as they are in this tab.

import { byId, icon, make, setText } from "./dom.js";
import { count } from "./words.js";

const KEPT = "image-analysis-labels";
const MOST = 200;
const MOST_CHARACTERS = 256;

export class Labels {
  #list = [];
  #input = byId("own-label");
  #chips = byId("own-labels");
  #announce;

  /** `announce(text)` says what has changed to a screen reader. */
  constructor(announce) {
    this.#announce = announce;
    try {
      this.#list = JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
    } catch {
      // What was kept is no list.
    }
    this.#input.addEventListener("keydown", (event) => this.#onKey(event));
    // Some keyboards of phones name no key: the comma is only in the text.
    this.#input.addEventListener("input", () => {
      if (/[,\n]/.test(this.#input.value)) this.#enter(this.#input.value);
    });
    this.#input.addEventListener("paste", (event) => {
      const text = event.clipboardData.getData("text/plain");
      if (!/[,\r\n]/.test(text)) return;
      event.preventDefault();
      this.#enter(`${this.#input.value}${text}`);
    });
    byId("labels-box").addEventListener("click", ({ target }) => {
      if (!target.closest("button")) this.#input.focus();
    });
    this.#draw();
  }

  /** Show the field, or hide it. */
  show(isShown) {
    byId("labels-field").hidden = !isShown;
  }

  /** Take the labels, and what is still typed in the field. */
  take() {
    this.#enter(this.#input.value);
    return [...this.#list];
  }

  /** Say that labels are missing. */
  ask() {
    this.#complain("This model chooses from your labels: add at least one, then give the picture again.");
    this.#input.focus();
  }

  #onKey(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      this.#enter(this.#input.value);
    } else if (event.key === "Backspace" && !this.#input.value && this.#list.length) {
      event.preventDefault();
      this.#remove(this.#list.length - 1);
    }
  }

  /** Add labels from a text with commas or lines. What cannot be added stays in the field. */
  #enter(text) {
    const wanted = text.split(/[,\r\n]/).map((label) => label.trim()).filter(Boolean);
    const added = [];
    const left = [];
    for (const label of wanted) {
      if (this.#list.includes(label)) continue;
      const isTooMuch = [...label].length > MOST_CHARACTERS || this.#list.length >= MOST;
      (isTooMuch ? left : added).push(label);
      if (!isTooMuch) this.#list.push(label);
    }
    this.#input.value = left.join(", ");
    const reason = this.#list.length >= MOST ? `At most ${MOST} labels.` : `At most ${MOST_CHARACTERS} characters in a label.`;
    this.#complain(left.length ? reason : "");
    if (added.length) this.#change(added.length === 1 ? `Added ${added[0]}.` : `Added ${count(added.length, "label")}.`);
  }

  #remove(index) {
    const [label] = this.#list.splice(index, 1);
    this.#change(`Removed ${label}.`);
    const next = this.#chips.querySelectorAll("button")[index];
    (next ?? this.#input).focus();
  }

  #change(said) {
    sessionStorage.setItem(KEPT, JSON.stringify(this.#list));
    this.#draw();
    this.#announce(said);
  }

  #complain(text) {
    setText(byId("label-error"), text);
    this.#input.setAttribute("aria-invalid", String(text !== ""));
  }

  #draw() {
    this.#chips.hidden = !this.#list.length;
    this.#input.placeholder = this.#list.length ? "Add a label" : "a receipt, a selfie";
    this.#chips.replaceChildren(
      ...this.#list.map((label, index) => {
        const attributes = { "aria-label": `Remove ${label}` };
        const remove = make("button", { type: "button", title: "Remove", onclick: () => this.#remove(index), attributes }, icon("close"));
        return make("li", {}, make("span", { title: label }, label), remove);
      }),
    );
  }
}
