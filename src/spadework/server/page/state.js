// What the views share: models, recent inspections, what this browser prefers.

const bus = new EventTarget();
export const on = (kind, run, signal) => bus.addEventListener(kind, (event) => run(event.detail), { signal });
export const once = (kind, run) => bus.addEventListener(kind, run, { once: true });
export const emit = (kind, detail) => bus.dispatchEvent(new CustomEvent(kind, { detail }));

export const KEPT = 60; // recent inspections in the strip
export const SCORES = 500; // of recent parts, for the threshold

export const state = {
  models: [],
  model: null, // the name of the one chosen
  recent: [], // newest first, of the chosen model
  scores: [], // likewise
  connection: "connecting",
  trial: null, // a threshold that is only tried out
  undoable: [], // decisions made in this window, last one last
  list: null, // ids and cursor of the history's list, for next and previous
};

export const chosen = () => state.models.find((model) => model.name === state.model) ?? null;

const newer = (a, b) => (b.at === a.at ? b.id - a.id : b.at < a.at ? -1 : 1);

const seen = new Set();
let oldest = 0; // the lowest number that the strip began with: what lies below and was not seen is no news

// Take up an inspection, new or changed.
export function take(inspection) {
  const isNew = !seen.has(inspection.id) && inspection.id > oldest;
  seen.add(inspection.id);
  if (inspection.model === state.model) {
    const place = state.recent.findIndex((one) => one.id === inspection.id);
    if (place >= 0) state.recent[place] = inspection;
    else if (isNew) state.recent = [inspection, ...state.recent].sort(newer).slice(0, KEPT);
    if (isNew) {
      state.scores = [inspection.score, ...state.scores].slice(0, SCORES);
      emit("scores");
    }
  }
  emit("inspection", { inspection, isNew });
}

// Take up the newest ones, as the history has them.
export function takeMany(inspections, scores) {
  const known = new Set(inspections.map((one) => one.id));
  const others = state.recent.filter((one) => !known.has(one.id) && one.model === state.model);
  if (!seen.size && inspections.length === KEPT) oldest = Math.min(...known);
  for (const id of known) seen.add(id);
  state.recent = [...inspections, ...others].sort(newer).slice(0, KEPT);
  state.scores = scores;
  emit("recent");
  emit("scores");
}

export function takeModel(model) {
  const place = state.models.findIndex((one) => one.name === model.name);
  if (place >= 0) state.models[place] = { ...state.models[place], ...model };
  emit("model", model.name);
}

// ---- preferences, kept in this browser

const DEFAULTS = { theme: "auto", heat: true, outlines: true, opacity: 0.7, shortcuts: true, model: null };
const STORE = "spadework-station";

function stored() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(STORE) ?? "{}") };
  } catch {
    return { ...DEFAULTS }; // no storage in a private window: the defaults do
  }
}

export const preferences = stored();

export function prefer(name, value) {
  preferences[name] = value;
  try {
    localStorage.setItem(STORE, JSON.stringify(preferences));
  } catch {
    // kept for this window only
  }
  emit("preference", name);
}
