// History: filters, a table with pages, the keyboard on its rows.

import { announce, h, replace } from "./dom.js";
import * as api from "./api.js";
import { decide, undoLast } from "./decide.js";
import { complain } from "./dialog.js";
import { base, count, KINDS, number, WORDS, when } from "./format.js";
import { icon, mark } from "./icons.js";
import { handle } from "./keys.js";
import { on, state } from "./state.js";

const LIMIT = 25;
const kept = { filter: {}, cursors: [null], row: null }; // stays while other views are looked at; cursors: of the pages before this one, and this one

const option = (value, label) => h("option", { value }, label);
const iso = (local) => (local ? new Date(local).toISOString() : null);

export function history(room, _, signal) {
  const field = (label, input) => h("label", { class: "field" }, h("span", {}, label), input);
  const input = {
    text: h("input", { type: "search", placeholder: "Part of the name", id: "search" }),
    verdict: h("select", {}, option("", "All"), option("anomalous", "Anomalous"), option("normal", "Normal"), option("no threshold", "No threshold")),
    decision: h("select", {}, option("", "All"), option("none", "Not decided"), option("normal", "Said normal"), option("defect", "Said defect")),
    since: h("input", { type: "datetime-local" }),
    until: h("input", { type: "datetime-local" }),
    score_min: h("input", { type: "number", step: "any", inputmode: "decimal", placeholder: "any" }),
    score_max: h("input", { type: "number", step: "any", inputmode: "decimal", placeholder: "any" }),
  };
  const more = h("button", { type: "button", class: "small more-filters", "aria-expanded": "false", onclick: () => {
    more.setAttribute("aria-expanded", form.classList.toggle("open"));
  } }, "All filters");
  const form = h("form", { class: "filters card", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
    field("Name", input.text), more, field("Verdict", input.verdict), field("Decision", input.decision), field("From", input.since), field("Until", input.until),
    field("Score from", input.score_min), field("to", input.score_max), h("button", { type: "reset", class: "small" }, "Clear"));
  for (const [name, element] of Object.entries(input)) element.value = kept.filter[name] ?? "";
  const body = h("tbody");
  const head = ["", "Verdict", "Name", "Score", "Decision", "Source", "Time"].map((title, index) => h("th", { scope: "col", class: index === 3 ? "right" : null }, title || h("span", { class: "only-heard" }, "Picture")));
  const table = h("table", { class: "history-table" }, h("thead", {}, h("tr", {}, head)), body);
  const summary = h("p", { class: "quiet", role: "status" });
  const newer = h("button", { type: "button", onclick: () => turn(-1) }, icon("left", 16), "Newer");
  const older = h("button", { type: "button", onclick: () => turn(1) }, "Older", icon("right", 16));
  replace(room, h("div", { class: "history" }, h("h1", { class: "only-heard" }, "History"), form, h("div", { class: "card table-card" }, table),
    h("div", { class: "row pages" }, summary, h("span", { class: "spread" }), newer, older)));

  let items = [];
  let cursor = null; // of the next page
  let total = null;
  let asking = null;

  async function load() {
    asking?.abort();
    asking = new AbortController();
    const { since, until, ...rest } = kept.filter;
    const query = { ...rest, model: state.model, since: iso(since), until: iso(until), cursor: kept.cursors.at(-1), limit: LIMIT };
    table.classList.add("loading");
    try {
      const page = await api.find(query, asking.signal);
      if (signal.aborted) return;
      [items, cursor] = [page.items, page.cursor];
      if (kept.cursors.length === 1) total = page.total ?? null; // further pages are not counted again
      draw();
    } catch (error) {
      complain(error);
    }
    table.classList.remove("loading");
  }

  function draw() {
    state.list = { ids: items.map((one) => one.id), from: "#/history" };
    replace(body, items.map(row));
    const first = (kept.cursors.length - 1) * LIMIT + 1;
    const of = total === null ? "" : ` of ${count(total)}`;
    summary.textContent = items.length ? `${first}–${first + items.length - 1}${of}` : "Nothing fits these filters.";
    newer.disabled = kept.cursors.length === 1;
    older.disabled = !cursor;
    choose(items.some((one) => one.id === kept.row) ? kept.row : items[0]?.id, false);
  }

  const cells = (one) => {
    const decided = one.decision;
    return [
      h("td", { class: "thumb" }, one.files_removed_at ? icon("picture", 32) : h("img", { src: api.image(one.id, "thumb"), alt: "", loading: "lazy" })),
      h("td", { class: "verdict-cell", data: { verdict: one.verdict } }, mark(one.verdict, 18), h("span", {}, WORDS[one.verdict])),
      h("td", { class: "name" }, h("a", { href: `#/inspection/${one.id}`, title: one.name }, base(one.name))),
      h("td", { class: "figure right" }, number(one.score)),
      h("td", { class: "decision-cell" }, decided && [mark(decided.kind === "normal" ? "normal" : "anomalous", 14), h("span", { title: decided.note || null }, `${KINDS[decided.kind]}, ${decided.who}`)]),
      h("td", { class: "quiet source" }, `${one.source}, ${one.who}`),
      h("td", { class: "figure time" }, h("time", { datetime: one.at }, when(one.at))),
    ];
  };

  function row(one) {
    return h("tr", { data: { id: one.id }, onclick: (event) => {
      kept.row = one.id;
      if (!event.target.closest("a")) location.hash = `#/inspection/${one.id}`;
    } }, cells(one));
  }

  const rowOf = (id) => body.querySelector(`[data-id="${Number(id)}"]`);
  const current = () => items.find((one) => one.id === kept.row);

  function choose(id, loud = true) {
    rowOf(kept.row)?.removeAttribute("aria-current");
    kept.row = id ?? null;
    const element = id && rowOf(id);
    if (!element) return;
    element.setAttribute("aria-current", "true");
    if (!loud) return;
    element.scrollIntoView({ block: "nearest" });
    announce(`${base(current().name)}, ${WORDS[current().verdict]}`);
  }

  function move(by) {
    const place = items.findIndex((one) => one.id === kept.row);
    if (items[place + by]) choose(items[place + by].id);
    else if (by > 0 && cursor) turn(1);
    else if (by < 0 && kept.cursors.length > 1) turn(-1);
  }

  function turn(by) {
    if (by > 0) kept.cursors.push(cursor);
    else kept.cursors.pop();
    kept.row = null;
    load();
  }

  let soon = 0;
  function filtered() {
    clearTimeout(soon);
    soon = setTimeout(() => {
      kept.filter = Object.fromEntries(Object.entries(input).map(([name, element]) => [name, element.value.trim()]).filter(([, value]) => value));
      kept.cursors = [null];
      load();
    }, 200);
  }
  form.addEventListener("input", filtered);
  form.addEventListener("reset", () => setTimeout(filtered));

  on("inspection", ({ inspection, isNew }) => {
    const place = items.findIndex((one) => one.id === inspection.id);
    if (place >= 0) {
      items[place] = inspection;
      replace(rowOf(inspection.id), cells(inspection));
    } else if (isNew && kept.cursors.length === 1 && inspection.model === state.model) {
      clearTimeout(soon);
      soon = setTimeout(load, 500);
    }
  }, signal);
  on("chosen", () => { kept.cursors = [null]; load(); }, signal);
  handle(signal, {
    next: () => move(1),
    previous: () => move(-1),
    open: () => kept.row && (location.hash = `#/inspection/${kept.row}`),
    search: () => input.text.focus(),
    good: () => current() && decide(current(), "normal"),
    bad: () => current() && decide(current(), "defect"),
    undo: () => api.may("decide") && undoLast(current()),
  });
  signal.addEventListener("abort", () => asking?.abort());
  load();
}
