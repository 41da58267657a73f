// Logging in with a token. It is sent once and kept by the browser as a cookie that no script can read.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { icon } from "./icons.js";

export function login(room, onDone) {
  const token = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true, spellcheck: "false" });
  const told = h("p", { class: "wrong", role: "alert", hidden: true });
  const submit = h("button", { type: "submit", class: "primary" }, "Log in");
  const form = h("form", { class: "login card", onsubmit: async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await api.logIn(token.value.trim());
      onDone();
    } catch (error) {
      told.textContent = error.status === 401 ? "This token is not known. Check it, or ask whoever runs the station." : [error.message, error.hint].filter(Boolean).join(" ");
      told.hidden = false;
      token.select();
    }
    submit.disabled = false;
  } }, icon("model", 36), h("h1", {}, "Log in to the station"), h("label", { for: "token" }, "Your token"), token, told, submit);
  replace(room, form);
  token.focus();
}
