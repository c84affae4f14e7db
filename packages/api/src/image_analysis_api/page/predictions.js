// What the model sees: the best label, then a bar with its number for each prediction.

import { make } from "./dom.js";
import { percent } from "./words.js";

export function drawPredictions(result, options) {
  const best = make(
    "p",
    { className: "best" },
    make("strong", {}, result.label),
    make("span", { className: "best-share" }, percent(result.confidence)),
  );
  if (!result.predictions.length) {
    const hidden = `Every prediction is below ${percent(options.min_confidence ?? 0)}.`;
    return [best, make("p", { className: "muted" }, hidden)];
  }
  const rows = result.predictions.map(({ label, confidence }) => {
    const fill = make("span", { className: "fill" });
    fill.style.setProperty("inline-size", `${confidence * 100}%`);
    return make(
      "li",
      {},
      make("span", { className: "label", title: label }, label),
      make("span", { className: "track", attributes: { "aria-hidden": "true" } }, fill),
      make("span", { className: "share" }, percent(confidence)),
    );
  });
  return [best, make("ol", { className: "predictions", attributes: { "aria-label": "Predictions" } }, ...rows)];
}
