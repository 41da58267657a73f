// One inspection from the history, with the way to its neighbours in the list.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { exactly } from "./format.js";
import { icon } from "./icons.js";
import { Inspector } from "./inspector.js";
import { handle } from "./keys.js";
import { told } from "./decide.js";
import { on, state } from "./state.js";

export async function one(room, { id }, signal) {
  const number = Number(id);
  const inspection = await api.inspection(number);
  if (signal.aborted) return;
  const inspector = new Inspector(signal);
  const ids = state.list?.ids ?? state.recent.map((other) => other.id);
  const place = ids.indexOf(number);
  const go = (by) => ids[place + by] !== undefined && place >= 0 && location.replace(`#/inspection/${ids[place + by]}`);
  const step = (name, label, by) => h("button", { type: "button", class: "plain", "aria-label": label, disabled: place < 0 || ids[place + by] === undefined, onclick: () => go(by) }, icon(name));
  const said = h("div", { class: "said" });
  const where = place >= 0 ? `${place + 1} of ${ids.length}` : "";
  replace(room, h("div", { class: "one" },
    h("div", { class: "crumbs" }, h("a", { href: state.list?.from ?? "#/history" }, icon("left", 16), state.list ? "Back to the list" : "History"),
      h("span", { class: "spread" }), h("span", { class: "quiet" }, where), step("left", "Previous part", -1), step("right", "Next part", 1)),
    inspector.root));
  inspector.root.querySelector(".more").after(said);
  inspector.show(inspection);

  async function drawSaid() {
    const all = await api.decisions(number).catch(() => []);
    const undone = all.filter((decision) => decision.undone_at);
    replace(said, undone.length > 0 && h("section", { class: "card", "aria-label": "Undone decisions" }, h("h2", {}, "Undone"),
      undone.map((decision) => h("p", { class: "quiet" }, told(decision), `; undone by ${decision.undone_by}, ${exactly(decision.undone_at)}`))));
  }

  on("decided", drawSaid, signal);
  handle(signal, { next: () => go(1), previous: () => go(-1), back: () => (location.hash = state.list?.from ?? "#/history") });
  drawSaid();
}
