// One inspection, whole: the picture, the verdict, the threshold to try, the comparison, the decision. Used by the live view and the history.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { Decision, decide, undoLast } from "./decide.js";
import { base, exactly, hash, milliseconds, number, WORDS, when } from "./format.js";
import { icon, mark } from "./icons.js";
import { handle, keyName } from "./keys.js";
import { Match } from "./match.js";
import { Stage } from "./stage.js";
import { Threshold } from "./threshold.js";
import { toast } from "./dialog.js";
import { on, prefer, preferences, state } from "./state.js";

const JUST = 600; // ms: a decision this soon after the part changed by itself was meant for the one before

const button = (name, label, key, run) => h("button", { type: "button", class: "plain", "aria-label": label, title: `${label} (${keyName(key)})`, onclick: run }, icon(name));

export class Inspector {
  constructor(signal, { onTouch = () => {} } = {}) {
    this.inspection = null;
    this.stage = new Stage(signal, { onProbe: (place) => this.compare(place), onChange: (error) => this.mapped(error) });
    this.match = new Match();
    this.threshold = new Threshold(signal);
    this.decision = new Decision();
    this.verdict = h("div", { class: "verdict" });
    this.facts = h("dl", { class: "facts" });
    this.title = h("div", { class: "title" });
    this.root = h("div", { class: "inspector" },
      h("section", { class: "look", "aria-label": "Picture" }, this.bar(), this.stage.root),
      h("aside", { class: "panel" }, this.verdict, this.decision.root, this.match.root, this.threshold.root,
        h("details", { class: "card more" }, h("summary", {}, "Details"), this.facts)));
    this.stage.root.addEventListener("pointerdown", onTouch);
    this.listen(signal);
  }

  bar() {
    this.heat = h("button", { type: "button", class: "plain toggle", onclick: () => prefer("heat", !preferences.heat) }, icon("heat"), h("span", { class: "wide-only" }, "Heat"));
    this.outlines = h("button", { type: "button", class: "plain toggle", onclick: () => prefer("outlines", !preferences.outlines) }, icon("outline"),
      h("span", { class: "wide-only" }, "Outlines"));
    this.opacity = h("input", { type: "range", min: 0, max: 1, step: 0.05, class: "opacity", "aria-label": "Opacity of the heat map",
      oninput: () => prefer("opacity", Number(this.opacity.value)) });
    this.showPreferences();
    return h("div", { class: "look-bar" }, this.title, h("div", { class: "tools", role: "toolbar", "aria-label": "Picture" },
      this.heat, this.opacity, this.outlines,
      button("minus", "Zoom out", "farther", () => this.stage.zoomBy(1 / 1.5)),
      button("plus", "Zoom in", "closer", () => this.stage.zoomBy(1.5)),
      button("fit", "Whole picture", "fit", () => this.stage.whole())));
  }

  showPreferences() {
    for (const [element, name, label] of [[this.heat, "heat", "Heat map"], [this.outlines, "outlines", "Outlines"]]) {
      element.setAttribute("aria-pressed", preferences[name]);
      element.setAttribute("aria-label", label);
      element.title = `${label} (${keyName(name)})`;
    }
    this.opacity.value = preferences.opacity;
    this.opacity.disabled = !preferences.heat;
  }

  listen(signal) {
    on("preference", () => this.showPreferences(), signal);
    on("trial", () => this.outline(), signal);
    on("inspection", ({ inspection }) => inspection.id === this.inspection?.id && this.refresh(inspection), signal);
    on("busy", (id) => id === this.inspection?.id && this.decision.show(this.inspection), signal);
    on("model", () => this.inspection && this.decision.show(this.inspection), signal);
    const shade = (by) => prefer("opacity", Math.round(20 * Math.min(1, Math.max(0, preferences.opacity + by))) / 20);
    const say = (kind) => () => this.inspection && this.settled() && decide(this.inspection, kind, this.decision.note.value.trim()).then(() => (this.decision.note.value = ""));
    handle(signal, {
      good: say("normal"),
      bad: say("defect"),
      undo: () => api.may("decide") && undoLast(this.inspection),
      note: () => this.decision.note.focus(),
      heat: () => prefer("heat", !preferences.heat),
      outlines: () => prefer("outlines", !preferences.outlines),
      fainter: () => shade(-0.1),
      stronger: () => shade(0.1),
      closer: () => this.stage.zoomBy(1.5),
      farther: () => this.stage.zoomBy(1 / 1.5),
      fit: () => this.stage.whole(),
      probeUp: () => this.stage.step(-1, 0),
      probeDown: () => this.stage.step(1, 0),
      probeLeft: () => this.stage.step(0, -1),
      probeRight: () => this.stage.step(0, 1),
      peak: () => this.stage.nextPeak(),
      threshold: () => this.threshold.focus(),
    });
  }

