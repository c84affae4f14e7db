// The options of an image as the fields of a form.

/** Return names and texts. Each label has a field of its own; no label of the page has a comma. */
export function toFields({ labels = [], ...options }) {
  const texts = Object.entries(options).map(([name, value]) => [name, String(value)]);
  return [...texts, ...labels.map((label) => ["labels", label])];
}
