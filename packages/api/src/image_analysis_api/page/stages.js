// Where an image is, as four steps, a sentence and a bar.

import { make, setText } from "./dom.js";
import { bytes, duration } from "./words.js";

const STAGES = ["Upload", "Queue", "Model", "Done"];
const AT = { held: -1, uploading: 0, pending: 1, processing: 2, completed: 3, failed: 3, cancelled: 3 };

export class Stages {
  element = make("div", { className: "stages" });
  #steps = STAGES.map((name) => make("li", {}, name));
  #text = make("p", { className: "stage-text" });
  #bar = make("progress", { max: 1 });

  constructor(name) {
    this.#bar.setAttribute("aria-label", `Progress of ${name}`);
    this.element.append(make("ol", { className: "steps" }, ...this.#steps), this.#text, this.#bar);
  }

  draw(item) {
    this.#steps.forEach((step, index) => {
      step.dataset.is = index < AT[item.state] ? "past" : index === AT[item.state] ? "now" : "ahead";
      if (step.dataset.is === "now") step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
    });
    setText(this.#text, describe(item));
    this.#bar.hidden = item.state === "held" || item.state === "pending";
    if (item.state === "uploading" && item.file && item.loaded < item.total) this.#bar.value = item.loaded / item.total;
    else this.#bar.removeAttribute("value");
  }
}

function describe(item) {
  if (item.note === "reconnecting") return "Connection lost. Reconnecting …";
  if (item.isStopping) return "Cancelling …";
  switch (item.state) {
    case "held":
      return "Waiting in this page";
    case "uploading":
      return describeUpload(item);
    case "pending":
      return describePlace(item.job ?? {}, item.lacksWorker);
    default:
      return "Processing: the model looks at the image …";
  }
}

function describeUpload({ file, loaded, total }) {
  if (!file) return "The service fetches the image …";
  if (!total) return "Uploading …";
  if (loaded >= total) return `Uploaded ${bytes(total)}. The service checks the image …`;
  return `Uploading ${Math.floor((100 * loaded) / total)}%, ${bytes(loaded)} of ${bytes(total)}`;
}

function describePlace({ queue_position: place, estimated_wait_ms: waitMs }, lacksWorker) {
  const words = place ? `Waiting in the queue, place ${place}` : "Waiting in the queue";
  if (lacksWorker) return `${words}. No worker serves its model now`;
  return waitMs === undefined || waitMs === null ? words : `${words}, about ${duration(waitMs)}`;
}
