// The page's start: makes the parts and connects them.

import { Announcer } from "./announcer.js";
import { CodeDialog } from "./code_dialog.js";
import { Classifiers } from "./classifiers.js";
import { Correction } from "./correction.js";
import { byId, drawIcons, setText } from "./dom.js";
import { Gallery } from "./gallery.js";
import { History } from "./history.js";
import { openIntake } from "./intake.js";
import { Item } from "./item.js";
import { offerKeyForm } from "./key_form.js";
import { Labels } from "./labels.js";
import { Models } from "./models.js";
import { Options } from "./options.js";
import { Outbox } from "./outbox.js";
import { showPauses } from "./pause_notice.js";
import { access, call, get } from "./service.js";
import { Teaching } from "./teaching.js";
import { Tracker } from "./tracker.js";
import { Trainings } from "./trainings.js";

const announcer = new Announcer();
const models = new Models();
const classifiers = new Classifiers((text) => announcer.say(text));
const options = new Options();
const labels = new Labels((text) => announcer.say(text));
const tracker = new Tracker();
const outbox = new Outbox(async (item) => {
  noteWorkers([item]);
  if (item.isStopping) await cancel(item);
  if (!item.hasEnded) tracker.track(item); // a job that ended before its cancellation is gone
});
const trainings = new Trainings(tracker, cancel);
const teaching = new Teaching({ models, classifiers, outbox, trainings, cancel });
const code = new CodeDialog((text) => announcer.say(text));
const gallery = new Gallery({
  code: (item) => code.open(item),
  cancel,
  correct: (item) => new Correction(item, { classifiers, trainings }).element,
  retry: (item) => {
    const lacksLabels = item.error?.code === "labels_required";
    if (lacksLabels && !labels.take().length) return labels.ask();
    if (lacksLabels) item.options = { ...item.options, labels: labels.take() };
    item.reset();
    outbox.add(item);
  },
  forget: () => history.clear(),
});
const history = new History(() => gallery.items);

function show(items) {
  for (const item of items) {
    item.addEventListener("end", () => announcer.end(item, () => gallery.describeProgress()));
    history.keep(item);
  }
  gallery.add(items);
}

/** Whether each image brings its labels: those of a classifier are known to the service. */
function needsLabels() {
  return models.isZeroShot && !classifiers.choice;
}

function takeIn(sources) {
  const classifier = classifiers.choice;
  const own = needsLabels() ? labels.take() : null;
  if (own && !own.length) return labels.ask();
  const model = models.choice;
  const chosen = { ...(model && { model }), ...options.chosen, ...(own && { labels: own }), ...(classifier && { classifier }) };
  const items = sources.map((source) => new Item({ ...source, options: chosen }));
  items[0].isAlone = items.length === 1;
  show(items);
  gallery.reveal();
  for (const item of items) outbox.add(item);
}

/** Let the cards of jobs say whether a worker serves their model. */
function noteWorkers(items) {
  for (const item of items) {
    const lacksWorker = models.lacksWorker(item.options.model);
    if (!item.hasEnded && item.lacksWorker !== lacksWorker) item.update({ lacksWorker });
  }
}

/** Cancel wherever the item is: in this page, on its way, or in the service. */
async function cancel(item) {
  outbox.remove(item);
  if (item.isUploaded) {
    item.update({ isStopping: true }); // its job is cancelled when the service has named it
    return;
  }
  if (!item.isInService) {
    item.controller.abort();
    item.update({ state: "cancelled" });
    return;
  }
  item.update({ isStopping: true });
  try {
    const answer = await call(`analysis/${item.jobId}`, { method: "DELETE" });
    if (answer.status === 204) item.update({ state: "cancelled" });
    else item.apply(await answer.json());
  } catch (error) {
    item.update({ isStopping: false });
    announcer.say(`${item.name} was not cancelled: ${error.message}`);
  }
}

function restore() {
  const items = History.read().map((record) => Item.fromRecord(record));
  if (items.length) show(items);
  for (const item of items) if (item.isInService) tracker.track(item);
}

async function introduce() {
  try {
    const service = await get(".");
    setText(byId("service-name"), service.name);
    document.title = service.name;
    if (service.api_key_required && !access.hasKey) access.forget();
  } catch {
    // The calls that follow say what is wrong.
  }
  models.refresh();
}

drawIcons();
// A double click counts as one: the second click would hit what the first one has moved there, such as another card's Remove.
addEventListener(
  "click",
  (event) => {
    if (event.detail < 2 || !event.target.closest("button")) return;
    event.preventDefault();
    event.stopPropagation();
  },
  { capture: true },
);
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
addEventListener("beforeunload", (event) => {
  if (gallery.hasUnsent || teaching.isBusy) event.preventDefault();
});
models.addEventListener("change", () => {
  classifiers.show(models.chosen);
  noteWorkers(gallery.items);
});
for (const part of [models, classifiers]) part.addEventListener("change", () => labels.show(needsLabels()));
offerKeyForm();
showPauses(outbox, (text) => announcer.say(text));
openIntake(takeIn);
restore();
introduce();
