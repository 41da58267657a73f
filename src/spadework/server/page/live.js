// Live: the last part large, the strip of those before it. Follows the line until somebody picks an older part.

import { announce, h, replace } from "./dom.js";
import * as api from "./api.js";
import { base, count, number, WORDS, when } from "./format.js";
import { icon, mark } from "./icons.js";
import { Inspector } from "./inspector.js";
import { handle } from "./keys.js";
import { on, state } from "./state.js";

export function live(room, _, signal) {
  let following = true;
  let looking = false; // the pointer is on the picture, or somebody writes a note: the picture stays
  let missed = 0;
  const inspector = new Inspector(signal, { onTouch: () => pause() });
  const strip = h("ol", { class: "strip", "aria-label": "Recent parts, newest first" });
  const resume = h("button", { type: "button", class: "follow", onclick: () => latest() });
  const empty = h("div", { class: "empty-view" }, icon("live", 48), h("h1", {}, "Waiting for the first part"),
    h("p", {}, "Drop a picture anywhere on this page, open Inspect, or let the line send one."), h("a", { class: "button", href: "#/inspect" }, icon("inspect"), "Inspect pictures"));
  const full = h("div", { class: "live" }, inspector.root, h("div", { class: "strip-row" }, resume, strip));

  const current = () => inspector.inspection;

  function pause() {
    following = false;
    drawFollow();
  }

  function pick(inspection, options) {
    inspector.show(inspection, options);
    drawStrip();
  }

  function latest() {
    following = true;
    missed = 0;
    if (state.recent.length) pick(state.recent[0]);
    drawFollow();
  }

  function drawFollow() {
    const held = following && looking && missed > 0;
    const news = missed ? `, ${count(missed)} new` : "";
    resume.dataset.following = following && !held;
    replace(resume, h("span", { class: "dot" }), following && !held ? "Following" : h("span", {}, held ? "Held while you look" : "Paused", news, h("u", {}, "to the latest")));
    resume.setAttribute("aria-label", following && !held ? "Following the line" : `${held ? "Held" : "Paused"}${news}. Go to the latest part`);
  }

  function card(inspection) {
    const verdict = WORDS[inspection.verdict];
    const decided = inspection.decision && (inspection.decision.kind === "normal" ? "normal" : "anomalous");
    const label = `${base(inspection.name)}, ${verdict}, score ${number(inspection.score)}, ${when(inspection.at)}${decided ? `, said to be ${inspection.decision.kind}` : ""}`;
    return h("li", {}, h("button", { type: "button", "aria-label": label, title: label, "aria-current": inspection.id === current()?.id ? "true" : null,
      data: { id: inspection.id, verdict: inspection.verdict }, onclick: () => { pick(inspection); following = inspection.id === state.recent[0]?.id; drawFollow(); } },
      inspection.files_removed_at ? icon("picture", 32) : h("img", { src: api.image(inspection.id, "thumb"), alt: "", loading: "lazy", draggable: "false" }),
      mark(inspection.verdict, 22), decided && h("span", { class: "by-person" }, mark(decided, 16))));
  }

  function drawStrip() {
    const old = new Map([...strip.children].map((item) => [item.dataset.key, item]));
    strip.replaceChildren(...state.recent.map((inspection) => {
      const key = [inspection.id, inspection.decision?.id, inspection.files_removed_at, inspection.id === current()?.id].join(" ");
      const item = old.get(key) ?? card(inspection);
      item.dataset.key = key;
      return item;
    }));
    const shown = strip.querySelector("[aria-current]");
    if (!shown) return;
    const left = shown.offsetLeft;
    const right = left + shown.offsetWidth;
    if (left < strip.scrollLeft) strip.scrollLeft = left - 8; // the strip alone: the page must not move under the finger
    else if (right > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = right - strip.clientWidth + 8;
  }

  function draw() {
    const some = state.recent.length > 0;
    const shown = some ? full : empty;
    if (room.firstChild !== shown) replace(room, shown);
    if (!some) return;
    const other = current()?.model !== state.model;
    if (other || (following && !looking)) pick(state.recent[0], { byItself: !other });
    drawStrip();
    drawFollow();
  }

  function arrived({ inspection, isNew }) {
    if (inspection.model !== state.model) return;
    if (isNew) {
      if (!following || looking) missed += 1;
      else announce(`${base(inspection.name)}: ${WORDS[inspection.verdict]}, score ${number(inspection.score)}`);
    }
    draw();
  }

  function move(by) {
    const place = state.recent.findIndex((one) => one.id === current()?.id);
    const next = state.recent[place + by];
    if (!next) return;
    pick(next);
    following = place + by === 0;
    if (following) missed = 0;
    drawFollow();
    announce(`${base(next.name)}: ${WORDS[next.verdict]}`);
  }

  function look(value) {
    looking = value;
    if (!looking && following && missed) latest();
    else drawFollow();
  }

  on("inspection", arrived, signal);
  on("recent", draw, signal);
  on("chosen", () => { following = true; missed = 0; draw(); }, signal);
  inspector.stage.root.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && look(true));
  inspector.stage.root.addEventListener("pointerleave", () => look(false));
  inspector.decision.note.addEventListener("focus", () => look(true));
  inspector.decision.note.addEventListener("blur", () => look(false));
  handle(signal, { next: () => move(1), previous: () => move(-1), latest });
  draw();
}
