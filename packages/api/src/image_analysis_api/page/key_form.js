// The field for the API key, where the service wants one.

import { byId, make, setText } from "./dom.js";
import { access } from "./service.js";

export function offerKeyForm() {
  const form = byId("key-form");
  const input = byId("key");
  const forget = make("button", { type: "button", className: "button small", id: "forget-key", hidden: true }, "Forget the key");
  document.querySelector(".top nav").append(forget);

  const draw = () => {
    form.hidden = !access.isBlocked;
    forget.hidden = !access.hasKey;
    setText(byId("key-error"), access.isBlocked ? (access.message ?? "") : "");
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = input.value.trim();
    // A header cannot carry anything else.
    if (!/^[\x21-\x7e]+$/.test(key)) {
      setText(byId("key-error"), "Enter the key that you were given: letters, digits and signs, without spaces.");
      input.focus();
      return;
    }
    input.value = "";
    access.use(key);
  });
  forget.addEventListener("click", () => {
    access.forget();
    input.focus();
  });
  access.addEventListener("change", draw);
  draw();
}
