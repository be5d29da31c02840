// The playground: what each layer would decide about a prompt, with its evidence. No model is asked, nothing is stored.

import { get, post } from "./api.js";
import { count, cut, decimal, empty, h, latency, percent, replace, table } from "./dom.js";
import { ENDPOINTS, reason } from "./words.js";

export function open() {
  const path = h("select", { id: "path" }, ENDPOINTS.map((value) => h("option", { value, text: value })));
  const model = h("input", { id: "model", type: "text", value: "", placeholder: "llama3.2", list: "models", autocomplete: "off", spellcheck: "false", required: true });
  const models = h("datalist", { id: "models" });
  const prompt = h("textarea", { id: "prompt", rows: "4", placeholder: "What is the capital of France?", required: true, dir: "auto" });
  const raw = h("textarea", { id: "raw", rows: "9", spellcheck: "false", class: "mono" });
  const headers = h("textarea", { id: "headers", rows: "3", spellcheck: "false", class: "mono", placeholder: "X-Rejoinder-Namespace: docs-v2" });
  const own = h("input", { type: "checkbox", id: "own" });
  const result = h("section", { class: "card result", "aria-label": "Decision", "aria-live": "polite", tabindex: "-1" }, initial());
  const send = h("button", { type: "submit", class: "primary", text: "Explain" });
  const stopped = new AbortController();

  const fields = h("div", { class: "plain-fields" },
    h("div", { class: "field" }, h("label", { for: "model", text: "Model" }), model, models),
    h("div", { class: "field" }, h("label", { for: "prompt", text: "Prompt" }), prompt));
  const rawField = h("div", { class: "field", hidden: true }, h("label", { for: "raw", text: "Body" }), raw);
  own.addEventListener("change", () => {
    rawField.hidden = !own.checked;
    fields.hidden = own.checked;
    model.required = prompt.required = !own.checked;
    if (own.checked) raw.value = JSON.stringify(body(), null, 2);
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  function body() {
    const text = prompt.value;
    const messages = [{ role: "user", content: text }];
    switch (path.value) {
      case "/v1/responses": return { model: model.value, input: text };
      case "/v1/messages": return { model: model.value, max_tokens: 1024, messages };
      case "/v1/completions":
      case "/api/generate": return { model: model.value, prompt: text };
      default: return { model: model.value, messages };
    }
  }

  const form = h("form", { class: "card", "aria-label": "Request", onsubmit: async (event) => {
    event.preventDefault();
    let request;
    try {
      request = { path: path.value, body: own.checked ? JSON.parse(raw.value) : body() };
    } catch (error) {
      replace(result, h("h2", { text: "The body is not JSON" }), h("p", { class: "notice", text: error.message }));
      return;
    }
    const sent = headerLines(headers.value);
    if (Object.keys(sent).length > 0) request.headers = sent;
    send.disabled = true;
    result.setAttribute("aria-busy", "true");
    try {
      replace(result, decision(await post("/explain", request, stopped.signal)));
    } catch (error) {
      if (error.name === "AbortError") return;
      replace(result, h("h2", { text: "It could not be explained" }), h("p", { class: "notice", text: error.message }));
    } finally {
      send.disabled = false;
      result.removeAttribute("aria-busy");
    }
    if (window.matchMedia("(max-width: 900px)").matches) result.focus();
  } },
  h("div", { class: "field" }, h("label", { for: "path", text: "Endpoint" }), path),
  fields, rawField,
  h("details", { class: "more" }, h("summary", { text: "Headers and whole body" }),
    h("div", { class: "field" }, h("label", { for: "headers", text: "Headers, one a line" }), headers, h("p", { class: "hint", text: "Those that a scope depends on: a namespace, a caller's key. They are sent to this rejoinder alone." })),
    h("label", { class: "inline", for: "own" }, own, "Write the request's whole body")),
  h("div", { class: "form-end" }, send, h("span", { class: "hint", text: "Asks no model, stores nothing, counts nothing." })));

  const element = h("div", { class: "view" },
    h("div", { class: "view-head" }, h("div", {}, h("h1", { text: "Playground" }), h("p", { class: "about", text: "What would each layer decide about this prompt, and on what evidence?" }))),
    h("div", { class: "split" }, form, result));

  async function suggest() {
    try {
      const overview = await get("/overview", stopped.signal);
      const known = [...new Set([...(overview.saved?.models ?? []).map((m) => m.model)])].filter(Boolean);
      const stored = known.length > 0 ? known : [...new Set((await get("/entries?limit=25", stopped.signal)).entries.map((entry) => entry.model))].filter(Boolean);
      replace(models, stored.map((name) => h("option", { value: name })));
      if (model.value === "" && stored.length > 0) model.value = stored[0];
    } catch {
      // It is a help, no more.
    }
  }
  return { element, title: "Playground", start: () => void suggest(), stop: () => stopped.abort() };
}

function initial() {
  return empty("No prompt yet", "Write one that you think is answered already, in the same words or in others.");
}

function headerLines(text) {
  const sent = {};
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) sent[line.slice(0, colon).trim().toLowerCase()] = line.slice(colon + 1).trim();
  }
  return sent;
}

