// One image on the page: its picture, its steps, and in the end its labels or its error.

import { icon, keepFocus, make } from "./dom.js";
import { drawPredictions } from "./predictions.js";
import { Stages } from "./stages.js";
import { duration } from "./words.js";

/** Draws an item, and draws it again whenever it changes. `actions`: code, cancel, retry, remove, and correct(item), an element. */
export class Card {
  #item;
  #actions;
  #shown = "";
  #stages;
  #name;
  #outcome = make("div", { className: "outcome" });
  #meta = make("p", { className: "meta" });
  #buttons;

  constructor(item, actions) {
    this.#item = item;
    this.#actions = actions;
    this.#stages = new Stages(item.name);
    this.#buttons = {
      code: makeButton("code", "Code", `Code for ${item.name}`, () => actions.code(item)),
      retry: makeButton("retry", "Try again", `Try ${item.name} again`, () => actions.retry(item)),
      cancel: makeButton("close", "Cancel", `Cancel ${item.name}`, () => item.isStopping || actions.cancel(item)),
      remove: makeButton("close", "", `Remove ${item.name}`, () => actions.remove(item)),
    };
    this.#name = make("h3", { className: "name", title: item.name, id: `image-${item.number}`, tabIndex: -1 }, item.name);
    this.element = make(
      "li",
      { className: "card", attributes: { "aria-labelledby": this.#name.id } },
      makePicture(item),
      make(
        "div",
        { className: "card-body" },
        make("div", { className: "card-head" }, this.#name, make("div", { className: "card-actions" }, ...Object.values(this.#buttons))),
        this.#stages.element,
        this.#outcome,
        this.#meta,
      ),
    );
    item.addEventListener("change", () => this.#draw());
    this.#draw();
  }

  #draw() {
    const item = this.#item;
    this.element.dataset.state = item.state;
    this.element.classList.toggle("alone", item.isAlone);
    // The name, not Cancel, follows Try again: Enter held down a moment too long would cancel.
    keepFocus(() => this.#drawButtons(item), this.#buttons.remove, this.#name);
    this.#stages.element.hidden = item.hasEnded;
    if (!item.hasEnded) this.#stages.draw(item);
    if (this.#shown !== item.state) this.#drawEnd(item);
    this.#shown = item.state;
  }

  #drawButtons(item) {
    const { code, retry, cancel, remove } = this.#buttons;
    code.hidden = item.state !== "completed";
    retry.hidden = !item.canBeRetried;
    cancel.hidden = item.hasEnded;
    // A disabled button would lose the focus.
    cancel.setAttribute("aria-disabled", String(item.isStopping));
    remove.hidden = !item.hasEnded;
  }

  #drawEnd(item) {
    this.#outcome.replaceChildren(...describeEnd(item));
    if (item.state === "completed" && item.options.classifier) this.#outcome.append(this.#actions.correct(item));
    this.#meta.replaceChildren(...(item.state === "completed" ? describeRun(item) : []));
    this.#outcome.hidden = !this.#outcome.hasChildNodes();
    this.#meta.hidden = !this.#meta.hasChildNodes();
  }
}

function describeEnd(item) {
  switch (item.state) {
    case "completed":
      return drawPredictions(item.job.result, item.options);
    case "failed":
      return [
        make(
          "div",
          { className: "failure" },
          icon("warning"),
          make("div", {}, make("p", {}, item.error?.detail ?? "The analysis failed."), make("code", {}, item.error?.code ?? "unknown")),
        ),
      ];
    case "cancelled":
      return [make("p", { className: "muted" }, "Cancelled.")];
    default:
      return [];
  }
}

function describeRun({ job, tookMs }) {
  const parts = [make("span", { className: "model" }, job.result.model.id)];
  if (job.processing_time_ms !== null) {
    const time = duration(job.processing_time_ms);
    parts.push(make("span", {}, job.cached ? `took ${time} the first time` : `${time} in the worker`));
  }
  if (tookMs !== null) parts.push(make("span", { title: "From the start of the upload" }, `${duration(tookMs)} in all`));
  if (job.cached) {
    parts.push(make("span", { className: "chip", title: "The same image was analyzed within the last hour" }, "cached"));
  }
  return parts;
}

function makeButton(name, text, description, onclick) {
  const label = text ? make("span", { className: "button-text" }, text) : "";
  const attributes = { "aria-label": description };
  return make("button", { type: "button", className: "icon-button", title: text || "Remove", onclick, attributes }, icon(name), label);
}

function makePicture(item) {
  const placeholder = make("span", { className: "no-picture" }, icon("image"), item.url ? make("span", { className: "source" }, item.url) : "");
  // The service fetches a URL. The page does not: its host would learn who looks.
  const source = item.file ? URL.createObjectURL(item.file) : item.thumbnail;
  if (!source) return make("div", { className: "picture" }, placeholder);
  const picture = make("img", { alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(placeholder), { once: true });
  picture.src = source;
  item.addEventListener("removed", () => URL.revokeObjectURL(source), { once: true });
  return make("div", { className: "picture" }, picture);
}

/** Move the focus to a card, after the one that had it is gone. */
export function focusCard(element) {
  element.querySelector(".name").focus();
}
