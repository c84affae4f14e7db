// The dialog with the code of a result: choose a language, copy.

import { byId, setText } from "./dom.js";
import { access, address } from "./service.js";
import { SNIPPETS } from "./snippets.js";

const COPIED_MS = 2000;

export class CodeDialog {
  #dialog = byId("code-dialog");
  #request = null;

  constructor(announce) {
    for (const input of this.#dialog.querySelectorAll("[name=language]")) input.addEventListener("change", () => this.#draw());
    byId("copy-code").addEventListener("click", async () => {
      await copy(byId("code"));
      announce("Copied.");
      setText(byId("copy-code-text"), "Copied");
      setTimeout(() => setText(byId("copy-code-text"), "Copy"), COPIED_MS);
    });
  }

  open({ name, url, options }) {
    this.#request = { base: address("."), name, url, options, hasKey: access.hasKey };
    this.#draw();
    this.#dialog.showModal();
  }

  #draw() {
    const snippet = SNIPPETS[this.#dialog.querySelector("[name=language]:checked").value];
    setText(byId("code"), snippet.write(this.#request));
    setText(byId("code-hint"), snippet.hint(this.#request));
  }
}

/** Copy an element's text. Outside of HTTPS and localhost, browsers have only the old command. */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    getSelection().selectAllChildren(element);
    document.execCommand("copy");
  }
}
