// Every way in: choose, drop, paste, photograph, enter a URL, or take the example.

import { offerCamera } from "./camera.js";
import { byId, setText } from "./dom.js";
import { describeUnreadable, pickImages, readDrop } from "./folders.js";
import { address } from "./service.js";
import { count } from "./words.js";

/** Call `onSources` with a list of {name, file} and {name, url} for whatever is given. */
export function openIntake(onSources) {
  const takeFiles = (files) => {
    if (files.length) onSources(files.map((file) => ({ name: file.name, file })));
  };
  const takeFolder = (files, unreadable = 0) => {
    const { images, skipped } = pickImages(files);
    const text = describeSkipped(images.length, skipped, unreadable);
    byId("skipped").hidden = !text;
    setText(byId("skipped-text"), text);
    takeFiles(images);
  };
  const takeUrl = (url) => onSources([{ name: nameUrl(url), url: url.href }]);

  watchInput("files", "choose-files", takeFiles);
  watchInput("folder", "choose-folder", takeFolder);
  watchDrop(takeFiles, takeFolder, takeUrl);
  watchPaste(takeFiles, takeUrl);
  watchUrl(takeUrl);
  byId("use-example").addEventListener("click", async () => {
    const image = await (await fetch(address("page/example.jpg"))).blob();
    takeFiles([new File([image], "example.jpg", { type: image.type })]);
  });
  offerCamera((photo) => takeFiles([photo]));
}

function describeSkipped(images, skipped, unreadable) {
  const texts = [describeUnreadable(unreadable)];
  if (!images && !unreadable) texts.push("There is no image in this folder.");
  else if (skipped) texts.push(`${count(skipped, "file")} of the folder ${skipped === 1 ? "is not an image and was" : "are not images and were"} left out.`);
  return texts.filter(Boolean).join(" ");
}

function watchInput(id, button, onFiles) {
  const input = byId(id);
  byId(button).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    onFiles([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
}

function watchDrop(takeFiles, takeFolder, takeUrl) {
  const veil = byId("veil");
  let leaving = 0;
  addEventListener("dragover", (event) => {
    if (!hasSources(event.dataTransfer)) return;
    event.preventDefault();
    if (isDialogOpen()) {
      event.dataTransfer.dropEffect = "none";
      return;
    }
    veil.classList.add("open");
    clearTimeout(leaving);
    // `dragleave` also comes for every element on the way; `dragover` comes all the time.
    leaving = setTimeout(() => veil.classList.remove("open"), 200);
  });
  addEventListener("drop", async (event) => {
    if (!hasSources(event.dataTransfer)) return;
    event.preventDefault();
    veil.classList.remove("open");
    if (isDialogOpen()) return;
    const url = readUrl(event.dataTransfer.getData("text/uri-list"));
    const { files, fromFolder, unreadable } = await readDrop(event.dataTransfer);
    if (fromFolder.length || unreadable) takeFolder(fromFolder, unreadable);
    if (files.length) takeFiles(files);
    else if (url && !fromFolder.length && !unreadable) takeUrl(url);
  });
}

/** Whether files or an address are dragged. A text is for the field under it. */
function hasSources({ types }) {
  return types.includes("Files") || types.includes("text/uri-list");
}

/** Whether a dialog lies above the page: then nothing is meant for the page itself. */
function isDialogOpen() {
  return document.querySelector("dialog[open]") !== null;
}

function watchPaste(takeFiles, takeUrl) {
  addEventListener("paste", (event) => {
    if (event.defaultPrevented || isDialogOpen()) return;
    const text = event.clipboardData.getData("text/plain");
    const isInField = Boolean(event.target.closest?.("input, textarea"));
    if (isInField && text) return; // cells of a spreadsheet come as a picture, too
    const files = [...event.clipboardData.files];
    if (files.length) {
      event.preventDefault();
      // A browser calls every pasted picture image.png.
      takeFiles(files.map((file) => (file.name === "image.png" ? new File([file], "pasted image.png", { type: file.type }) : file)));
    } else if (!isInField) {
      const url = readUrl(text);
      if (url) takeUrl(url);
    }
  });
}

function watchUrl(takeUrl) {
  const input = byId("url");
  byId("url-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    const url = readUrl(/^[a-z]+:/i.test(text) ? text : `https://${text}`);
    const isWrong = !text || !url;
    setText(byId("url-error"), isWrong ? "Enter an address that begins with http:// or https://." : "");
    input.setAttribute("aria-invalid", String(isWrong));
    if (isWrong) {
      input.focus();
      return;
    }
    input.value = "";
    takeUrl(url);
  });
}

/** Read a web address; null for anything else. */
function readUrl(text) {
  try {
    const url = new URL(text.trim().split("\n")[0]);
    return /^https?:$/.test(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

function nameUrl(url) {
  const last = url.pathname.split("/").filter(Boolean).pop();
  try {
    return last ? decodeURIComponent(last) : url.host;
  } catch {
    return last;
  }
}
