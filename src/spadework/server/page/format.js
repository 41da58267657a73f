// Numbers and times as people read them, in the browser's language and time zone.

const score4 = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });
const score3 = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat();
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const WORDS = { normal: "Normal", anomalous: "Anomalous", "no threshold": "No threshold" };
export const KINDS = { normal: "normal", defect: "a defect" };

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const number = (value) => (known(value) ? score4.format(value) : "–");
export const rough = (value) => (known(value) ? score3.format(value) : "–");
export const count = (value) => (known(value) ? whole.format(value) : "–");
export const percent = (share) => (known(share) ? `${score3.format(100 * share)} %` : "–");
export const milliseconds = (seconds) => (known(seconds) ? `${score3.format(1000 * seconds)} ms` : "–");
export const time = (iso) => clock.format(new Date(iso));
export const exactly = (iso) => full.format(new Date(iso));
export const hash = (text) => (text ? text.slice(0, 12) : "–");
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

// The time alone for today, with the day before it otherwise.
export function when(iso) {
  const at = new Date(iso);
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : `${day.format(at)}, ${short.format(at)}`;
}

// A file's name without its folders.
export const base = (path) => (path ?? "").split(/[\\/]/).pop() || path || "picture";
