// The page's start: makes the parts and connects them.

import { Announcer } from "./announcer.js";
import { CodeDialog } from "./code_dialog.js";
import { byId, drawIcons, setText } from "./dom.js";
import { Gallery } from "./gallery.js";
import { History } from "./history.js";
import { openIntake } from "./intake.js";
import { Item } from "./item.js";
import { offerKeyForm } from "./key_form.js";
import { Models } from "./models.js";
import { Options } from "./options.js";
import { Outbox } from "./outbox.js";
import { showPauses } from "./pause_notice.js";
import { access, call, get } from "./service.js";
import { Tracker } from "./tracker.js";

const announcer = new Announcer();
const models = new Models();
const options = new Options();
const tracker = new Tracker();
const outbox = new Outbox((item) => {
  item.update({ lacksWorker: !models.hasWorker(item.options.model) });
  tracker.track(item);
});
const code = new CodeDialog((text) => announcer.say(text));
const gallery = new Gallery({
  code: (item) => code.open(item),
  cancel,
  retry: (item) => {
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

function takeIn(sources) {
  const chosen = { ...(models.choice && { model: models.choice }), ...options.chosen };
  const items = sources.map((source) => new Item({ ...source, options: chosen }));
  items[0].isAlone = items.length === 1;
  show(items);
  gallery.reveal();
  for (const item of items) outbox.add(item);
}

/** Cancel wherever the item is: in this page, on its way, or in the service. */
async function cancel(item) {
  outbox.remove(item);
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
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
addEventListener("beforeunload", (event) => {
  if (gallery.hasUnsent) event.preventDefault();
});
offerKeyForm();
showPauses(outbox, (text) => announcer.say(text));
openIntake(takeIn);
restore();
introduce();
