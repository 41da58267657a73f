// Trends: scores over time, how many parts failed, and how far the parts lie from the nearest normal picture.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { counts, drift, figure, scoresOverTime } from "./charts.js";
import { complain } from "./dialog.js";
import { count, exactly, number, percent, plural, rough } from "./format.js";
import { icon } from "./icons.js";
import { chosen, on, state } from "./state.js";

const HOUR = 3_600_000;
const SPANS = [["8", "8 hours"], ["24", "24 hours"], ["168", "7 days"], ["720", "30 days"], ["", "all"]];
let span = "24";

// Either one list of edges for all, or a histogram that brings its own.
function readable(answer) {
  const items = (Array.isArray(answer) ? answer : answer.items ?? []).map((item) => {
    const own = Array.isArray(item.histogram) ? item.histogram : item.histogram?.counts ?? [];
    return { ...item, histogram: own };
  });
  const edges = answer.edges ?? answer.items?.[0]?.histogram?.edges ?? [];
  return { items, edges };
}

export function trends(room, _, signal) {
  const buttons = SPANS.map(([hours, label]) => h("button", { type: "button", class: "choice", data: { hours }, onclick: () => { span = hours; load(); } }, label));
  const charts = h("div", { class: "charts" });
  replace(room, h("div", { class: "trends" }, h("div", { class: "row" }, h("h1", {}, "Trends"), h("span", { class: "spread" }), h("div", { class: "choices", role: "group", "aria-label": "Time" }, buttons)), charts));

  async function load() {
    for (const button of buttons) button.setAttribute("aria-pressed", button.dataset.hours === span);
    if (!state.model) return;
    const since = span ? new Date(Date.now() - Number(span) * HOUR).toISOString() : null;
    try {
      const answer = readable(await api.series(state.model, { since, buckets: 48 }));
      if (!signal.aborted) draw(answer);
    } catch (error) {
      complain(error);
    }
  }

  function draw({ items, edges }) {
    const all = items.reduce((sum, item) => sum + item.count, 0);
    if (!all) {
      replace(charts, h("div", { class: "empty-view" }, icon("trends", 48), h("h2", {}, "No parts in this time"), h("p", {}, "Choose a longer one.")));
      return;
    }
    const threshold = chosen()?.threshold?.value ?? null;
    const bad = items.reduce((sum, item) => sum + item.anomalous, 0);
    const filled = items.filter((item) => item.count);
    const rows = (cells) => filled.map((item) => [exactly(item.from), ...cells(item)]);
    const quantile = (item, q) => number(item.quantiles?.[q] ?? item.quantiles?.[`p${100 * q}`]);
    const told = `${plural(all, "part")}; ${count(bad)} anomalous (${percent(bad / all)}).`;
    const parts = [];
    if (edges.length) {
      parts.push(figure("Scores over time", `${told} Darker: more parts of that score.`,
        scoresOverTime(items, edges, threshold, `Scores over time. ${told} Threshold ${number(threshold)}.`),
        ["From", "Parts", "Low (10 %)", "Middle", "High (90 %)"], rows((item) => [count(item.count), quantile(item, 0.1), quantile(item, 0.5), quantile(item, 0.9)])));
    }
    const key = items.some((item) => item.nearest_distance !== undefined) ? "nearest_distance" : "mean_nearest_distance";
    const distances = filled.map((item) => item[key]).filter((value) => value !== null && value !== undefined);
    if (distances.length) {
      const [first, last] = [distances[0], distances.at(-1)];
      const change = distances.length > 1 ? ` From ${rough(first)} to ${rough(last)} (${last >= first ? "+" : "−"}${percent(Math.abs(last / first - 1))}).` : "";
      const words = `Mean distance to the nearest normal picture.${change} A steady rise: parts, light or camera have changed.`;
      parts.push(figure("Drift", words, drift(items, key, words), ["From", "Parts", "Mean distance"], rows((item) => [count(item.count), number(item[key])])));
    }
    const legend = h("p", { class: "legend" }, h("span", { class: "swatch good" }), "normal", h("span", { class: "swatch bad" }), "anomalous");
    parts.push(figure("Parts and failures", told, counts(items, `Parts over time. ${told}`), ["From", "Parts", "Anomalous", "Share"],
      rows((item) => [count(item.count), count(item.anomalous), percent(item.anomalous / item.count)]), legend));
    replace(charts, parts);
  }

  on("chosen", load, signal);
  load();
  const timer = setInterval(load, 60_000);
  signal.addEventListener("abort", () => clearInterval(timer));
}
