// *This is normal* and *this is a defect*, with a note, and the way back.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { complain, toast } from "./dialog.js";
import { base, exactly, KINDS, when } from "./format.js";
import { icon, mark } from "./icons.js";
import { chosen, emit, once, state, take } from "./state.js";

const busy = new Set(); // inspections that are being decided
const undone = new Set(); // decisions that were taken back here

// Wait until nothing of an inspection is under way: who presses undo at once means what was just said.
const settled = (id) => new Promise((resolve) => {
  const look = () => (busy.has(id) ? once("busy", look) : resolve());
  look();
});

export async function decide(inspection, kind, note = "") {
  if (!api.may("decide") || busy.has(inspection.id)) return;
  if (inspection.decision) {
    toast(`${base(inspection.name)} was decided already. Undo that first.`);
    return;
  }
  if (kind === "normal" && chosen()?.can_append === false) {
    toast(`The model's method (${inspection.detector}) cannot learn from a picture.`, { kind: "error" });
    return;
  }
  busy.add(inspection.id);
  emit("busy", inspection.id);
  try {
    const made = await api.decide(inspection.id, kind, note);
    state.undoable.push({ id: made.id, inspection: inspection.id, name: inspection.name });
    take(await api.inspection(inspection.id));
    report(inspection, made);
    emit("decided", made);
  } catch (error) {
    complain(error);
  } finally {
    busy.delete(inspection.id);
    emit("busy", inspection.id);
  }
}

function report(inspection, made) {
  const action = { label: "Undo", run: () => undo(made.id, inspection) };
  const name = base(inspection.name);
  if (made.kind === "defect") toast(`${name}: kept as a defect.`, { action });
  else if (made.passes === false) toast(`${name}: added to the model, but it would still fail.`, { kind: "error", action });
  else toast(`${name}: added to the model.${made.passes ? " It passes from now on." : ""}`, { kind: "good", action });
}

export async function undo(id, inspection) {
  await settled(inspection.id);
  if (!api.may("decide") || undone.has(id)) return;
  busy.add(inspection.id);
  emit("busy", inspection.id);
  try {
    await api.undo(id);
    undone.add(id);
    state.undoable = state.undoable.filter((one) => one.id !== id);
    take(await api.inspection(inspection.id));
    toast(`${base(inspection.name)}: undone.`);
    emit("decided", null);
  } catch (error) {
    complain(error);
  } finally {
    busy.delete(inspection.id);
    emit("busy", inspection.id);
  }
}

// Undo what was decided of this inspection, or else the last decision made in this window.
export async function undoLast(inspection) {
  if (inspection) await settled(inspection.id);
  if (inspection?.decision && !undone.has(inspection.decision.id)) return undo(inspection.decision.id, inspection);
  const last = state.undoable.at(-1);
  return last ? undo(last.id, { id: last.inspection, name: last.name }) : toast("There is nothing to undo.");
}

// What was decided, in words.
export function told(decision) {
  return [mark(decision.kind === "normal" ? "normal" : "anomalous", 16), h("span", {}, "Said to be ", h("strong", {}, KINDS[decision.kind]), " by ",
    h("strong", {}, decision.who), ", ", h("time", { datetime: decision.at, title: exactly(decision.at) }, when(decision.at)))];
}

export class Decision {
  constructor() {
    this.note = h("input", { type: "text", id: "note", maxlength: 500, placeholder: "Note (optional)", "aria-label": "Note to the decision", autocomplete: "off" });
    this.note.addEventListener("keydown", (event) => event.key === "Enter" && this.note.blur());
    this.good = h("button", { type: "button", class: "decide good", onclick: () => this.say("normal") }, mark("normal", 22), "This is normal", h("kbd", {}, "G"));
    this.bad = h("button", { type: "button", class: "decide bad", onclick: () => this.say("defect") }, mark("anomalous", 22), "This is a defect", h("kbd", {}, "B"));
    this.back = h("button", { type: "button", class: "small", onclick: () => this.undo() }, icon("undo", 16), "Undo", h("kbd", {}, "U"));
    this.verdict = h("div", { class: "decided" });
    this.buttons = h("div", { class: "decide-buttons" }, this.good, this.bad);
    this.root = h("section", { class: "decision card", "aria-label": "Decision" });
  }

  say(kind) {
    if (this.inspection) decide(this.inspection, kind, this.note.value.trim()).then(() => (this.note.value = ""));
  }

  undo() {
    undoLast(this.inspection);
  }

  show(inspection) {
    if (inspection?.id !== this.inspection?.id) this.note.value = "";
    this.inspection = inspection;
    const waits = busy.has(inspection.id);
    this.root.classList.toggle("busy", waits);
    for (const button of [this.good, this.bad, this.back]) button.disabled = waits;
    const decision = inspection.decision;
    const learns = chosen()?.can_append !== false;
    const drawn = [inspection.id, decision?.id, api.user.role, learns].join(" ");
    if (this.drawn === drawn) return; // whoever writes a note keeps the focus
    this.drawn = drawn;
    this.root.hidden = !decision && !api.may("decide");
    if (decision) {
      replace(this.verdict, h("p", {}, told(decision)), decision.note && h("p", { class: "quiet note" }, decision.note));
      replace(this.root, this.verdict, api.may("decide") && this.back);
    } else {
      replace(this.buttons, learns && this.good, this.bad);
      replace(this.root, this.buttons, this.note,
        !learns && h("p", { class: "quiet" }, `The method ${inspection.detector} cannot learn from single pictures.`));
    }
  }
}
