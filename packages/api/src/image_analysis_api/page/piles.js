// The piles of photos that a classifier learns from, one for each label. The labels stay in this tab, the photos in this page.

import { byId, icon, make, setText } from "./dom.js";
import { describeUnreadable, pickImages, readDrop } from "./folders.js";
import { count } from "./words.js";

const LEAST = 5;
const MOST = 200;
const MOST_LABELS = 50;
const MOST_CHARACTERS = 256;
const RESERVED = "none of these";
const KEPT = "image-analysis-piles";

/** One label with its photos: {file, url, jobId, model}; `jobId` is the photo's job with a model. */
class Pile extends EventTarget {
  photos = [];
  element;
  #count = make("p", { className: "muted" });
  #list;

  constructor(label, onRemove) {
    super();
    this.label = label;
    this.#list = make("ul", { className: "photos", attributes: { "aria-label": `Photos of ${label}` } });
    const input = make("input", { type: "file", multiple: true, hidden: true, accept: "image/*" });
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    const choose = makeButton("upload", "Add photos", `Add photos of ${label}`, () => input.click());
    const remove = makeButton("trash", "", `Remove the label ${label}`, onRemove);
    const actions = make("div", { className: "card-actions" }, choose, remove, input);
    const head = make("div", { className: "pile-head" }, make("h3", {}, label), this.#count, actions);
    this.element = make("li", { className: "pile", attributes: { "aria-label": label } }, head, this.#list);
    this.#watchDrop();
    this.#draw();
  }

  get missing() {
    return Math.max(0, LEAST - this.photos.length);
  }

  add(files, unreadable = 0) {
    const taken = pickImages(files).images.slice(0, MOST - this.photos.length);
    this.photos.push(...taken.map((file) => ({ file, url: URL.createObjectURL(file) })));
    const left = files.length - taken.length;
    const leftOut = left ? `Left out ${count(left, "file")}: only images count, at most ${MOST} of a label.` : "";
    setText(byId("pile-error"), `${leftOut} ${describeUnreadable(unreadable)}`.trim());
    this.#draw();
  }

  remove(photos) {
    for (const { url } of photos) URL.revokeObjectURL(url);
    this.photos = this.photos.filter((photo) => !photos.includes(photo));
    this.#draw();
  }

  #watchDrop() {
    const over = (isOver) => this.element.classList.toggle("over", isOver);
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault();
      event.stopPropagation();
      over(true);
    });
    this.element.addEventListener("dragleave", () => over(false));
    this.element.addEventListener("drop", async (event) => {
      event.preventDefault();
      event.stopPropagation();
      over(false);
      const { files, fromFolder, unreadable } = await readDrop(event.dataTransfer);
      this.add([...files, ...fromFolder], unreadable);
    });
  }

  #draw() {
    const { missing } = this;
    const many = `${count(this.photos.length, "photo")}${missing ? `, ${missing} more needed` : ""}`;
    setText(this.#count, this.photos.length ? many : `Drop ${LEAST} photos or more here`);
    this.#list.hidden = !this.photos.length;
    const focused = [...this.#list.querySelectorAll("button")].indexOf(document.activeElement);
    this.#list.replaceChildren(...this.photos.map((photo) => make("li", {}, this.#drawPhoto(photo))));
    if (focused >= 0) (this.#list.querySelectorAll("button")[focused] ?? this.element.querySelector("button")).focus();
    this.dispatchEvent(new Event("change"));
  }

  #drawPhoto(photo) {
    const attributes = { "aria-label": `Remove ${photo.file.name} from ${this.label}` };
    const picture = make("img", { alt: "", loading: "lazy", decoding: "async", src: photo.url });
    return make("button", { type: "button", title: `Remove ${photo.file.name}`, onclick: () => this.remove([photo]), attributes }, picture);
  }
}

export class Piles {
  #piles = [];
  #input = byId("pile-label");
  #say;

  /** `say(text)` tells a screen reader what has changed. */
  constructor(say) {
    this.#say = say;
    for (const label of readKept()) this.#add(label);
    byId("pile-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#enter(this.#input.value.trim());
    });
  }

  /** The piles that have something on them. */
  get filled() {
    return this.#piles.filter((pile) => pile.photos.length);
  }

  /** What is missing before a classifier can learn; empty if nothing is. */
  get complaint() {
    if (this.#piles.length < 2) return "Add at least two labels, and drop photos on each.";
    const [short] = this.#piles.filter((pile) => pile.missing);
    return short ? `${short.label} needs ${count(short.missing, "more photo", "more photos")}.` : "";
  }

  #enter(label) {
    const complaint = this.#refuse(label);
    setText(byId("pile-error"), complaint);
    this.#input.setAttribute("aria-invalid", String(complaint !== ""));
    if (!complaint) {
      this.#add(label);
      this.#keep();
      this.#say(`Added ${label}.`);
      this.#input.value = "";
    }
    this.#input.focus();
  }

  #refuse(label) {
    if (!label) return "Enter a label.";
    if (label.toLowerCase() === RESERVED) return "This label is there already: it is the answer for photos of none of your labels.";
    if ([...label].length > MOST_CHARACTERS) return `At most ${MOST_CHARACTERS} characters in a label.`;
    if (this.#piles.length >= MOST_LABELS) return `At most ${MOST_LABELS} labels.`;
    return this.#piles.some((pile) => pile.label === label) ? "This label is there already." : "";
  }

  #add(label) {
    const pile = new Pile(label, () => this.#remove(pile));
    this.#piles.push(pile);
    byId("piles").append(pile.element);
  }

  #remove(pile) {
    pile.remove(pile.photos);
    pile.element.remove();
    this.#piles = this.#piles.filter((other) => other !== pile);
    this.#keep();
    this.#say(`Removed ${pile.label}.`);
    this.#input.focus();
  }

  #keep() {
    sessionStorage.setItem(KEPT, JSON.stringify(this.#piles.map((pile) => pile.label)));
  }
}

function readKept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
  } catch {
    return []; // what was kept is no list
  }
}

function makeButton(name, text, description, onclick) {
  const attributes = { "aria-label": description };
  return make("button", { type: "button", className: "icon-button", title: description, onclick, attributes }, icon(name), text);
}
