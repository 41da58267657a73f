// The queue of pictures to inspect: files and whole folders, two at a time. It lives on while the views change.

import * as api from "./api.js";
import { chosen, emit, state, take } from "./state.js";

const AT_ONCE = 2;
const TRIES = 8;
const LONGEST = 200; // characters of a name; of a deep folder the end counts
const PICTURE = /\.(png|jpe?g|tiff?|bmp|webp)$/i;

export const queue = { items: [], running: 0 };
let numbers = 0;

export const progress = () => {
  const done = queue.items.filter((item) => item.state === "done" || item.state === "failed").length;
  return { done, all: queue.items.length, failed: queue.items.filter((item) => item.state === "failed").length };
};

// Put files in the queue: [{file, label}]. Other files than pictures are passed over. Returns how many went in.
export function add(files, source = "upload") {
  const pictures = files.filter(({ file }) => source === "camera" || PICTURE.test(file.name) || file.type.startsWith("image/"));
  for (const { file, label } of pictures) {
    queue.items.push({ key: (numbers += 1), file, label: (label || file.name).slice(-LONGEST), size: file.size, source, model: state.model, state: "waiting", tries: 0 });
  }
  emit("queue");
  for (let free = AT_ONCE - queue.running; free > 0; free -= 1) work();
  return pictures.length;
}

export function retry(item) {
  Object.assign(item, { state: "waiting", tries: 0, error: null });
  emit("queue");
  if (queue.running < AT_ONCE) work();
}

export function stopWaiting() {
  queue.items = queue.items.filter((item) => item.state !== "waiting");
  emit("queue");
}

export function clearDone() {
  queue.items = queue.items.filter((item) => item.state === "waiting" || item.state === "sending");
  emit("queue");
}

async function work() {
  queue.running += 1;
  for (;;) {
    const item = queue.items.find((one) => one.state === "waiting");
    if (!item) break;
    item.state = "sending";
    emit("queue");
    await send(item);
    emit("queue");
  }
  queue.running -= 1;
}

async function send(item) {
  try {
    if (!chosen()) throw new Error("There is no model to inspect with.");
    const inspection = await api.inspect(item.model, item.file, item);
    Object.assign(item, { state: "done", inspection, file: null });
    take(inspection);
  } catch (error) {
    const busy = error.status === 429 || error.status === 503 || error.status === 0;
    item.tries += 1;
    if (busy && item.tries < TRIES) { // the station is busy or away: it says how long
      item.state = "sending";
      item.error = `${error.message} Trying again.`;
      emit("queue");
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(error.wait ?? 2 ** item.tries / 2, 15)));
      item.state = "waiting";
    } else {
      Object.assign(item, { state: "failed", error: [error.message, error.hint].filter(Boolean).join(" ") });
    }
  }
}

// ---- what was dropped or chosen

export const fromInput = (input) => [...input.files].map((file) => ({ file, label: file.webkitRelativePath || file.name }));

export async function fromDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean); // before the first await: they go stale
  if (!entries.length) return [...transfer.files].map((file) => ({ file, label: file.name }));
  const found = [];
  for (const entry of entries) await walk(entry, "", found);
  return found.sort((a, b) => (a.label < b.label ? -1 : 1));
}

async function walk(entry, above, found) {
  if (entry.name.startsWith(".")) return;
  const path = above + entry.name;
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
    if (file) found.push({ file, label: path });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a reader gives a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)).catch(() => []);
    if (!some.length) return;
    for (const inner of some) await walk(inner, `${path}/`, found);
  }
}
