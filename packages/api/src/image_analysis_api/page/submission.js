// One POST /analyze-image. It uses XMLHttpRequest because `fetch` does not tell how much of a body was sent.

import { toFields } from "./fields.js";
import { access, address, readBody, readProblem } from "./service.js";

const TIMEOUT_MS = 180_000;

/** Where nothing answers: the network, or a service that restarts. */
export class Unreachable extends Error {}

/** Send an item; return the body of a 200 or a 202. Throws a Problem, Unreachable, or AbortError. */
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
      request.addEventListener(event, () => reject(new Unreachable("The service cannot be reached.")));
    }
    request.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    request.addEventListener("loadend", () => signal.removeEventListener("abort", abort));
    signal.addEventListener("abort", abort);
    request.send(makeForm(item));
  });
}

function makeForm(item) {
  const form = new FormData();
  if (item.file) form.append("file", item.file, "image");
  else form.append("image_url", item.url);
  for (const [name, value] of toFields(item.options)) form.append(name, value);
  return form;
}
