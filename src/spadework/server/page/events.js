// Live events: server-sent events, read by hand. Unlike EventSource this sees the service's heartbeat, so a connection that died silently is noticed,
// and a refusal for want of a token.

import { ServiceError, loggedOut, request } from "./api.js";

const SILENCE = 40_000; // the service says something every 15 s
const LONGEST = 10_000;

export function parser(tell) {
  let rest = "";
  return (text) => {
    const blocks = (rest + text.replaceAll("\r", "")).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { kind: "message", id: null, data: "" };
      for (const line of block.split("\n")) {
        const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name === "event") event.kind = value;
        else if (name === "id") event.id = value;
        else if (name === "data") event.data += value;
      }
      if (event.data || event.id) tell(event); // an id alone says where to go on
    }
  };
}

// Listen until `signal` aborts. `onState("live" | "lost", seconds to the next try)`; `onEvent(kind, data)`.
// Returns a function that tries again at once.
export function listen({ onEvent, onState, signal }) {
  let last = null;
  let wait = 500;
  let hurry = () => {};
  window.addEventListener("online", () => hurry(), { signal });

  async function once() {
    const quiet = new AbortController();
    const give = () => quiet.abort();
    signal.addEventListener("abort", give);
    let timer = setTimeout(give, SILENCE);
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const response = await request("GET", "events", { headers, signal: quiet.signal });
      const feed = parser((event) => {
        last = event.id ?? last;
        if (event.data) onEvent(event.kind, JSON.parse(event.data));
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      wait = 500;
      onState("live");
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(give, SILENCE);
        feed(value);
      }
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", give);
    }
  }

  (async () => {
    while (!signal.aborted) {
      try {
        await once();
      } catch (error) {
        if (error instanceof ServiceError && error.status === 401) {
          loggedOut.dispatchEvent(new Event("out"));
          return;
        }
      }
      if (signal.aborted) return;
      onState("lost", wait / 1000);
      await new Promise((resolve) => {
        hurry = resolve;
        setTimeout(resolve, wait * (0.8 + 0.4 * Math.random()));
      });
      wait = Math.min(2 * wait, LONGEST);
    }
  })();
  return () => hurry();
}
