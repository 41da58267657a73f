// Making elements. Text always becomes a text node, so nothing that came from outside is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function replace(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return parent;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Say something to those who listen rather than look; at most every second, the last word wins.
let pending = null;
let saidAt = 0;
export function announce(text) {
  clearTimeout(pending);
  pending = setTimeout(() => {
    saidAt = Date.now();
    document.getElementById("announcer").textContent = text;
  }, Math.max(50, saidAt + 1000 - Date.now()));
}

// The latest call wins, one runs at a time: what a moving pointer asks for.
export function latest(run) {
  let busy = false;
  let waiting = null;
  return async function ask(...what) {
    if (busy) {
      waiting = what;
      return;
    }
    busy = true;
    try {
      await run(...what);
    } finally {
      busy = false;
      const next = waiting;
      waiting = null;
      if (next) ask(...next);
    }
  };
}
