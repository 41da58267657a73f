// Small charts as SVG, each with its numbers as a table. Colours come from the style sheet.

import { h, s } from "./dom.js";
import { rough } from "./format.js";
import { makeScale, ticks } from "./scale.js";

const TALL = 230;
const ENOUGH = 4; // parts at a time, on average, for a curve of their middle: of fewer it only jumps
const [LEFT, RIGHT, TOP, BOTTOM] = [50, 10, 12, 26];
let wide = 760; // in screen pixels, set before each drawing, so that text keeps its size
export const drawAt = (width) => (wide = Math.max(280, width));
const across = (share) => LEFT + share * (wide - LEFT - RIGHT);
const up = (share) => TALL - BOTTOM - share * (TALL - TOP - BOTTOM);

// Wrap a chart: title, what it shows in words, the drawing, the table behind it.
export function figure(title, told, drawing, header, rows, legend = null) {
  return h("figure", { class: "chart card" },
    h("figcaption", {}, h("h2", {}, title), h("p", { class: "quiet" }, told)), legend, drawing,
    h("details", {}, h("summary", {}, "As a table"), h("div", { class: "table-scroll" }, h("table", {}, h("thead", {}, h("tr", {}, header.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, index) => h(index ? "td" : "th", index ? { class: "figure" } : { scope: "row" }, cell)))))))));
}

const label = (text, attributes) => s("text", attributes, text);

function frame(kind, told, scale, times) {
  const lines = (scale.marks ?? ticks(scale)).map((value) => [
    s("path", { class: "grid", d: `M${LEFT} ${up(scale.share(value))}H${wide - RIGHT}` }),
    label(rough(value), { x: LEFT - 8, y: up(scale.share(value)) + 4, "text-anchor": "end" })]);
  return s("svg", { class: `plot ${kind}`, viewBox: `0 0 ${wide} ${TALL}`, role: "img", "aria-label": told }, lines, timeAxis(times));
}

function timeAxis(times) {
  const [from, to] = [times[0], times.at(-1)];
  const days = (to - from) / 86_400_000;
  const format = new Intl.DateTimeFormat(undefined, days > 2 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" });
  return (wide < 420 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((share) => label(format.format(new Date(from + share * (to - from))), {
    x: across(share), y: TALL - 8, "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle" }));
}

const line = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

const timesOf = (items) => [...items.map((item) => Date.parse(item.from)), Date.parse(items.at(-1).to)];

function columns(items, times) {
  const span = times.at(-1) - times[0] || 1;
  return items.map((item, index) => {
    const [a, b] = [across((times[index] - times[0]) / span), across((times[index + 1] - times[0]) / span)];
    return { item, x: a, width: Math.max(1, b - a), middle: (a + b) / 2 };
  });
}

// How many parts had which score, over time: darker is more. The curve is their middle, the dashed line the threshold.
export function scoresOverTime(items, edges, threshold, told) {
  const times = timesOf(items);
  const known = items.flatMap((item) => Object.values(item.quantiles ?? {}));
  const scale = makeScale([...known, edges.at(-1), threshold].filter((value) => Number.isFinite(value) && value !== null));
  const most = Math.max(1, ...items.flatMap((item) => item.histogram));
  const svg = frame("density", told, scale, times);
  for (const { item, x, width } of columns(items, times)) {
    item.histogram.forEach((n, bin) => {
      if (!n) return;
      const [low, high] = [up(scale.share(edges[bin])), up(scale.share(edges[bin + 1]))];
      svg.append(s("rect", { class: edges[bin] >= threshold && threshold !== null ? "cell above" : "cell", x: x + 0.5, width: Math.max(1, width - 1), y: high + 0.5,
        height: Math.max(1, low - high - 1), "fill-opacity": (0.18 + 0.82 * Math.sqrt(n / most)).toFixed(3) }));
    });
  }
  const filled = items.filter((item) => item.count);
  const total = filled.reduce((sum, item) => sum + item.count, 0);
  if (total >= ENOUGH * filled.length) {
    const middles = columns(items, times).filter(({ item }) => item.quantiles).map(({ item, middle }) => [middle, up(scale.share(item.quantiles["0.5"]))]);
    svg.append(s("path", { class: "median", d: line(middles) }));
  }
  if (threshold !== null) {
    const y = up(scale.share(threshold));
    svg.append(s("path", { class: "limit", d: `M${LEFT} ${y}H${wide - RIGHT}` }), label("threshold", { x: wide - RIGHT - 4, y: y - 6, "text-anchor": "end", class: "limit-label" }));
  }
  return svg;
}

// Parts per time, those that failed apart.
export function counts(items, told) {
  const times = timesOf(items);
  const most = Math.max(1, ...items.map((item) => item.count));
  const scale = { share: (value) => value / most, marks: most > 1 ? [0, Math.round(most / 2), most] : [0, most] };
  const svg = frame("counts", told, scale, times);
  for (const { item, x, width } of columns(items, times)) {
    const [bad, all] = [up(item.anomalous / most), up(item.count / most)];
    const bar = (kind, top, bottom) => bottom > top && svg.append(s("rect", { class: kind, x: x + 1, width: Math.max(1, width - 2), y: top, height: bottom - top }));
    bar("bad", bad, up(0));
    bar("good", all, bad);
  }
  return svg;
}

// A line through the time buckets that have parts, with their mean as a dashed line.
export function drift(items, key, told) {
  const some = items.filter((item) => Number.isFinite(item[key]) && item[key] !== null);
  const times = timesOf(items);
  const values = some.map((item) => item[key]);
  const scale = makeScale([Math.min(...values) * 0.9, Math.max(...values) * 1.1]);
  const svg = frame("drift", told, scale, times);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  svg.append(s("path", { class: "mean", d: `M${LEFT} ${up(scale.share(mean))}H${wide - RIGHT}` }));
  const points = columns(items, times).filter(({ item }) => some.includes(item)).map(({ item, middle }) => [middle, up(scale.share(item[key]))]);
  svg.append(s("path", { class: "curve", d: line(points) }));
  for (const [x, y] of points) svg.append(s("circle", { class: "point", cx: x, cy: y, r: 3 }));
  svg.append(label("mean", { x: wide - RIGHT - 4, y: up(scale.share(mean)) - 6, "text-anchor": "end" }));
  return svg;
}
