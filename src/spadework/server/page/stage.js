// The picture: heat and outlines over it, zoom, and a probe that says which place is meant. Places are [y, x] in the picture's own pixels.

import { clamp, h, latest, s } from "./dom.js";
import * as api from "./api.js";
import { contours, heatRange, paint, peak, pool, regions } from "./map.js";
import { rough } from "./format.js";
import { on, preferences } from "./state.js";

const SHOWN = new Set(["image/png", "image/jpeg", "image/webp", "image/bmp"]);
const MOST_PIXELS = 12e6; // of an original that is shown as it is
const MAP_SIDE = 512; // live regions follow the slider at this size
const CLOSEST = 16;

export class Stage {
  constructor(signal, { onProbe, onChange }) {
    this.onProbe = onProbe;
    this.onChange = onChange; // the map has come, or there is none
    this.signal = signal;
    this.picture = h("img", { alt: "", draggable: "false", decoding: "async" });
    this.heat = h("canvas", { class: "heat", "aria-hidden": "true" });
    this.lines = s("path", { class: "line" });
    this.edge = s("path", { class: "edge" });
    this.labels = s("g", { class: "labels" });
    this.cross = s("path", { class: "cross" });
    this.shade = s("path", { class: "cross-edge" });
    this.overlay = s("svg", { class: "overlay", "aria-hidden": "true", preserveAspectRatio: "none" }, this.edge, this.lines, this.labels, this.shade, this.cross);
    this.world = h("div", { class: "world" }, this.picture, this.heat, this.overlay);
    this.note = h("p", { class: "stage-note", hidden: true });
    this.root = h("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "Picture. Shift and arrow keys move the place that is compared." },
      this.world, this.note);
    this.map = null;
    this.size = [1, 1];
    this.view = { zoom: 1, x: 0, y: 0 };
    this.fit = { scale: 1, x: 0, y: 0 };
    this.pointers = new Map();
    this.probeSoon = latest((place) => this.onProbe(place));
    this.listen();
    this.applyPreferences();
    on("preference", () => this.applyPreferences(), signal);
    const watcher = new ResizeObserver(() => this.layout());
    watcher.observe(this.root);
    signal.addEventListener("abort", () => watcher.disconnect());
  }

  applyPreferences() {
    this.heat.hidden = !preferences.heat;
    this.heat.style.opacity = preferences.opacity;
    this.overlay.classList.toggle("no-lines", !preferences.outlines);
  }

  // ---- what is shown

  async show(inspection) {
    this.inspection = inspection;
    this.map = null;
    this.probe = null;
    this.held = false;
    this.size = [inspection.height, inspection.width];
    this.overlay.setAttribute("viewBox", `0 0 ${inspection.width} ${inspection.height}`);
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    this.clear();
    this.whole();
    const gone = Boolean(inspection.files_removed_at);
    this.tell(gone ? "The picture is no longer kept: a clean-up has removed it." : "");
    this.picture.hidden = gone;
    this.picture.alt = `Picture of ${inspection.name}`;
    if (gone) return this.onChange();
    const asIs = SHOWN.has(inspection.media_type) && inspection.height * inspection.width <= MOST_PIXELS;
    this.picture.onerror = () => this.tell("The picture could not be loaded.");
    this.picture.src = api.image(inspection.id, asIs ? undefined : "view");
    if (!inspection.evidence) return this.onChange();
    try {
      const map = pool(await api.map(inspection.id, loading.signal), MAP_SIDE);
      if (loading.signal.aborted) return undefined;
      this.map = map;
      this.drawHeat();
      this.onChange();
    } catch (error) {
      if (error.name !== "AbortError") this.onChange(error);
    }
    return undefined;
  }

  clear() {
    for (const path of [this.lines, this.edge, this.cross, this.shade]) path.setAttribute("d", "");
    this.labels.replaceChildren();
    this.found = [];
    this.heat.width = this.heat.height = 1;
  }

