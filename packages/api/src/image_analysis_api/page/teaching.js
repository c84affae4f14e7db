// The dialog that teaches a classifier: its photos are sent like all others, then a job of their own trains it.

import { byId, keepFocus, setText } from "./dom.js";
import { Item } from "./item.js";
import { REASONS } from "./pause_notice.js";
import { Piles } from "./piles.js";
import { untilEnd } from "./trainings.js";
import { count, percent } from "./words.js";

const NAME = "image-analysis-classifier-name";

/** `models`, `classifiers`, `outbox`, `trainings` and `cancel` are the page's; `isBusy` while photos are sent or a job trains. */
export class Teaching {
  isBusy = false;
  #parts;
  #items = []; // what Stop cancels
  #dialog = byId("teach-dialog");
  #name = byId("teach-name");
  #piles = new Piles((text) => this.#say(text));

  constructor(parts) {
    this.#parts = parts;
    this.#name.value = sessionStorage.getItem(NAME) ?? this.#name.value;
    this.#name.addEventListener("input", () => {
      sessionStorage.setItem(NAME, this.#name.value);
      this.#warn();
    });
    byId("teach").addEventListener("click", () => {
      this.#warn();
      this.#dialog.showModal();
    });
    byId("train").addEventListener("click", () => this.#train());
    byId("stop-training").addEventListener("click", () => {
      for (const item of this.#items) if (!item.hasEnded) this.#parts.cancel(item);
    });
  }

  async #train() {
    const complaint = this.#name.validity.valid ? this.#piles.complaint : "A name has a to z, 0 to 9, _ and -, and begins with a letter or a digit.";
    setText(byId("teach-error"), complaint);
    if (complaint || this.isBusy) return;
    this.#setBusy(true);
    try {
      const { model, name } = { model: this.#parts.models.chosen, name: this.#name.value };
      const classifier = await this.#teach(model, name, this.#piles.filled);
      await this.#parts.classifiers.refresh(classifier.name);
      this.#say(describe(classifier));
    } catch (error) {
      this.#say("");
      setText(byId("teach-error"), error.message);
    }
    this.#setBusy(false);
    this.#warn();
  }

  async #teach(model, name, piles) {
    const photos = piles.flatMap((pile) => pile.photos.map((photo) => ({ photo, pile })));
    this.#say(`Sending ${count(photos.length, "photo")}.`);
    await this.#send(model, photos);
    this.#say("Training.");
    byId("teach-bar").removeAttribute("value");
    setText(byId("teach-progress"), "Training …");
    const examples = photos.map(({ photo, pile }) => ({ label: pile.label, job_id: photo.jobId }));
    const job = new Item({ name });
    this.#items = [job];
    try {
      return await this.#parts.trainings.run(job, `classifiers/${name}?${new URLSearchParams(modelOf(model))}`, "PUT", examples);
    } catch (error) {
      // The service keeps embeddings for an hour: the next attempt sends the photos again.
      if (error.code === "embedding_unknown") for (const { photo } of photos) photo.jobId = null;
      throw error;
    }
  }

  /** Send the photos whose job is not known yet. Those that fail leave their pile, unless all of them do. */
  async #send(model, photos) {
    const failed = [];
    this.#items = [];
    // A zero-shot model embeds images only with labels: any will do.
    const labels = this.#parts.models.isZeroShot && { labels: ["image"] };
    const options = { ...modelOf(model), ...labels, embedding: true };
    let done = 0;
    const draw = () => {
      const { reason } = this.#parts.outbox;
      setText(byId("teach-progress"), `${done} of ${count(photos.length, "photo")} analyzed. ${REASONS[reason] ?? ""}`);
      byId("teach-bar").value = done / photos.length;
    };
    this.#parts.outbox.addEventListener("change", draw);
    await Promise.all(
      photos.map(async ({ photo, pile }) => {
        if (!photo.jobId || photo.model !== model.id) {
          const item = new Item({ name: photo.file.name, file: photo.file, options });
          this.#items.push(item);
          this.#parts.outbox.add(item);
          await untilEnd(item);
          Object.assign(photo, { jobId: item.jobId, model: model.id });
          if (item.state !== "completed") failed.push({ photo, pile, item });
        }
        done += 1;
        draw();
      }),
    );
    this.#parts.outbox.removeEventListener("change", draw);
    if (!failed.length) return;
    for (const { photo } of failed) photo.jobId = null;
    if (failed.some(({ item }) => item.state === "cancelled")) throw new Error("Stopped. Train sends what is left.");
    if (failed.length === photos.length) throw new Error(failed[0].item.error.detail);
    for (const { photo, pile } of failed) pile.remove([photo]);
    throw new Error(`Removed what cannot be used: ${failed.map(({ item }) => `${item.name}: ${item.error.detail}`).join(" ")}`);
  }

  #setBusy(isBusy) {
    this.isBusy = isBusy;
    const train = byId("train");
    const stop = byId("stop-training");
    const draw = () => {
      train.disabled = isBusy;
      stop.hidden = !isBusy;
    };
    keepFocus(draw, train, stop);
    byId("teach-running").hidden = !isBusy;
  }

  /** Say that a classifier of this name would be replaced. */
  #warn() {
    const isKnown = this.#parts.classifiers.found.some(({ name }) => name === this.#name.value);
    setText(byId("teach-name-hint"), isKnown ? "A classifier has this name. Training replaces it." : "");
  }

  #say(text) {
    setText(byId("teach-status"), text);
  }
}

function modelOf({ id, is_default: isDefault }) {
  return isDefault ? {} : { model: id };
}

function describe({ name, accuracy, examples, confusion: { labels, counts } }) {
  const pairs = labels.flatMap((one, row) =>
    labels.slice(row + 1).map((other, offset) => {
      const column = row + 1 + offset;
      return { one, other, mistakes: counts[row][column] + counts[column][row] };
    }),
  );
  const [worst] = pairs.sort((one, other) => other.mistakes - one.mistakes);
  const confused = worst?.mistakes
    ? ` It confuses ${worst.one} and ${worst.other} most, in ${worst.mistakes} of ${examples[worst.one] + examples[worst.other]} photos.`
    : "";
  return `${name} is trained. In cross-validation it was right for ${percent(accuracy)} of the photos.${confused} It is chosen for your next photos.`;
}
