// The notice while images wait in this page, with a countdown.

import { byId, setText } from "./dom.js";
import { count, countdown } from "./words.js";

const TICK_MS = 250;
export const REASONS = {
  limit: "The service limits how many images it accepts.",
  busy: "The service is busy.",
  offline: "The service cannot be reached.",
};

export function showPauses(outbox, announce) {
  let shown = "";
  const draw = () => {
    const { reason, pausedMs, length } = outbox;
    byId("pause").hidden = !reason;
    if (reason) {
      const waiting = `${count(length, "image")} ${length === 1 ? "waits" : "wait"} in this page`;
      setText(byId("pause-text"), `${REASONS[reason]} ${waiting}; the next one is sent in ${countdown(pausedMs)}.`);
      // Once: a countdown that is read out every second would drown everything else.
      if (reason !== shown) announce(`${REASONS[reason]} ${waiting}. They are sent later, without any action of yours.`);
    }
    shown = reason;
  };
  outbox.addEventListener("change", draw);
  setInterval(() => outbox.reason && draw(), TICK_MS);
}
