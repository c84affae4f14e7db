// What this tab remembers after a reload: results with small pictures, and the jobs that still run.

const KEPT = "image-analysis-history";
const MOST = 200;
const SMALL_PX = 240;
const LARGE_PX = 640; // of a picture that is shown alone
const DELAY_MS = 300;

export class History {
  #items;
  #timer = 0;
  #drawing = Promise.resolve();

  /** `items` gives the list to keep, the newest first. */
  constructor(items) {
    this.#items = items;
    addEventListener("pagehide", () => this.#write());
  }

  static read() {
    try {
      return JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
    } catch {
      return [];
    }
  }

  keep(item) {
    item.addEventListener("change", () => this.#writeSoon());
    if (!item.file) return;
    // One after another: a decoded photo takes fifty megabytes.
    this.#drawing = this.#drawing.then(async () => {
      item.thumbnail = await drawSmall(item.file, item.isAlone ? LARGE_PX : SMALL_PX);
      this.#writeSoon();
    });
  }

  clear() {
    this.#write();
  }

  #writeSoon() {
    this.#timer ||= setTimeout(() => this.#write(), DELAY_MS);
  }

  #write() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const kept = this.#items().filter((item) => item.jobId || item.hasEnded).slice(0, MOST);
    let records = kept.map((item) => item.toRecord());
    for (const withPictures of [MOST, MOST / 4, 0]) {
      records = records.map((record, index) => (index < withPictures ? record : { ...record, thumbnail: "" }));
      try {
        sessionStorage.setItem(KEPT, JSON.stringify(records));
        return;
      } catch {
        // The storage is full: keep fewer pictures.
      }
    }
  }
}

async function drawSmall(file, width) {
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: width, resizeQuality: "medium" });
    const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    return canvas.toDataURL("image/jpeg", 0.75);
  } catch {
    return ""; // The browser cannot read it; the service may.
  }
}
