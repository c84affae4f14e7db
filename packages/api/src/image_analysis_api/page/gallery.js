// All images of this tab: the cards, the newest first, and what concerns all of them.

import { Card, focusCard } from "./card.js";
import { byId, keepFocus, setText } from "./dom.js";
import { save, toCsv, toJson } from "./export.js";
import { count } from "./words.js";

export class Gallery {
  items = []; // the newest first
  #cards = new Map();
  #actions;
  #drawing = 0;

  /** `actions`: code, cancel, retry, correct, and forget(items), which is called for those that leave the page. */
  constructor(actions) {
    this.#actions = { ...actions, remove: (item) => this.#remove(item) };
    byId("save-csv").addEventListener("click", () => save(toCsv(this.#inOrder), "image-analysis.csv", "text/csv"));
    byId("save-json").addEventListener("click", () => save(toJson(this.#inOrder), "image-analysis.json", "application/json"));
    byId("clear").addEventListener("click", () => this.#clear());
    byId("cancel-all").addEventListener("click", () => {
      for (const item of this.items) if (!item.hasEnded) actions.cancel(item);
    });
    this.#draw();
  }

  get #inOrder() {
    return [...this.items].sort((one, other) => one.number - other.number);
  }

  get hasUnsent() {
    return this.items.some((item) => item.state === "held" || item.state === "uploading");
  }

  /** Put items on top of the page; the first one stands first. */
  add(items) {
    const cards = items.map((item) => {
      const card = new Card(item, this.#actions).element;
      this.#cards.set(item, card);
      item.addEventListener("change", () => this.#drawSoon());
      return card;
    });
    byId("cards").prepend(...cards);
    this.items.unshift(...items);
    this.#draw();
  }

  /** Bring the newest card into view, if it is not. */
  reveal() {
    const { top, bottom } = byId("cards").firstElementChild.getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) byId("results-title").closest("section").scrollIntoView();
  }

  describeProgress() {
    const ended = this.items.filter((item) => item.hasEnded);
    const failed = ended.filter((item) => item.state === "failed").length;
    return `${ended.length} of ${count(this.items.length, "image")} done${failed ? `, ${failed} failed` : ""}.`;
  }

  #remove(item) {
    const card = this.#cards.get(item);
    const next = card.nextElementSibling ?? card.previousElementSibling;
    this.#drop([item]);
    if (next) focusCard(next);
    else byId("results-title").focus();
  }

  #clear() {
    this.#drop(this.items.filter((item) => item.hasEnded));
    byId("results-title").focus();
  }

  #drop(items) {
    for (const item of items) {
      this.#cards.get(item).remove();
      this.#cards.delete(item);
      item.dispatchEvent(new Event("removed"));
    }
    this.items = this.items.filter((item) => this.#cards.has(item));
    this.#draw();
    this.#actions.forget(items);
  }

  #drawSoon() {
    this.#drawing ||= setTimeout(() => this.#draw(), 50);
  }

  #draw() {
    clearTimeout(this.#drawing);
    this.#drawing = 0;
    const active = this.items.filter((item) => !item.hasEnded).length;
    const ended = this.items.length - active;
    keepFocus(() => this.#drawActions(active, ended), byId("results-title"));
    byId("empty").hidden = this.items.length > 0;
    const overall = byId("overall");
    overall.hidden = this.items.length < 2 || !active;
    overall.value = ended / (this.items.length || 1);
    const progress = this.items.length > 1 ? `${this.describeProgress()} ` : "";
    setText(byId("summary"), `${progress}Kept in this tab until you close it.`);
  }

  #drawActions(active, ended) {
    byId("results-actions").hidden = !this.items.length;
    byId("cancel-all").hidden = active < 2;
    for (const id of ["save-csv", "save-json", "clear"]) byId(id).disabled = !ended;
  }
}
