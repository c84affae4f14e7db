// Elements and icons. Text is only ever set as text, never as markup: names and labels come from strangers.

const SVG = "http://www.w3.org/2000/svg";

// Outlines in a box of 24 x 24.
const ICONS = {
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3 2",
  close: "M6 6l12 12M18 6L6 18",
  code: "M8.5 7L3.5 12l5 5M15.5 7l5 5-5 5",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  download: "M12 4v11m0 0l-4.5-4.5M12 15l4.5-4.5M5 20h14",
  folder: "M3 6.5h6l2 2.5h10v10.5H3z",
  image: "M4 5h16v14H4zM4 16l4.5-4.5 4 4L16 12l4 4M9 10a1 1 0 1 0 0-2 1 1 0 0 0 0 2z",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11v5M12 8v.01",
  retry: "M20 12a8 8 0 1 1-2.5-5.8M20 4v4.5h-4.5",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13",
  upload: "M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M5 20h14",
  warning: "M12 4l9 16H3zM12 10v4.5M12 17v.01",
};

export function byId(id) {
  return document.getElementById(id);
}

/** Make an element. `properties` are the element's own; `attributes` is for those that are not. */
export function make(tag, { attributes = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function icon(name) {
  const image = document.createElementNS(SVG, "svg");
  image.setAttribute("viewBox", "0 0 24 24");
  image.setAttribute("aria-hidden", "true");
  image.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  image.append(path);
  return image;
}

/** Draw the icons that the HTML names. */
export function drawIcons(root = document) {
  for (const place of root.querySelectorAll("[data-icon]")) place.replaceChildren(icon(place.dataset.icon));
}

/**
 * Make a change. If it hides or disables the element that has the focus, the first of `others` that can take the focus
 * gets it: otherwise the browser would send the keyboard back to the top of the page.
 */
export function keepFocus(change, ...others) {
  const focused = document.activeElement;
  const hadFocus = canHaveFocus(focused);
  change();
  if (hadFocus && !canHaveFocus(focused)) others.find(canHaveFocus)?.focus();
}

function canHaveFocus(element) {
  return !element.disabled && !element.closest("[hidden]");
}

/** Set a text only where it differs: screen readers and selections notice each change. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