  // A key pressed just as the next part came in was meant for the one before it.
  settled() {
    if (!this.byItself || performance.now() - this.shownAt > JUST) return true;
    toast("The part had just changed. Look again, then decide.");
    return false;
  }

  show(inspection, { byItself = false } = {}) {
    if (inspection.id === this.inspection?.id) return this.refresh(inspection);
    this.byItself = byItself;
    this.shownAt = performance.now();
    this.stage.root.classList.remove("held");
    this.inspection = inspection;
    this.drawWhat();
    this.match.wait(inspection.evidence ? "Point at a place of the picture." : "This detector keeps no map, so there is nothing to compare.");
    this.refresh(inspection);
    return this.stage.show(inspection);
  }

  // What may have changed of the same inspection: what was decided of it. The rest stays as it is, focus and all.
  refresh(inspection) {
    this.inspection = inspection;
    this.decision.show(inspection);
    this.threshold.show(inspection);
  }

  drawWhat() {
    const { inspection } = this;
    this.drawVerdict();
    replace(this.title, h("h1", { title: inspection.name }, base(inspection.name)),
      h("p", { class: "quiet" }, h("time", { datetime: inspection.at, title: exactly(inspection.at) }, when(inspection.at)), ` · ${inspection.source}, ${inspection.who}`));
    this.drawFacts();
  }

  drawVerdict() {
    const { verdict, score, threshold } = this.inspection;
    this.verdict.dataset.verdict = verdict;
    const told = threshold === null ? `score ${number(score)}` : `score ${number(score)} ${score > threshold ? "above" : "within"} ${number(threshold)}`;
    replace(this.verdict, mark(verdict, 58), h("div", {}, h("p", { class: "word" }, WORDS[verdict] ?? verdict), h("p", { class: "figures" }, told)));
  }

  drawFacts() {
    const one = this.inspection;
    const rows = [
      ["Number", String(one.id)], ["File", one.name], ["Inspected", exactly(one.at)], ["Size", `${one.width} × ${one.height}, ${one.media_type}`],
      ["Regions", String(one.regions.length)], ["Nearest picture", one.nearest.length ? `${base(one.nearest[0].name)}, ${number(one.nearest[0].distance)}` : "–"],
      ["Time", Object.entries(one.timings).map(([what, seconds]) => `${what} ${milliseconds(seconds)}`).join(", ") || "–"],
      ["Model", `${one.model}, ${one.detector}, ${hash(one.model_hash)}`], ["Network", hash(one.backbone_hash)], ["Picture", hash(one.picture)],
    ];
    replace(this.facts, rows.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));
  }

  // ---- map, outlines, comparison

  mapped(error) {
    if (error) this.match.wait(error.message);
    this.outline();
    const [first] = this.stage.places();
    if (first && !this.stage.probe) this.stage.point(first);
    this.root.dispatchEvent(new CustomEvent("shown", { detail: this.inspection.id }));
  }

  // The map's threshold for a trial of the image's: in the same proportion.
  mapThreshold() {
    const { threshold, map_threshold: mapThreshold } = this.inspection;
    if (state.trial === null) return mapThreshold;
    return threshold > 0 && mapThreshold !== null ? (mapThreshold * state.trial) / threshold : state.trial;
  }

  outline() {
    if (!this.inspection) return;
    const found = this.stage.outline(this.mapThreshold());
    this.root.dataset.regions = found.length;
    const label = found.length === 1 ? "1 region" : `${found.length} regions`;
    this.stage.root.setAttribute("aria-label",
      `Picture of ${base(this.inspection.name)}, ${label} above the threshold. Shift and arrow keys move the place that is compared.`);
  }

  async compare(place) {
    await this.match.show(this.inspection, place);
  }
}
