// The page's own drawings. Verdicts differ in shape: a circle passes, an octagon stops, a square asks.

import { s } from "./dom.js";

const LINES = {
  live: ["M3 12h4l3-7 4 14 3-7h4"],
  inspect: ["M12 16V4", "M7 9l5-5 5 5", "M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3"],
  history: ["M4 6h16", "M4 12h16", "M4 18h10"],
  trends: ["M4 4v16h16", "M8 15l4-5 3 3 5-7"],
  model: ["M12 3l9 5-9 5-9-5z", "M3 12.5l9 5 9-5", "M3 17l9 5 9-5"],
  help: ["M9.5 9a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7", "M12 16.8v.2", "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2"],
  moon: ["M20 14.5A8.5 8.5 0 1 1 9.5 4 7 7 0 0 0 20 14.5z"],
  auto: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 3v18", "M12 7h6M12 12h8.5M12 17h6"],
  heat: ["M12 3c1 4 5 5.5 5 10.5a5 5 0 0 1-10 0c0-2 1-3.3 2-4.3.3 1.5 1 2.3 1.8 2.6C10.5 8.5 10.8 5.5 12 3z"],
  outline: ["M4 8V5a1 1 0 0 1 1-1h3M16 4h3a1 1 0 0 1 1 1v3M20 16v3a1 1 0 0 1-1 1h-3M8 20H5a1 1 0 0 1-1-1v-3", "M9 9h6v6H9z"],
  plus: ["M12 5v14M5 12h14"],
  minus: ["M5 12h14"],
  fit: ["M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5"],
  undo: ["M9 14L4 9l5-5", "M4 9h10a6 6 0 0 1 0 12h-3"],
  trash: ["M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5"],
  close: ["M6 6l12 12M18 6L6 18"],
  left: ["M15 5l-7 7 7 7"],
  right: ["M9 5l7 7-7 7"],
  folder: ["M3 6a1 1 0 0 1 1-1h5l2 2h9a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1z"],
  camera: ["M4 8h4l2-3h4l2 3h4v11H4z", "M12 10a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z"],
  leave: ["M14 4h5a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1h-5", "M10 8l-4 4 4 4M6 12h10"],
  reload: ["M20 11a8 8 0 1 0-2 6", "M20 5v6h-6"],
  picture: ["M4 5h16v14H4z", "M4 16l5-5 4 4 3-3 4 4"],
};

export function icon(name, size = 20) {
  const lines = LINES[name].map((d) => s("path", { d }));
  return s("svg", { class: "icon", viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true" }, lines);
}

const SHAPES = {
  normal: ["M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20z", "M7 12.5l3.5 3.5 6.5-7.5"],
  anomalous: ["M7.9 2h8.2L22 7.9v8.2L16.1 22H7.9L2 16.1V7.9z", "M8 8l8 8M16 8l-8 8"],
  "no threshold": ["M3 3h18v18H3z", "M9.3 9.3a2.7 2.7 0 1 1 3.9 2.4c-.8.4-1.2.9-1.2 1.9M12 17v.2"],
};

// The shape of a verdict, filled: `mark("normal")`.
export function mark(verdict, size = 20) {
  const [ground, sign] = SHAPES[verdict] ?? SHAPES["no threshold"];
  return s("svg", { class: "mark", viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true", "data-verdict": verdict },
    s("path", { class: "ground", d: ground }), s("path", { class: "sign", d: sign }));
}
