// Dialogs and short messages.

import { h } from "./dom.js";
import { icon } from "./icons.js";

let counter = 0;

// A modal dialog; Esc and the cross close it, the focus goes back where it was.
export function openDialog(title, content, { wide = false, actions = [] } = {}) {
  const id = `dialog-${(counter += 1)}`;
  const dialog = h("dialog", { class: wide ? "wide" : "", "aria-labelledby": id });
  const close = () => dialog.close();
  dialog.append(
    h("header", {}, h("h2", { id }, title), h("button", { class: "plain", type: "button", "aria-label": "Close", onclick: close }, icon("close"))),
    h("div", { class: "dialog-body" }, content));
  if (actions.length) dialog.append(h("footer", {}, actions));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// Ask before something that is not easily taken back. Resolves to true or false.
export function ask(title, content, { yes, danger = false }) {
  return new Promise((resolve) => {
    let answer = false;
    const decide = (value) => () => {
      answer = value;
      dialog.close();
    };
    const cancel = h("button", { type: "button", autofocus: true, onclick: decide(false) }, "Cancel");
    const dialog = openDialog(title, content, { actions: [
      cancel, h("button", { type: "button", class: danger ? "danger" : "primary", onclick: decide(true) }, yes)] });
    dialog.addEventListener("close", () => resolve(answer));
    cancel.focus();
  });
}

// A message that goes away by itself; with an action it stays longer. Errors stay until they are closed.
export function toast(text, { kind = "info", action = null, hint = "" } = {}) {
  const room = document.getElementById("toasts");
  const close = () => box.remove();
  const box = h("div", { class: `toast ${kind}` },
    h("p", {}, text, hint && h("span", { class: "hint" }, ` ${hint}`)),
    action && h("button", { type: "button", onclick: () => { close(); action.run(); } }, action.label),
    h("button", { class: "plain", type: "button", "aria-label": "Close message", onclick: close }, icon("close", 16)));
  room.append(box);
  while (room.children.length > 3) room.firstChild.remove();
  if (kind !== "error") setTimeout(close, action ? 10_000 : 5_000);
  return box;
}

export const complain = (error) => {
  if (error?.name !== "AbortError") toast(error.message, { kind: "error", hint: error.hint ?? "" });
};