  tell(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  drawHeat() {
    const { map } = this;
    this.heat.width = map.width;
    this.heat.height = map.height;
    const pixels = paint(map, heatRange(map, this.inspection.map_threshold));
    this.heat.getContext("2d").putImageData(new ImageData(pixels, map.width, map.height), 0, 0);
  }

  // Outline what lies above a threshold, the highest three with their score. Returns the regions, in picture pixels.
  outline(threshold) {
    if (!this.map || threshold === null) {
      this.found = [];
      for (const path of [this.lines, this.edge]) path.setAttribute("d", "");
      this.labels.replaceChildren();
      return [];
    }
    const [height, width] = this.size;
    const path = contours(this.map, threshold, [width, height]);
    this.lines.setAttribute("d", path);
    this.edge.setAttribute("d", path);
    this.found = regions(this.map, threshold).map((region) => ({ ...region, place: this.placeOf(region) }));
    this.drawLabels();
    return this.found;
  }

  placeOf({ y, x }) {
    return [Math.floor(((y + 0.5) / this.map.height) * this.size[0]), Math.floor(((x + 0.5) / this.map.width) * this.size[1])];
  }

  // The places worth a look, highest first: regions, or the map's peak where there is none.
  places() {
    if (!this.map) return [];
    const highest = peak(this.map);
    return this.found.length ? this.found.map((region) => region.place) : highest ? [this.placeOf(highest)] : [];
  }

  drawLabels() {
    const unit = 1 / (this.fit.scale * this.view.zoom); // one screen pixel
    this.labels.replaceChildren(...this.found.slice(0, 3).map((region) => {
      const [y, x] = region.place;
      const text = rough(region.score);
      const wide = (14 + 7.5 * text.length) * unit;
      const left = clamp(x + 10 * unit, 0, this.size[1] - wide);
      const top = clamp(y - 32 * unit, 0, this.size[0] - 22 * unit);
      const label = s("text", { x: left + 7 * unit, y: top + 16 * unit, "font-size": 13 * unit }, text);
      return s("g", {}, s("rect", { x: left, y: top, width: wide, height: 22 * unit, rx: 4 * unit }), label);
    }));
  }

  // ---- the probe

  mark(place) {
    this.probe = place;
    if (!place) {
      for (const path of [this.cross, this.shade]) path.setAttribute("d", "");
      return;
    }
    const [y, x] = place;
    const unit = 1 / (this.fit.scale * this.view.zoom);
    const arm = (near, far) => [[0, -1], [0, 1], [-1, 0], [1, 0]].map(([dx, dy]) =>
      `M${x + 0.5 + dx * near * unit} ${y + 0.5 + dy * near * unit}L${x + 0.5 + dx * far * unit} ${y + 0.5 + dy * far * unit}`).join("");
    this.cross.setAttribute("d", arm(5, 14));
    this.shade.setAttribute("d", arm(5, 14));
  }

  point(place) {
    this.mark(place);
    this.probeSoon(place);
  }

  // Move the probe by steps of a fiftieth of the picture.
  step(dy, dx) {
    const from = this.probe ?? this.places()[0] ?? this.size.map((side) => Math.floor(side / 2));
    const by = Math.max(1, Math.round(Math.max(...this.size) / 50 / Math.sqrt(this.view.zoom)));
    this.held = true;
    const place = [clamp(from[0] + dy * by, 0, this.size[0] - 1), clamp(from[1] + dx * by, 0, this.size[1] - 1)];
    this.keepInSight(place);
    this.point(place);
  }

  nextPeak() {
    const places = this.places();
    if (!places.length) return;
    const now = places.findIndex(([y, x]) => this.probe && y === this.probe[0] && x === this.probe[1]);
    this.held = true;
    const place = places[(now + 1) % places.length];
    this.keepInSight(place);
    this.point(place);
  }

  placeAt(event) {
    const box = this.world.getBoundingClientRect();
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.size[0]);
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.size[1]);
    return y >= 0 && x >= 0 && y < this.size[0] && x < this.size[1] ? [y, x] : null;
  }

  // ---- zoom

  layout() {
    const { clientWidth, clientHeight } = this.root;
    if (!clientWidth || !clientHeight) return;
    const [height, width] = this.size;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    this.fit = { scale, x: (clientWidth - scale * width) / 2, y: (clientHeight - scale * height) / 2 };
    const { zoom } = this.view;
    const [w, hgt] = [scale * width * zoom, scale * height * zoom];
    const within = (at, length, room) => (length <= room ? (room - length) / 2 : clamp(at, room - length, 0));
    this.view.x = within(this.view.x, w, clientWidth);
    this.view.y = within(this.view.y, hgt, clientHeight);
    Object.assign(this.world.style, { width: `${w}px`, height: `${hgt}px`, transform: `translate(${this.view.x}px, ${this.view.y}px)` });
    this.world.classList.toggle("pixels", scale * zoom > 3);
    this.root.classList.toggle("zoomed", zoom > 1);
    this.drawLabels();
    this.mark(this.probe);
  }

  whole() {
    this.view = { zoom: 1, x: 0, y: 0 };
    this.layout();
  }

  zoomBy(factor, at = null) {
    const box = this.root.getBoundingClientRect();
    const middle = at ?? { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
    const [cx, cy] = [middle.clientX - box.left, middle.clientY - box.top];
    const zoom = clamp(this.view.zoom * factor, 1, CLOSEST);
    const real = zoom / this.view.zoom;
    this.view = { zoom, x: cx - (cx - this.view.x) * real, y: cy - (cy - this.view.y) * real };
    this.layout();
    if (!at && this.probe) this.keepInSight(this.probe);
  }

  keepInSight([y, x]) {
    if (this.view.zoom === 1) return;
    const scale = this.fit.scale * this.view.zoom;
    this.view.x = this.root.clientWidth / 2 - x * scale;
    this.view.y = this.root.clientHeight / 2 - y * scale;
    this.layout();
  }

  // ---- pointers: hover compares, a click or tap holds the place, a drag moves, two fingers or the wheel zoom

  listen() {
    const { root, signal } = this;
    const options = { signal };
    root.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * 0.002), event);
    }, { signal, passive: false });
    root.addEventListener("pointerdown", (event) => this.press(event), options);
    root.addEventListener("pointermove", (event) => this.move(event), options);
    for (const kind of ["pointerup", "pointercancel"]) root.addEventListener(kind, (event) => this.release(event), options);
    root.addEventListener("dblclick", (event) => (this.view.zoom > 1 ? this.whole() : this.zoomBy(4, event)), options);
  }

  press(event) {
    if (event.button !== 0) return;
    capture(this.root, event);
    this.pointers.set(event.pointerId, event);
    this.start = { event, moved: false, view: { ...this.view } };
  }

  move(event) {
    if (!this.inspection || this.inspection.files_removed_at) return;
    if (!this.pointers.has(event.pointerId)) {
      if (event.pointerType === "mouse" && !this.held && this.map) {
        const place = this.placeAt(event);
        if (place) this.point(place);
      }
      return;
    }
    const before = this.pointers.get(event.pointerId);
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.zoomBy(apart(event) / Math.max(1, apart(before)), {
        clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 });
      this.start.moved = true;
    } else if (this.start) {
      const [dx, dy] = [event.clientX - this.start.event.clientX, event.clientY - this.start.event.clientY];
      if (Math.hypot(dx, dy) > 5) this.start.moved = true;
      if (this.start.moved && this.view.zoom > 1) {
        Object.assign(this.view, { x: this.start.view.x + dx, y: this.start.view.y + dy });
        this.layout();
      }
    }
    this.pointers.set(event.pointerId, event);
  }

  release(event) {
    const alone = this.pointers.size === 1;
    if (!this.pointers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && alone && this.start && !this.start.moved && this.map) this.hold(event);
    if (this.pointers.size === 0) this.start = null;
  }

  hold(event) {
    const place = this.placeAt(event);
    if (!place) return;
    this.held = event.pointerType !== "mouse" || !this.held; // a second click lets the probe follow the mouse again
    this.root.classList.toggle("held", this.held);
    this.point(place);
  }
}

function capture(root, event) {
  try {
    root.setPointerCapture(event.pointerId);
  } catch {
    // the pointer is gone already
  }
}
