// Server-Sent Events over `fetch`: an `EventSource` cannot send the header with the API key.

import { access, call, get, Problem } from "./service.js";

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 10_000;

/** Read the events of a stream as {id, data}, from a body of bytes. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { id: "", data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line); // U+2028 and U+2029 end no line here
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = { ...event, data: [] };
        } else if (field === "data") {
          event.data.push(text);
        } else if (field === "id") {
          event.id = text;
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Follow an item's job to its end. Reconnects from the last event, whatever restarts. */
export async function follow(item) {
  const { signal } = item.controller;
  let lastId = "";
  let retryMs = FIRST_RETRY_MS;
  while (!item.hasEnded && !signal.aborted) {
    await access.ready();
    let waitMs = 0;
    try {
      const headers = { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
      const answer = await call(`analysis-status/${item.jobId}/events`, { headers, signal });
      if (answer.status === 204) {
        item.apply(await get(`analysis-status/${item.jobId}`, { signal }));
        return;
      }
      if (item.note === "reconnecting") item.update({ note: "" });
      for await (const { id, data } of readEvents(answer.body)) {
        lastId = id;
        retryMs = FIRST_RETRY_MS;
        item.apply(JSON.parse(data));
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.isFinal) {
        item.fail(error.code, error.message);
        return;
      }
      waitMs = error.retryAfterMs ?? 0;
    }
    if (item.hasEnded || signal.aborted) return;
    item.update({ note: "reconnecting" });
    // Spread over a time, so that the tabs of many users do not come back at once.
    await new Promise((resolve) => setTimeout(resolve, Math.max(waitMs, retryMs * (0.5 + Math.random() / 2))));
    retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
  }
}
