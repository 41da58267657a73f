// The model: what it promises, the normal pictures it holds and where they came from, what was changed and by whom.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { ask, complain, toast } from "./dialog.js";
import { base, count, exactly, hash, number, percent, plural, when } from "./format.js";
import { icon } from "./icons.js";
import { chosen, on, state, takeModel } from "./state.js";

const PAGE = 48;
const MOST = 200; // that the service lists at once
const WHAT = { append: "Added", remove: "Removed", threshold: "Threshold moved", reload: "Loaded again" };

const rateOf = (model) => model.max_false_alarms ?? model.threshold?.asked ?? model.settings?.max_false_alarms ?? null;
const promiseOf = ({ threshold }) => {
  if (!threshold || threshold.value === null) return "No threshold: it takes at least two different normal pictures.";
  return `At most ${percent(threshold.promised)} of normal parts fail, from ${plural(threshold.n, "normal picture")}.${threshold.promised > threshold.asked
    ? ` ${percent(threshold.asked)} was asked for; that takes ${count(Math.ceil(1 / threshold.asked) - 1)}.` : ""}`;
};

export function modelView(room, { normal }, signal) {
  const facts = h("div", { class: "card model-facts" });
  const grid = h("ul", { class: "normals" });
  const title = h("h2", {}, "Normal pictures");
  const more = h("button", { type: "button", onclick: () => loadNormals(false) }, "Show more");
  const log = h("ol", { class: "changes" });
  const add = h("input", { type: "file", multiple: true, accept: "image/*,.tif,.tiff,.bmp", class: "only-heard", tabindex: "-1", "aria-hidden": "true" });
  const addButton = h("button", { type: "button", class: "small", onclick: () => add.click() }, icon("plus", 16), "Add pictures");
  replace(room, h("div", { class: "model" },
    h("div", { class: "model-side" }, facts, h("section", { class: "card", "aria-label": "Changes" }, h("h2", {}, "Changes"), log)),
    h("section", { class: "card", "aria-label": "Normal pictures" }, h("div", { class: "row" }, title, h("span", { class: "spread" }), api.may("manage") && [addButton, add]), grid, more)));
  let shown = [];
  let total = null;

  async function loadFacts() {
    const model = await api.model(state.model);
    if (signal.aborted) return;
    state.models = state.models.map((one) => (one.name === model.name ? { ...one, ...model } : one));
    drawFacts(model);
  }

  const field = h("input", { type: "number", id: "rate", min: 0.01, max: 99, step: "any", required: true, inputmode: "decimal", oninput: () => (typed = true) });
  let typed = false; // what somebody types stays while the page is drawn again
  const form = h("form", { class: "rate", onsubmit: (event) => {
    event.preventDefault();
    typed = false;
    run(() => api.setRate(state.model, Number(field.value) / 100), "The threshold was moved.");
  } }, h("label", { for: "rate" }, "False alarms at most"), h("span", { class: "unit" }, field, "%"), h("button", { type: "submit" }, "Set"));
  const told = h("div", { class: "told-facts" });
  replace(facts, told, api.may("manage") && [form, h("button", { type: "button", class: "small", onclick: () => reload() }, icon("reload", 16), "Load again from disk")]);

  function drawFacts(model) {
    const rate = rateOf(model);
    if (!typed) field.value = rate === null ? "" : Number((100 * rate).toPrecision(6));
    const rows = [["Normal pictures", count(model.n_normal)], ["Method", model.detector], ["Threshold", number(model.threshold?.value)],
      ["Map threshold", number(model.map_threshold?.value)], ["Model", hash(model.model_hash)], ["Network", hash(model.backbone_hash)]];
    replace(told, h("h1", {}, model.name), h("dl", { class: "facts" }, rows.map(([key, value]) => [h("dt", {}, key), h("dd", { class: "figure" }, value)])),
      h("p", { class: "promise" }, promiseOf(model)));
  }

  async function run(change, done) {
    try {
      const answer = await change();
      if (answer?.name) takeModel(answer);
      toast(done, { kind: "good" });
      await loadAll();
    } catch (error) {
      complain(error);
    }
  }

  const reload = () => run(() => api.reload(state.model), "The model was loaded again.");

  async function loadNormals(fresh = true) {
    const page = await api.normals(state.model, fresh ? 0 : shown.length, fresh ? Math.min(Math.max(PAGE, shown.length), MOST) : PAGE);
    if (signal.aborted) return;
    shown = fresh ? page.items : [...shown, ...page.items];
    total = page.total ?? shown.length;
    title.textContent = `Normal pictures (${count(total)})`;
    more.hidden = shown.length >= total;
    replace(grid, shown.map(card));
    const asked = normal && grid.querySelector(`[data-hash="${CSS.escape(normal)}"]`);
    if (asked && fresh) {
      asked.classList.add("asked");
      asked.scrollIntoView({ block: "center" });
    }
  }

  function card(one) {
    const name = base(one.name);
    const origin = one.added_by ? [`Added by ${one.added_by}`, h("time", { datetime: one.added_at, title: exactly(one.added_at) }, when(one.added_at))] : ["From the start"];
    return h("li", { data: { hash: one.hash } }, h("img", { src: api.normalImage(state.model, one.hash), alt: `Normal picture ${name}`, loading: "lazy" }),
      h("div", { class: "caption" }, h("p", { class: "name", title: one.name }, name), h("p", { class: "quiet" }, origin.map((line) => h("span", {}, line))),
        Number.isFinite(one.score) && h("p", { class: "quiet" }, "Score ", h("span", { class: "figure" }, number(one.score)))),
      api.may("manage") && (total ?? 2) > 1 && h("button", { type: "button", class: "plain remove", "aria-label": `Remove ${name}`, title: "Remove from the model", onclick: () => remove(one) }, icon("trash", 18)));
  }

  async function remove(one) {
    const name = base(one.name);
    const sure = await ask("Remove this normal picture?", [
      h("img", { class: "ask-picture", src: api.normalImage(state.model, one.hash), alt: name }),
      h("p", {}, h("strong", {}, name), one.added_by ? `, added by ${one.added_by}.` : ", from the start."),
      h("p", {}, "The model forgets it at once. Parts that look like it alone may be called anomalous from then on.")], { yes: "Remove", danger: true });
    if (sure) run(() => api.removeNormal(state.model, one.hash), `${name} was removed.`);
  }

  async function loadChanges() {
    const all = await api.changes(state.model);
    if (signal.aborted) return;
    replace(log, all.length ? all.map(changed) : h("li", { class: "quiet" }, "Nothing was changed since the model was made."));
  }

  function changed(one) {
    const rate = one.detail?.max_false_alarms;
    const what = one.pictures?.length ? ` ${plural(one.pictures.length, "picture")}` : rate ? ` to ${percent(rate)}` : "";
    return h("li", {}, h("p", {}, h("strong", {}, WHAT[one.what] ?? one.what), what, one.inspection_id && [" from ", h("a", { href: `#/inspection/${one.inspection_id}` }, `part ${one.inspection_id}`)]),
      h("p", { class: "quiet" }, `${one.who}, `, h("time", { datetime: one.at, title: exactly(one.at) }, when(one.at))));
  }

  const loadAll = () => Promise.all([loadFacts(), loadNormals(), loadChanges()]).catch(complain);

  add.addEventListener("change", async () => {
    const files = [...add.files];
    add.value = "";
    let added = 0;
    for (const file of files) {
      try {
        await api.addNormal(state.model, file);
        added += 1;
      } catch (error) {
        complain(error);
      }
    }
    if (added) toast(`${plural(added, "normal picture")} added.`, { kind: "good" });
    loadAll();
  });

  if (!state.model || !chosen()) return;
  on("model", (name) => name === state.model && loadAll(), signal);
  on("chosen", () => { typed = false; loadAll(); }, signal);
  loadAll();
}
