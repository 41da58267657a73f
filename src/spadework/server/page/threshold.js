// Try another threshold: the scores of recent parts, the slider under them, what share would fail. Changes nothing in the model.

import { h, replace, s } from "./dom.js";
import { failing } from "./map.js";
import { count, number, percent, rough } from "./format.js";
import { histogram, makeScale } from "./scale.js";
import { emit, on, state } from "./state.js";

const STEPS = 1000;
const BINS = 40;
const [WIDE, TALL] = [1000, 100];

export class Threshold {
  constructor(signal) {
    this.scores = [];
    this.bars = s("g", { class: "bars" });
    this.limit = s("path", { class: "limit" });
    this.own = s("path", { class: "own" });
    this.chart = s("svg", { class: "scores", viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.bars, this.limit, this.own);
    this.slider = h("input", { type: "range", id: "trial", min: 0, max: STEPS, step: 1, oninput: () => this.slide() });
    this.value = h("output", { class: "figure", for: "trial" });
    this.told = h("p", { class: "share", role: "status" });
    this.reset = h("button", { type: "button", class: "small", onclick: () => this.set(null) }, "Reset");
    this.root = h("section", { class: "threshold card", "aria-label": "Threshold" },
      h("div", { class: "row" }, h("h2", {}, h("label", { for: "trial" }, "Try a threshold")), this.value, this.reset),
      h("div", { class: "slider" }, this.chart, this.slider), this.told);
    on("scores", () => this.draw(), signal);
  }

  focus() {
    this.slider.focus();
  }

  show(inspection) {
    this.inspection = inspection;
    this.draw();
  }

  get actual() {
    return this.inspection?.threshold ?? null;
  }

  set(value) {
    state.trial = value;
    this.draw();
    emit("trial");
  }

  slide() {
    const value = this.scale.value(Number(this.slider.value) / STEPS);
    state.trial = value;
    this.write();
    emit("trial");
  }

  draw() {
    if (!this.inspection) return;
    const scores = state.scores ?? [];
    const { score, map_threshold: mapThreshold } = this.inspection;
    this.scale = makeScale([...scores, score, this.actual, mapThreshold].filter((value) => value !== null));
    const counts = histogram(scores, this.scale, BINS);
    const most = Math.max(...counts, 1);
    replace(this.bars, counts.map((n, index) => n > 0 && s("rect", {
      x: (index / BINS) * WIDE + 2, width: WIDE / BINS - 4, y: TALL - 8 - 84 * Math.sqrt(n / most), height: 84 * Math.sqrt(n / most) + 8 })));
    const at = (value) => this.scale.share(value) * WIDE;
    this.limit.setAttribute("d", this.actual === null ? "" : `M${at(this.actual)} 0V${TALL}`);
    this.own.setAttribute("d", `M${at(score) - 12} 0h24l-12 20z`);
    this.slider.value = Math.round(STEPS * this.scale.share(state.trial ?? this.actual ?? score));
    this.write();
  }

  write() {
    const value = state.trial ?? this.actual;
    this.reset.hidden = state.trial === null;
    this.value.textContent = number(value);
    const scores = state.scores ?? [];
    const [above, all] = failing(scores, value ?? Infinity);
    const passes = value === null ? null : !(this.inspection.score > value);
    this.slider.setAttribute("aria-valuetext", `${rough(value)}: ${above} of ${all} recent parts would fail`);
    replace(this.told,
      all ? [h("strong", {}, percent(above / all)), ` of the last ${count(all)} parts would fail (${count(above)}). `] : "No recent parts. ",
      passes !== null && h("span", {}, `This one would ${passes ? "pass" : "fail"}.`));
  }
}
