// One image of this tab: where it comes from, where it is, and what the service said. It knows neither the page nor HTTP.

// In order: what has come further never goes back. `held` waits in this page.
const STATES = ["held", "uploading", "pending", "processing", "completed", "failed", "cancelled"];
const STATES_OF_JOBS = {
  PENDING: "pending",
  PROCESSING: "processing",
  COMPLETED: "completed",
  FAILED: "failed",
  CANCELLED: "cancelled",
};

// Errors that the same request gives again: its options do not change.
const LASTING = ["file_unreadable", "invalid_request", "labels_not_supported", "embeddings_not_supported"];
// Errors that the same file gives again. A URL may give another image.
const LASTING_OF_FILES = ["unsupported_image", "image_too_large", "corrupt_image", "unsupported_dimensions", "worker_lost"];

let made = 0;

export class Item extends EventTarget {
  number = (made += 1);
  state = "held";
  loaded = 0;
  total = 0;
  job = null; // the latest body of GET /analysis-status
  jobId = null;
  error = null; // {code, detail}
  note = "";
  isAlone = false;
  isStopping = false;
  lacksWorker = false; // as far as the page knows
  thumbnail = "";
  startedMs = 0;
  tookMs = null;

  constructor({ name, file = null, url = null, options = {} }) {
    super();
    Object.assign(this, { name, file, url, options, requestId: uuid(), controller: new AbortController() });
  }

  get hasEnded() {
    return STATES.indexOf(this.state) >= STATES.indexOf("completed");
  }

  /** Whether it may end in another way if it is sent again. */
  get canBeRetried() {
    if (this.state !== "failed" && this.state !== "cancelled") return false;
    const code = this.error?.code;
    if (!this.file) return Boolean(this.url) && !LASTING.includes(code);
    return ![...LASTING, ...LASTING_OF_FILES].includes(code);
  }

  get isInService() {
    return this.state === "pending" || this.state === "processing";
  }

  /** Whether the service has all of it, but has not answered yet. */
  get isUploaded() {
    return this.state === "uploading" && this.total > 0 && this.loaded >= this.total;
  }

  /** Change fields and tell those who show or keep them. */
  update(changes) {
    const hadEnded = this.hasEnded;
    Object.assign(this, changes);
    if (this.hasEnded && !hadEnded && this.startedMs) this.tookMs = Math.round(performance.now() - this.startedMs);
    this.dispatchEvent(new Event("change"));
    if (this.hasEnded && !hadEnded) this.dispatchEvent(new Event("end"));
  }

  /** Take what the service says of the job; news that comes late changes nothing. */
  apply(job) {
    const state = STATES_OF_JOBS[job.status];
    if (this.hasEnded || STATES.indexOf(state) < STATES.indexOf(this.state)) return;
    this.update({ state, job: { ...job }, jobId: job.job_id, error: job.error ?? null, note: "" });
  }

  fail(code, detail) {
    if (!this.hasEnded) this.update({ state: "failed", error: { code, detail }, note: "" });
  }

  /** Start again from the beginning, as a new request. */
  reset() {
    Object.assign(this, { job: null, jobId: null, error: null, loaded: 0, tookMs: null, startedMs: 0, isStopping: false });
    Object.assign(this, { requestId: uuid(), controller: new AbortController() });
    this.update({ state: "held", note: "" });
  }

  /** What the history keeps. */
  toRecord() {
    const { number, name, url, options, state, job, jobId, error, thumbnail, tookMs, isAlone } = this;
    return { number, name, url, options, state, job, jobId, error, thumbnail, tookMs, isAlone };
  }

  static fromRecord({ name, url, options, ...rest }) {
    const item = Object.assign(new Item({ name, url, options }), rest);
    made = Math.max(made, item.number);
    return item;
  }
}

/** Make a random UUID. `crypto.randomUUID` exists only over HTTPS and on localhost. */
function uuid() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  random[6] = (random[6] & 0x0f) | 0x40;
  random[8] = (random[8] & 0x3f) | 0x80;
  const hex = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
