// Starts the page: who is there, which models, live events, and which view the address asks for.

import { h, replace } from "./dom.js";
import * as api from "./api.js";
import { complain } from "./dialog.js";
import { undoLast } from "./decide.js";
import { listen } from "./events.js";
import { history } from "./history.js";
import { icon } from "./icons.js";
import { dropAnywhere, inspect } from "./inspect.js";
import { handle, showHelp, startKeys } from "./keys.js";
import { live } from "./live.js";
import { login } from "./login.js";
import { modelView } from "./model.js";
import { one } from "./one.js";
import { trends } from "./trends.js";
import { progress } from "./uploads.js";
import { chosen, emit, KEPT, on, prefer, preferences, SCORES, state, take, takeMany, takeModel } from "./state.js";

const VIEWS = [["live", "Live", live], ["inspect", "Inspect", inspect], ["history", "History", history], ["trends", "Trends", trends], ["model", "Model", modelView]];
const THEMES = { auto: ["auto", "Theme: as the system has it"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };

const main = document.getElementById("main");
const notice = document.getElementById("notice");
let view = new AbortController();
let connection = new AbortController();
let retry = () => {};
let ready = false;

// ---- frame

const connected = h("div", { class: "connection", role: "status" });
const theme = h("button", { type: "button", class: "plain", onclick: nextTheme });
const picker = h("select", { id: "model-choice", "aria-label": "Model", onchange: () => choose(picker.value) });
const who = h("div", { class: "who" });
const busy = h("a", { class: "busy-queue", href: "#/inspect", hidden: true });

function drawFrame() {
  const links = () => VIEWS.map(([name, label]) => h("a", { href: `#/${name}`, data: { view: name } }, icon(name), h("span", {}, label)));
  replace(document.getElementById("top"), h("a", { class: "brand", href: "#/live", "aria-label": "Spadework, to the live view" }, h("img", { src: "static/icon.svg", alt: "", width: 26, height: 26 }), h("span", {}, "Spadework")),
    picker, h("nav", { class: "links", "aria-label": "Views" }, ready && links()), h("span", { class: "spread" }), busy, ready && connected, who, theme,
    h("button", { type: "button", class: "plain", "aria-label": "Keyboard help", title: "Keyboard help (?)", onclick: showHelp }, icon("help")));
  replace(document.getElementById("tabs"), ready && links());
  drawUser();
  drawTheme();
  drawModels();
  drawConnection();
  markView();
}

function drawUser() {
  const known = ready && api.user.who && api.user.who !== "local";
  replace(who, known && [h("span", { title: `Role: ${api.user.role}` }, api.user.who), h("button", { type: "button", class: "plain", "aria-label": "Log out", title: "Log out", onclick: leave }, icon("leave"))]);
}

function drawModels() {
  picker.hidden = !ready || state.models.length === 0;
  replace(picker, state.models.map((model) => h("option", { value: model.name, selected: model.name === state.model }, model.name)));
  picker.value = state.model;
  picker.disabled = state.models.length < 2;
}

function drawTheme() {
  const [name, label] = THEMES[preferences.theme];
  document.documentElement.dataset.theme = preferences.theme;
  replace(theme, icon(name));
  theme.setAttribute("aria-label", label);
  theme.title = label;
}

function nextTheme() {
  const names = Object.keys(THEMES);
  prefer("theme", names[(names.indexOf(preferences.theme) + 1) % names.length]);
  drawTheme();
}

function drawConnection() {
  const words = { live: "Live", lost: "Not connected", connecting: "Connecting" };
  connected.dataset.state = state.connection;
  replace(connected, h("span", { class: "dot" }), h("span", {}, words[state.connection]));
  const lost = ready && state.connection === "lost";
  document.body.classList.toggle("lost", lost);
  notice.hidden = !lost;
  if (lost && !notice.firstChild) {
    replace(notice, h("strong", {}, "Not connected to the station."), " What you see may be out of date. Trying again… ", h("button", { type: "button", class: "small", onclick: () => retry() }, "Try now"));
  }
  if (!lost) notice.replaceChildren();
}

function drawQueue() {
  const { done, all } = progress();
  busy.hidden = done === all;
  busy.textContent = `${done} / ${all}`;
  busy.setAttribute("aria-label", `${done} of ${all} pictures inspected`);
}

// ---- views

function route() {
  const [, path = "", search = ""] = /^#?\/?([^?]*)\??(.*)$/.exec(location.hash) ?? [];
  const [name, id] = path.split("/");
  return { name: name || "live", id, ...Object.fromEntries(new URLSearchParams(search)) };
}

function markView() {
  const { name } = route();
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name || (name === "inspection" && link.dataset.view === "history")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function show() {
  if (!ready) return;
  view.abort();
  view = new AbortController();
  const { signal } = view;
  const asked = route();
  const [, label, draw] = VIEWS.find(([name]) => name === asked.name) ?? (asked.name === "inspection" ? [null, "Part", one] : VIEWS[0]);
  document.title = `${label} – Spadework station`;
  main.dataset.view = asked.name;
  markView();
  main.scrollTo(0, 0);
  try {
    await draw(main, asked, signal);
  } catch (error) {
    if (!signal.aborted) replace(main, h("div", { class: "empty-view" }, h("h1", {}, "This cannot be shown"), h("p", {}, error.message), h("a", { class: "button", href: "#/history" }, "To the history")));
  }
}

// ---- data

async function loadRecent() {
  if (!state.model) return;
  const [page, scores] = await Promise.all([api.find({ model: state.model, limit: KEPT }), api.scores(state.model, SCORES)]);
  takeMany(page.items, scores);
}

function choose(name) {
  Object.assign(state, { model: name, recent: [], trial: null, scores: [], list: null });
  prefer("model", name);
  loadRecent().then(() => emit("chosen"), complain);
}

async function loadModels() {
  state.models = await api.models();
  const known = state.models.some((model) => model.name === state.model);
  if (!known) state.model = (state.models.find((model) => model.name === preferences.model) ?? state.models[0])?.name ?? null;
}

function happened(kind, data) {
  if (kind === "inspection") {
    take(data);
  } else if (kind === "decision") {
    const decision = data.decision ?? data;
    if (data.inspection) take(data.inspection);
    else api.inspection(decision.inspection_id).then(take, () => {});
  } else if (kind === "model") {
    takeModel(data);
  } else if (kind === "resync") { // away for long, or the station was started again
    loadRecent().catch(() => {});
    loadModels().then(() => emit("model", state.model), () => {});
  }
}

function connect() {
  connection.abort();
  connection = new AbortController();
  retry = listen({ signal: connection.signal, onEvent: happened, onState: (now) => {
    const again = state.connection === "lost" && now === "live";
    state.connection = now;
    drawConnection();
    if (now === "live") loadRecent().catch(() => {});
    if (again) loadModels().then(drawModels, () => {});
  } });
}

// ---- start, log in, log out

async function begin() {
  try {
    await api.session();
    if (!api.user.role) throw new api.ServiceError(401);
    await loadModels();
  } catch (error) {
    if (error.status === 401) askToken();
    else waitForService(error);
    return;
  }
  ready = true;
  drawFrame();
  await loadRecent().catch(complain);
  connect();
  show();
}

function waitForService(error) {
  replace(main, h("div", { class: "empty-view" }, h("h1", {}, "Not connected to the station"), h("p", {}, error.message), h("button", { type: "button", class: "primary", onclick: begin }, "Try now")));
  drawFrame();
  setTimeout(() => ready || main.querySelector(".login") || begin(), 3000);
}

function askToken() {
  ready = false;
  connection.abort();
  view.abort();
  document.querySelector("dialog[open]")?.close();
  main.dataset.view = "login";
  drawFrame();
  login(main, begin);
}

async function leave() {
  await api.logOut().catch(() => {});
  Object.assign(state, { recent: [], models: [], undoable: [], list: null, trial: null });
  askToken();
}

api.loggedOut.addEventListener("out", () => ready && askToken());
addEventListener("hashchange", show);
on("queue", drawQueue);
on("model", () => { if (chosen()) drawModels(); });
const forever = new AbortController().signal;
handle(forever, {
  help: showHelp,
  undo: () => ready && api.may("decide") && undoLast(null),
  search: () => { location.hash = "#/history"; setTimeout(() => document.getElementById("search")?.focus(), 50); },
  latest: () => { location.hash = "#/live"; },
  ...Object.fromEntries(VIEWS.map(([name], index) => [`view${index + 1}`, () => { if (ready) location.hash = `#/${name}`; }])),
});
startKeys();
dropAnywhere();
drawFrame();
begin();
