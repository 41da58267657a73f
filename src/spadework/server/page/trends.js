// Trends: scores over time, how many parts failed, and how far the parts lie from the nearest normal picture.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { counts, drawAt, drift, figure, scoresOverTime } from "./charts.js";
import { complain } from "./dialog.js";
import { count, exactly, number, percent, plural, rough } from "./format.js";
import { icon } from "./icons.js";
import { chosen, on, state } from "./state.js";

const HOUR = 3_600_000;
const SPANS = [["8", "8 hours"], ["24", "24 hours"], ["168", "7 days"], ["720", "30 days"], ["", "all"]];
let span = "24";

// How the last third of the time compares with the first.
function changeOf(items, key) {
  const third = Math.floor(items.length / 3);
  if (!third) return "";
  const mean = (some) => some.reduce((sum, item) => sum + item.count * item[key], 0) / some.reduce((sum, item) => sum + item.count, 0);
  const [first, last] = [mean(items.slice(0, third)), mean(items.slice(-third))];
  if (!(first > 0)) return "";
  if (Math.abs(last / first - 1) < 0.01) return `Unchanged from the first to the last third (${rough(first)}). `;
  return `First to last third: ${rough(first)} to ${rough(last)} (${last >= first ? "+" : "−"}${percent(Math.abs(last / first - 1))}). `;
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
      const answer = await api.series(state.model, { since, buckets: 40 });
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
    const quantile = (item, q) => number(item.quantiles?.[q]);
    const told = `${plural(all, "part")}; ${count(bad)} anomalous (${percent(bad / all)}).`;
    const parts = [];
    const room = charts.clientWidth;
    const half = room > 760 ? room / 2 - 36 : room - 30;
    drawAt(room - 30);
    if (edges.length) {
      parts.push(figure("Scores over time", `${told} Darker: more parts of that score.`,
        scoresOverTime(items, edges, threshold, `Scores over time. ${told} Threshold ${number(threshold)}.`),
        ["From", "Parts", "Low (5 %)", "Middle", "High (95 %)"], rows((item) => [count(item.count), quantile(item, 0.05), quantile(item, 0.5), quantile(item, 0.95)])));
    }
    const key = "nearest_distance";
    const known = filled.filter((item) => Number.isFinite(item[key]));
    drawAt(half);
    if (known.length) {
      const words = `Mean distance to the nearest normal picture. ${changeOf(known, key)}A steady rise: parts, light or camera have changed.`;
      parts.push(figure("Drift", words, drift(items, key, words), ["From", "Parts", "Mean distance"], rows((item) => [count(item.count), number(item[key])])));
    }
    const legend = h("p", { class: "legend" }, h("span", { class: "swatch good" }), "normal", h("span", { class: "swatch bad" }), "anomalous");
    parts.push(figure("Parts and failures", told, counts(items, `Parts over time. ${told}`), ["From", "Parts", "Anomalous", "Share"],
      rows((item) => [count(item.count), count(item.anomalous), percent(item.anomalous / item.count)]), legend));
    replace(charts, parts);
  }

  on("chosen", load, signal);
  let soon = 0;
  let width = 0;
  const watcher = new ResizeObserver(() => {
    clearTimeout(soon);
    if (width && Math.abs(width - charts.clientWidth) > 20) soon = setTimeout(load, 200);
    width = charts.clientWidth;
  });
  watcher.observe(charts);
  signal.addEventListener("abort", () => watcher.disconnect());
  load();
  const timer = setInterval(load, 60_000);
  signal.addEventListener("abort", () => clearInterval(timer));
}
