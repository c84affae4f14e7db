// One POST /analyze-image. It uses XMLHttpRequest because `fetch` does not tell how much of a body was sent.

import { toFields } from "./fields.js";
import { access, address, readBody, readProblem } from "./service.js";

const TIMEOUT_MS = 180_000;

/** Where nothing answers: the network, or a service that restarts. */
export class Unreachable extends Error {}

/** The browser cannot read the file any more: it was edited, moved or deleted after it was chosen. */
class UnreadableFile extends Error {
  code = "file_unreadable";
}

/** Send an item; return the body of a 200 or a 202. Throws a Problem, Unreachable, UnreadableFile, or AbortError. */
export function submit(item) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    const { signal } = item.controller;
    request.open("POST", address("analyze-image"));
    request.timeout = TIMEOUT_MS;
    // Repeating a request after a lost answer makes no second job.
    const headers = { Accept: "application/json", "Idempotency-Key": item.requestId, ...access.headers };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded, total }) => item.update({ loaded, total }));
    request.addEventListener("load", () => {
      const answer = readBody(request.responseText);
      if (answer.job_id) resolve(answer);
      else reject(readProblem(request.status, request.responseText, request.getResponseHeader("Retry-After"), headers));
    });
    for (const event of ["error", "timeout"]) {
      request.addEventListener(event, async () => reject(await explain(item)));
    }
    request.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    request.addEventListener("loadend", () => signal.removeEventListener("abort", abort));
    signal.addEventListener("abort", abort);
    request.send(makeForm(item));
  });
}

/** Say why nothing was answered: browsers report a file that they cannot read like a lost connection. */
async function explain({ file }) {
  try {
    if (file) await readStart(file);
    return new Unreachable("The service cannot be reached.");
  } catch {
    return new UnreadableFile("The file has changed or is gone: choose it again.");
  }
}

/** Read the first bytes of a file. A slice would not do: of a file that is gone, it is empty, but no error. */
async function readStart(file) {
  const reader = file.stream().getReader();
  await reader.read();
  await reader.cancel();
}

function makeForm(item) {
  const form = new FormData();
  if (item.file) form.append("file", item.file, "image");
  else form.append("image_url", item.url);
  for (const [name, value] of toFields(item.options)) form.append(name, value);
  return form;
}
