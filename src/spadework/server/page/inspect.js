// Inspect: drop files or a folder, choose them, or take them with the camera; the queue with what came out.

import { announce, h, replace } from "./dom.js";
import * as api from "./api.js";
import { Camera } from "./camera.js";
import { number, plural, WORDS } from "./format.js";
import { icon, mark } from "./icons.js";
import { toast } from "./dialog.js";
import { handle } from "./keys.js";
import { add, clearDone, fromDrop, fromInput, progress, queue, retry, stopWaiting } from "./uploads.js";
import { on, state } from "./state.js";

const SHOWN = 300; // rows; the counts are of all

export function accept(files, source) {
  const taken = add(files, source);
  if (taken < files.length) toast(`${plural(files.length - taken, "file")} passed over: not named as a picture.`);
  if (taken) announce(`${plural(taken, "picture")} in the queue`);
  return taken;
}

export function inspect(room, _, signal) {
  const files = h("input", { type: "file", multiple: true, accept: "image/*,.tif,.tiff,.bmp", class: "only-heard", id: "files", tabindex: "-1", "aria-hidden": "true" });
  const folder = h("input", { type: "file", webkitdirectory: true, class: "only-heard", id: "folder", tabindex: "-1", "aria-hidden": "true" });
  for (const input of [files, folder]) {
    input.addEventListener("change", () => {
      accept(fromInput(input));
      input.value = "";
    });
  }
  const camera = new Camera(signal, (blob, label) => accept([{ file: blob, label }], "camera"));
  const drop = h("div", { class: "drop" }, icon("inspect", 36), h("p", { class: "large" }, "Drop pictures or a folder here"),
    h("p", { class: "quiet" }, "PNG, JPEG, TIFF, BMP or WebP. Nothing leaves this station."),
    h("div", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: () => files.click() }, icon("picture"), "Choose files"),
      h("button", { type: "button", onclick: () => folder.click() }, icon("folder"), "Choose a folder"), files, folder));
  const bar = h("progress", { "aria-label": "Pictures inspected" });
  const summary = h("p", { class: "summary", role: "status" });
  const stop = h("button", { type: "button", class: "small", onclick: stopWaiting }, "Stop the rest");
  const clear = h("button", { type: "button", class: "small", onclick: clearDone }, "Clear the list");
  const rows = h("ul", { class: "queue" });
  const card = h("section", { class: "card", "aria-label": "Queue" }, h("div", { class: "row" }, h("h2", {}, "Queue"), h("span", { class: "spread" }), stop, clear), bar, summary, rows);
  replace(room, h("div", { class: "inspect" }, h("div", { class: "inspect-in" }, drop, camera.root), card));

  function row(item) {
    const name = h("span", { class: "name", title: item.label }, item.label);
    if (item.state === "done") {
      const { inspection } = item;
      return h("li", { data: { state: "done", verdict: inspection.verdict } }, h("a", { href: `#/inspection/${inspection.id}` },
        h("img", { src: api.image(inspection.id, "thumb"), alt: "", loading: "lazy" }), name, mark(inspection.verdict, 20),
        h("span", { class: "word" }, WORDS[inspection.verdict]), h("span", { class: "figure" }, number(inspection.score))));
    }
    const words = { waiting: "waiting", sending: item.error ?? "inspecting…", failed: item.error };
    return h("li", { data: { state: item.state } }, h("div", {}, icon("picture", 28), name, h("span", { class: "told" }, words[item.state]),
      item.state === "failed" && h("button", { type: "button", class: "small", onclick: () => retry(item) }, "Try again")));
  }

  const shown = new Map(); // key -> [what it showed, row]
  function draw() {
    const { done, all, failed } = progress();
    bar.max = Math.max(1, all);
    bar.value = done;
    bar.hidden = all === 0;
    summary.textContent = all ? `${done} of ${plural(all, "picture")} done${failed ? `, ${failed} failed` : ""}.` : "Empty. What you drop appears here with its verdict.";
    stop.hidden = !queue.items.some((item) => item.state === "waiting");
    clear.hidden = done === 0;
    state.list = { ids: queue.items.filter((item) => item.inspection).map((item) => item.inspection.id).reverse(), from: "#/inspect" };
    const newest = queue.items.slice(-SHOWN).reverse();
    rows.replaceChildren(...newest.map((item) => {
      const content = `${item.state} ${item.error ?? ""}`;
      if (shown.get(item.key)?.[0] !== content) shown.set(item.key, [content, row(item)]);
      return shown.get(item.key)[1];
    }));
  }

  let drawn = 0;
  on("queue", () => { // thousands of files: once a frame is enough
    cancelAnimationFrame(drawn);
    drawn = requestAnimationFrame(draw);
  }, signal);
  handle(signal, { capture: () => camera.capture() });
  draw();
}

// Files dropped anywhere on the page go into the queue.
export function dropAnywhere() {
  let depth = 0;
  const shade = h("div", { id: "drop-shade", hidden: true }, h("p", {}, icon("inspect", 48), "Drop to inspect"));
  document.body.append(shade);
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const show = (value) => {
    shade.hidden = !value;
    if (!value) depth = 0;
  };
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event) || !api.may("inspect")) return;
    event.preventDefault();
    depth += 1;
    show(true);
  });
  addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth -= 1;
    if (depth <= 0) show(false);
  });
  addEventListener("drop", async (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    show(false);
    if (!api.may("inspect")) return;
    if (accept(await fromDrop(event.dataTransfer))) location.hash = "#/inspect";
  });
}
