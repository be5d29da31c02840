// The live tail: each decision as it is made, by server-sent events.

import { append, clock, count, cut, decimal, empty, h, latency, replace } from "./dom.js";
import { LAYERS, reason } from "./words.js";

/** Rows kept on the page. */
const KEPT = 200;

export function open() {
  const body = h("tbody");
  const state = h("p", { class: "tail-state", role: "status" });
  const skipped = h("p", { class: "notice mild", hidden: true });
  const nothing = empty("Nothing yet", "Send a request through rejoinder; what it decides appears here at once.");
  const pause = h("button", { type: "button", class: "primary", text: "Pause" });
  const clear = h("button", { type: "button", class: "quiet", text: "Clear" });
  const filter = h("select", { id: "layer" }, h("option", { value: "", text: "All" }),
    Object.entries(LAYERS).map(([value, { name }]) => h("option", { value, text: name })));
  const area = h("div", { class: "scroll tail", tabindex: "0", role: "group", "aria-label": "Decisions, newest first" },
    h("table", { class: "cards" }, h("caption", { class: "hidden", text: "Decisions, newest first" }),
      h("thead", {}, h("tr", {}, ["Time", "Decision", "Prompt", "Why", "Similarity", "Took"].map((name) => h("th", { scope: "col", class: ["Similarity", "Took"].includes(name) ? "number" : null, text: name })))), body));
  const element = h("div", { class: "view" },
    h("div", { class: "view-head" }, h("div", {}, h("h1", { text: "Live" }), h("p", { class: "about", text: "Every decision as it is made. Nothing is kept: what came before you looked is not here." }))),
    h("section", { class: "card", "aria-label": "Decisions" },
      h("div", { class: "tools" }, pause, clear, h("label", { class: "inline", for: "layer" }, "Show ", filter), state), skipped, nothing, area));

  let source = null;
  let paused = false;
  let lost = 0;
  let waiting = [];
  let soon = null;
  let again;
  let connected = "connecting";

  const suits = (decision) => filter.value === "" || decision.layer === filter.value;

  function tell() {
    const label = !paused ? "Pause" : waiting.length === 0 ? "Resume" : `Resume (${count(waiting.length)}${waiting.length === KEPT ? " or more" : ""} new)`;
    if (pause.textContent !== label) pause.textContent = label;
    const text = paused ? "Paused" : { connecting: "Connecting…", open: "Listening", broken: "Connection lost; trying again" }[connected];
    if (state.textContent !== text) state.textContent = text;
    state.dataset.kind = paused ? "paused" : connected;
    nothing.hidden = body.childElementCount > 0;
    area.hidden = body.childElementCount === 0;
  }

  function add(decisions) {
    const rows = decisions.map((decision) => {
      const line = row(decision);
      line.hidden = !suits(decision);
      line.dataset.layer = decision.layer;
      return line;
    });
    body.prepend(...rows.reverse());
    while (body.childElementCount > KEPT) body.lastElementChild.remove();
  }

  // A busy proxy decides more often than a page can be drawn: what comes is drawn ten times a second.
  function take(decision) {
    waiting.push(decision);
    if (waiting.length > KEPT) waiting.shift();
    soon ??= setTimeout(drawn, 100);
  }

  function drawn() {
    soon = null;
    if (!paused) {
      add(waiting);
      waiting = [];
    }
    tell();
  }

  function listen() {
    source = new EventSource("/decisions");
    source.addEventListener("open", () => { connected = "open"; tell(); });
    source.addEventListener("error", () => {
      connected = "broken";
      tell();
      // A refusal ends it for good, so that a later start of the proxy would not be seen.
      if (source?.readyState === EventSource.CLOSED) again = setTimeout(listen, 5000);
    });
    source.addEventListener("decision", (event) => {
      try {
        take(JSON.parse(event.data));
      } catch {
        // Not a decision as this page knows it.
      }
    });
    source.addEventListener("skipped", (event) => {
      try {
        lost += JSON.parse(event.data).count ?? 0;
      } catch {
        return;
      }
      skipped.hidden = false;
      skipped.textContent = `${count(lost)} decisions came faster than they could be shown and were left out.`;
    });
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    drawn();
  });
  clear.addEventListener("click", () => {
    replace(body);
    waiting = [];
    lost = 0;
    skipped.hidden = true;
    tell();
  });
  filter.addEventListener("change", () => {
    for (const line of body.children) line.hidden = filter.value !== "" && line.dataset.layer !== filter.value;
  });

  tell();
  return {
    element, title: "Live",
    start: listen,
    stop: () => {
      clearTimeout(again);
      clearTimeout(soon);
      source?.close();
      source = null;
    },
  };
}

function row(decision) {
  const layer = Object.hasOwn(LAYERS, decision.layer) ? decision.layer : "bypass";
  const { name, about } = reason(decision.detail);
  const why = h("td", { "data-label": "Why" }, h("span", { title: about || null, text: name }));
  if (decision.rule) append(why, [" ", h("code", { text: decision.rule })]);
  const prompt = h("td", { class: "prompt", "data-label": "Prompt", dir: "auto" },
    decision.entry ? h("a", { href: `#/entries/${encodeURIComponent(decision.entry)}`, text: cut(decision.prompt, 120) || "(not shown)" })
      : decision.prompt ? cut(decision.prompt, 120) : h("span", { class: "muted", text: "not shown" }),
    h("span", { class: "under", dir: "ltr", text: [decision.model, decision.path, decision.namespace, decision.status >= 400 && `status ${decision.status}`].filter(Boolean).join(" · ") }));
  return h("tr", {},
    h("th", { scope: "row", class: "time", "data-label": "Time", text: clock(decision.at) }),
    h("td", { "data-label": "Decision" }, h("span", { class: `badge layer-${layer}`, text: LAYERS[layer].name })),
    prompt, why,
    h("td", { class: "number", "data-label": "Similarity", text: decimal(decision.similarity ?? NaN) }),
    h("td", { class: "number", "data-label": "Took", text: latency(decision.duration_ms) }));
}
