// The keyboard: one table of all keys, which the help dialog shows; views say what they do.

import { h } from "./dom.js";
import { openDialog } from "./dialog.js";
import { prefer, preferences } from "./state.js";

export const KEYS = [
  ["Parts", [
    ["next", ["ArrowRight", "j"], "next in the list (older)"],
    ["previous", ["ArrowLeft", "k"], "previous in the list (newer)"],
    ["latest", ["l", "Home"], "latest part, and follow the line"],
    ["open", ["Enter"], "open the chosen row (history)"],
    ["back", ["Escape"], "back to the list; close"],
  ]],
  ["Decide", [
    ["good", ["g"], "this is normal"],
    ["bad", ["b"], "this is a defect"],
    ["undo", ["u"], "undo the decision"],
    ["note", ["n"], "write a note"],
  ]],
  ["Look", [
    ["heat", ["h"], "heat map on or off"],
    ["fainter", ["["], "heat map fainter"],
    ["stronger", ["]"], "heat map stronger"],
    ["outlines", ["o"], "outlines of regions on or off"],
    ["closer", ["+", "=", "z"], "zoom in"],
    ["farther", ["-", "x"], "zoom out"],
    ["fit", ["0"], "whole picture"],
    ["probeUp", ["Shift+ArrowUp"], "compare a place higher up"],
    ["probeDown", ["Shift+ArrowDown"], "compare a place lower down"],
    ["probeLeft", ["Shift+ArrowLeft"], "compare a place further left"],
    ["probeRight", ["Shift+ArrowRight"], "compare a place further right"],
    ["peak", ["p"], "compare the next highest region"],
    ["threshold", ["t"], "try another threshold"],
  ]],
  ["Page", [
    ["view1", ["1"], "live"],
    ["view2", ["2"], "inspect pictures"],
    ["view3", ["3"], "history"],
    ["view4", ["4"], "trends"],
    ["view5", ["5"], "model"],
    ["search", ["/"], "search the history"],
    ["capture", ["c"], "capture with the camera"],
    ["help", ["?"], "this help"],
  ]],
];

const BY_KEY = new Map(KEYS.flatMap(([, group]) => group.flatMap(([id, keys]) => keys.map((key) => [key, id]))));
const handlers = []; // the last one that handles a key wins

// Say what keys do until `signal` aborts: handle(signal, {good: () => ...}).
export function handle(signal, actions) {
  handlers.push(actions);
  signal.addEventListener("abort", () => handlers.splice(handlers.indexOf(actions), 1));
}

const writes = (element) => element.matches?.("textarea, select, input:not([type=range], [type=checkbox], [type=radio], [type=button])");
const keepsArrows = (element) => element.matches?.("input[type=range], input[type=radio]");
const presses = (element) => element.matches?.("button, a, summary, input[type=checkbox]");

function blocked(event, key) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return true;
  if (document.querySelector("dialog[open]")) return true;
  if (key === "Escape") return false;
  if (writes(target)) return true;
  if (key === "Enter" && presses(target)) return true;
  if (keepsArrows(target) && /Arrow|Home|End/.test(key)) return true;
  return !preferences.shortcuts && key.length === 1; // single characters can be switched off
}

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && writes(event.target)) {
      event.target.blur();
      return;
    }
    const named = event.shiftKey && event.key.startsWith("Arrow") ? `Shift+${event.key}` : event.key;
    const key = named.length === 1 ? named.toLowerCase() : named;
    if (blocked(event, key)) return;
    const id = BY_KEY.get(key);
    const actions = handlers.findLast((one) => one[id]);
    if (!actions) return;
    if (event.repeat && ["good", "bad", "undo", "capture"].includes(id)) return;
    event.preventDefault();
    actions[id]();
  });
}

const NAMES = { ArrowRight: "→", ArrowLeft: "←", "Shift+ArrowUp": "Shift ↑", "Shift+ArrowDown": "Shift ↓", "Shift+ArrowLeft": "Shift ←",
  "Shift+ArrowRight": "Shift →", Escape: "Esc" };

export const keyName = (id) => {
  const [, keys] = KEYS.flatMap(([, group]) => group).find(([own]) => own === id);
  return NAMES[keys[0]] ?? keys[0].toUpperCase();
};

export function showHelp() {
  const groups = KEYS.map(([title, group]) => h("section", {}, h("h3", {}, title), h("dl", { class: "keys" }, group.map(([, keys, what]) => [
    h("dt", {}, keys.filter((key) => key !== "=").map((key) => h("kbd", {}, NAMES[key] ?? key.toUpperCase()))), h("dd", {}, what)]))));
  const box = h("input", { type: "checkbox", id: "shortcuts-on", onchange: () => prefer("shortcuts", box.checked) });
  box.checked = preferences.shortcuts;
  openDialog("Keyboard", [
    h("div", { class: "key-groups" }, groups),
    h("p", { class: "quiet" }, "With the mouse: point at a place to compare it, click to hold it, wheel to zoom, drag to move. By touch: tap, pinch, drag."),
    h("label", { class: "check" }, box, " Single letters work as commands"),
  ], { wide: true });
}

