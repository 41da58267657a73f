// The service as functions. Answers that are lists may come bare or as {"items": [...]}.

const BASE = new URL("api/v1/", document.baseURI);

export const user = { who: null, role: null, csrf: null };
export const loggedOut = new EventTarget(); // "out" whenever the service wants a token

const RANKS = { inspect: 1, decide: 2, manage: 3 };
export const may = (role) => (RANKS[user.role] ?? 0) >= RANKS[role];

export class ServiceError extends Error {
  constructor(status, { code = "error", message = "", hint = "" } = {}, wait = null) {
    super(message || (status ? `The service answered ${status}.` : "The service does not answer."));
    Object.assign(this, { status, code, hint, wait });
  }
}

export function address(path, query = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
}

export async function request(method, path, { query, json, body, type, signal, headers = {} } = {}) {
  const sent = { ...headers };
  if (json !== undefined) sent["Content-Type"] = "application/json";
  else if (type) sent["Content-Type"] = type;
  if (method !== "GET" && user.csrf) sent["X-CSRF-Token"] = user.csrf;
  let response;
  try {
    const content = json === undefined ? body : JSON.stringify(json);
    response = await fetch(address(path, query), { method, headers: sent, body: content, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0);
  }
  if (!response.ok) throw await refusal(response, path);
  return response;
}

async function refusal(response, path) {
  const told = await response.json().catch(() => ({}));
  if (response.status === 401 && path !== "session") loggedOut.dispatchEvent(new Event("out"));
  const wait = Number(response.headers.get("Retry-After")) || null;
  return new ServiceError(response.status, told.error, wait);
}

async function read(path, query, signal) {
  return (await request("GET", path, { query, signal })).json();
}

async function send(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json().catch(() => null);
}

const list = (answer, key = "items") => (Array.isArray(answer) ? answer : answer[key] ?? answer.items ?? []);
const part = encodeURIComponent;

export async function session() {
  return Object.assign(user, await read("session"));
}
export const logIn = (token) => send("POST", "session", { json: { token } }).then(session);
export async function logOut() {
  await send("DELETE", "session");
  Object.assign(user, { who: null, role: null, csrf: null });
}

export const models = async () => list(await read("models"), "models");
export const model = (name) => read(`models/${part(name)}`);
export const reload = (name) => send("POST", `models/${part(name)}/reload`);
export const setRate = (name, rate) => send("PUT", `models/${part(name)}/threshold`, { json: { max_false_alarms: rate } });
export const normals = async (name, offset, limit) => {
  const answer = await read(`models/${part(name)}/normals`, { offset, limit });
  return { items: list(answer), total: answer.total ?? null };
};
export const normalImage = (name, key) => address(`models/${part(name)}/normals/${part(key)}/image`);
export const removeNormal = (name, key) => send("DELETE", `models/${part(name)}/normals/${part(key)}`);
export const addNormal = (name, file) =>
  send("POST", `models/${part(name)}/normals`, { body: file, type: file.type || "application/octet-stream", query: { name: file.name } });
export const changes = async (name) => list(await read(`models/${part(name)}/changes`)).map((one) => ({ ...one, ...(one.made ?? {}) }));
export const series = (name, query) => read(`models/${part(name)}/series`, query);
export const scores = async (name, last = 500) => {
  const answer = await read(`models/${part(name)}/scores`, { last });
  return list(answer, "scores").map((one) => (typeof one === "number" ? one : one.score));
};

export const inspect = (name, file, { label, source, signal }) =>
  send("POST", `models/${part(name)}/inspections`,
    { body: file, type: file.type || "application/octet-stream", query: { name: label, source }, signal });
export const find = (query, signal) => read("inspections", query, signal);
export const inspection = (id) => read(`inspections/${id}`);
export const image = (id, size) => address(`inspections/${id}/image`, { size });
export const match = (id, y, x) => read(`inspections/${id}/match`, { y, x });
export const decisions = async (id) => list(await read(`inspections/${id}/decisions`));
export const decide = (id, kind, note) => send("POST", `inspections/${id}/decisions`, { json: { kind, note } });
export const undo = (id) => send("POST", `decisions/${id}/undo`);

// The anomaly map: {height, width, data: Float32Array}.
export async function map(id, signal) {
  const response = await request("GET", `inspections/${id}/map.f32`, { query: { size: "view" }, signal });
  const [height, width] = response.headers.get("X-Shape").split(",").map(Number);
  return { height, width, data: new Float32Array(await response.arrayBuffer()) };
}