const LAYER_NAMES = { exact: "Exact layer", semantic: "Semantic layer", upstream: "Upstream" };
const KINDS = { hit: "hit", miss: "miss", skipped: "skip", "would be asked": "asked", "not needed": "skip" };

function decision(found) {
  const layers = found.layers ?? [];
  const hit = layers.find((layer) => layer.decision === "hit");
  const served = found.would_serve;
  return [
    h("h2", { class: "verdict" }, hit ? [h("span", { class: `badge layer-${hit.layer}`, text: hit.layer === "semantic" ? "Semantic hit" : "Exact hit" }), " Answered from the cache"]
      : [h("span", { class: "badge layer-upstream", text: "Miss" }), " The model would be asked"]),
    h("ol", { class: "steps" }, layers.map((layer, index) => step(layer, layers[index - 1]))),
    served?.reply !== undefined && served?.reply !== null && h("div", { class: "served" }, h("h3", {}, "The reply it would get ", served.entry && h("a", { href: `#/entries/${encodeURIComponent(served.entry)}`, text: "(its entry)" })),
      h("pre", { class: "text", dir: "auto", tabindex: "0", role: "group", "aria-label": "The reply it would get", text: typeof served.reply === "string" ? served.reply : JSON.stringify(served.reply, null, 2) })),
    typeof found.normalised_prompt === "string" && h("p", { class: "hint" }, "Prompt as compared: ", h("q", { dir: "auto", text: cut(found.normalised_prompt, 300) })),
  ];
}

function step(layer, before) {
  // Upstream is asked for the reason that the layer before it gave.
  const told = layer.detail === before?.detail && layer.layer === "upstream";
  const { name, about } = told ? {}
    : layer.layer === "exact" && layer.detail === "no-candidate" ? { name: "Not asked before word for word", about: "In this scope: same model, key, options and earlier turns." }
      : reason(layer.detail);
  const detail = layer.detail === null || layer.detail === undefined || layer.detail === layer.decision ? null : name;
  return h("li", { class: `step step-${KINDS[layer.decision] ?? "skip"}` },
    h("div", { class: "step-head" }, h("h3", { text: LAYER_NAMES[layer.layer] ?? layer.layer }), h("span", { class: "step-decision", text: layer.decision }),
      Number.isFinite(layer.micros) && h("span", { class: "number muted", text: latency(layer.micros / 1000) })),
    (detail || about) && h("p", {}, detail && h("b", { text: detail }), detail && about && ". ", about, layer.rule && [" ", h("code", { text: layer.rule })]),
    layer.entry && !(layer.candidates?.length > 0) && h("p", {}, h("a", { href: `#/entries/${encodeURIComponent(layer.entry)}`, text: "The entry" })),
    (layer.candidates ?? []).length > 0 && candidates(layer.candidates));
}

function candidates(list) {
  return table(`${count(list.length)} nearest stored prompts`,
    ["Stored prompt", { name: "Similarity", number: true }, { name: "Verifier", number: true }, { name: "Confidence", number: true }, "Decision"],
    list.map((candidate) => {
      const refused = candidate.decision !== "serve";
      return [
        candidate.entry ? h("a", { href: `#/entries/${encodeURIComponent(candidate.entry)}`, dir: "auto", text: cut(candidate.prompt, 140) }) : h("span", { dir: "auto", text: cut(candidate.prompt, 140) }),
        decimal(candidate.similarity ?? NaN),
        verifier(candidate.verifier),
        decimal(candidate.confidence ?? NaN),
        h("span", {}, refused ? reason(candidate.decision).name : h("b", { text: "served" }), (candidate.rules ?? []).map((rule) => [" ", h("code", { text: rule })]),
          Number.isFinite(candidate.freshness) && candidate.freshness < 0.995 && h("span", { class: "under", text: `freshness ${percent(candidate.freshness, 0)}` })),
      ];
    }), { className: "cards" });
}

/** The verifier says log odds; people read probabilities. */
function verifier(logOdds) {
  return typeof logOdds === "number" ? decimal(1 / (1 + Math.exp(-logOdds))) : "–";
}
