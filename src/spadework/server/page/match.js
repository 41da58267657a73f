// Why: the place of this part, the normal place it was compared with, where that lies in its picture, and who added that picture.

import { h, replace, s } from "./dom.js";
import * as api from "./api.js";
import { base, exactly, number, when } from "./format.js";

export class Match {
  constructor() {
    this.here = h("img", { alt: "" });
    this.there = h("img", { alt: "" });
    this.whole = h("img", { alt: "" });
    this.frame = s("rect", { class: "frame" });
    this.locator = s("svg", { "aria-hidden": "true", preserveAspectRatio: "none" }, this.frame);
    this.told = h("div", { class: "match-told" });
    const tile = (element, caption) => h("figure", {}, h("div", { class: "tile" }, element), h("figcaption", {}, caption));
    this.tiles = h("div", { class: "tiles" }, tile(this.here, "This part"), tile(this.there, "Nearest normal"), tile([this.whole, this.locator], "Where in it"));
    this.root = h("section", { class: "match card", "aria-label": "Comparison" }, h("h2", { class: "only-heard" }, "Compared with"), this.tiles, this.told);
    this.wait("Point at a place of the picture.");
  }

  wait(text) {
    this.tiles.classList.add("empty");
    for (const picture of [this.here, this.there, this.whole]) picture.removeAttribute("src");
    this.frame.setAttribute("width", 0);
    replace(this.told, h("p", { class: "quiet" }, text));
  }

  async show(inspection, [y, x]) {
    this.asked = `${inspection.id} ${y} ${x}`;
    const asked = this.asked;
    try {
      const found = await api.match(inspection.id, y, x);
      if (this.asked === asked) this.draw(inspection, found);
    } catch (error) {
      if (this.asked === asked) this.wait(error.message);
    }
  }

  draw(inspection, { normal, box, distance, here, there }) {
    this.tiles.classList.remove("empty");
    for (const [picture, source] of [[this.here, here], [this.there, there]]) { // null: no longer kept
      if (source) picture.src = source;
      else picture.removeAttribute("src");
    }
    this.here.alt = "The place in this part";
    this.there.alt = `The nearest normal place, in ${base(normal.name)}`;
    this.locate(inspection, normal, box);
    const origin = normal.added_by
      ? ["Added by ", h("strong", {}, normal.added_by), h("time", { datetime: normal.added_at, title: exactly(normal.added_at) }, `, ${when(normal.added_at)}`)]
      : ["One of the pictures the model was made from"];
    const name = h("a", { href: `#/model?normal=${encodeURIComponent(normal.hash)}`, title: normal.name }, base(normal.name));
    replace(this.told,
      h("p", {}, normal.removed ? h("span", { title: normal.name }, base(normal.name)) : name, normal.removed && h("span", { class: "tag" }, "removed since")),
      h("p", { class: "quiet" }, origin),
      h("p", { class: "quiet" }, "Distance ", h("strong", { class: "figure" }, number(distance))));
  }

  locate(inspection, normal, [y0, x0, y1, x1]) {
    const [height, width] = normal.size ?? [inspection.height, inspection.width];
    this.whole.hidden = Boolean(normal.removed);
    const address = api.normalImage(inspection.model, normal.hash);
    if (normal.removed) this.whole.removeAttribute("src");
    else if (this.whole.getAttribute("src") !== address) this.whole.src = address;
    this.whole.alt = normal.removed ? "" : `The whole normal picture ${base(normal.name)}`;
    this.locator.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const [key, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) this.frame.setAttribute(key, value);
  }
}
