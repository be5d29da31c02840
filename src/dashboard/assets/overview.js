// The overview: what it saves, whether its answers can be trusted, why requests miss.

import { get } from "./api.js";
import { bar, chart, divided, figures, legend, overTime, similarity, strip } from "./charts.js";
import { bytes, card, compact, count, cut, decimal, empty, h, latency, percent, replace, span, sums, table, updater } from "./dom.js";
import { LAYERS, mode as aboutMode, reason } from "./words.js";

const WINDOWS = [["15m", "15 min"], ["6h", "6 h"], ["7d", "7 days"]];
const sum = (values) => (values ?? []).reduce((total, n) => total + n, 0);

export function open() {
  const headline = headlineCard();
  const time = timeCard();
  const parts = [trustCard(), missCard(), latencyCard(), similarityCard(), modelsCard(), topCard(), nearCard()];
  const notice = h("div", { role: "alert" });
  const [trust, misses, latencies, picture, models, top, near] = parts.map((part) => part.element);
  const first = firstSteps();
  const element = h("div", { class: "view overview" }, h("h1", { class: "hidden", text: "Overview" }), notice, headline.element,
    h("div", { class: "grid", hidden: true }, first, time.element, trust, misses, h("div", { class: "column-of-cards filled" }, latencies, models), picture, top, near));
  const stopped = new AbortController();

  let turn = 0;

  async function refresh() {
    // An answer to a question that has been asked anew since is too late.
    turn += 1;
    const mine = turn;
    const ask = (path) => get(path, stopped.signal);
    try {
      const overview = await ask(`/overview?window=${time.window()}`);
      const mode = overview.mode ?? "reuse";
      const [audits, near, proved] = await Promise.all([
        ask("/audits").catch(() => null),
        ask("/near-misses?limit=5").catch(() => null),
        mode === "observe" ? ask("/observations").catch(() => null) : mode === "verified" ? ask("/verified").catch(() => null) : null,
      ]);
      if (stopped.signal.aborted || mine !== turn) return;
      replace(notice);
      // Before the first request there is nothing to draw: what to do next stands in its place.
      const some = (overview.totals?.requests ?? 0) > 0;
      const grid = element.querySelector(".grid");
      grid.hidden = false;
      for (const part of grid.children) part.hidden = part === first ? some : !some && part !== trust;
      headline.update(overview);
      time.update(overview);
      for (const part of parts) part.update({ overview, audits, near, proved });
    } catch (error) {
      if (error.name === "AbortError" || mine !== turn) return;
      replace(notice, h("p", { class: "notice", text: error.message }));
    }
  }
  time.onChange(() => void refresh());
  return { element, refresh, start: () => void refresh(), stop: () => stopped.abort() };
}

function firstSteps() {
  const element = card("Send it a first request", "Clients change one thing: their base URL. Or ask by hand, twice; the second answer comes from the cache.",
    h("pre", { class: "text mono", tabindex: "0", role: "group", "aria-label": "Commands", text: "curl -s http://127.0.0.1:11435/ask \\\n     -d '{\"query\": \"Why is the sky blue?\"}'" }),
    h("p", { class: "hint after", text: "127.0.0.1:11435 is where clients connect unless listen says otherwise." }));
  element.classList.add("wide");
  return element;
}

function headlineCard() {
  const element = h("section", { class: "hero", "aria-label": "What it saves" });
  const update = updater(element, ({ totals = {}, saved = {}, uptime, mode }) => {
    const hits = (totals.exact_hits ?? 0) + (totals.semantic_hits ?? 0);
    const looked = hits + (totals.misses ?? 0);
    const tokens = (saved.prompt_tokens ?? 0) + (saved.completion_tokens ?? 0);
    const amounts = sums(saved.money);
    const parts = [["exact", totals.exact_hits ?? 0], ["semantic", totals.semantic_hits ?? 0], ["upstream", totals.misses ?? 0], ["bypass", totals.bypasses ?? 0]];
    const all = sum(parts.map(([, n]) => n));
    return [
      h("div", { class: "hero-text" },
        h("p", { class: "eyebrow" }, h("span", { class: `badge mode-${mode}`, text: `mode ${mode}` }), `Since the start${uptime ? `, ${uptime} ago` : ""}`),
        looked === 0
          ? h("h2", { text: all === 0 ? "Waiting for the first request" : "Nothing was looked up yet" })
          : h("h2", {}, h("strong", { text: percent(totals.hit_rate ?? hits / looked, 0) }), " of requests were answered from the cache"),
        h("p", { class: "lead" }, sentence({ looked, hits, exact: totals.exact_hits ?? 0, mode }))),
      h("dl", { class: "figures-row" },
        figure("Hit rate", looked === 0 ? "–" : percent(totals.hit_rate ?? hits / looked), `${compact(hits)} of ${compact(looked)} looked up`),
        figure("Requests", compact(totals.requests ?? all), totals.errors > 0 ? `${count(totals.errors)} failed` : "none failed"),
        figure("Time saved", span(saved.seconds), "waiting for the model"),
        figure("Tokens saved", compact(tokens), tokens > 0 ? `${compact(saved.prompt_tokens)} in, ${compact(saved.completion_tokens)} out` : "counted by upstream"),
        figure("Money saved", amounts.length > 0 ? amounts.join(" + ") : "–", amounts.length > 0 ? "by your price table" : "no price known")),
      all > 0 && h("div", { class: "hero-split" },
        divided(`Of ${count(all)} requests: ${parts.map(([layer, n]) => `${LAYERS[layer].name} ${count(n)}`).join(", ")}`, parts),
        h("ul", { class: "legend legend-wide" }, parts.map(([layer, n]) => h("li", {},
          h("span", { class: `swatch fill-${layer}`, "aria-hidden": "true" }),
          h("span", {}, h("b", { text: `${LAYERS[layer].name} ${percent(n / all, 0)}` }), h("span", { class: "legend-about", text: LAYERS[layer].about })))))),
    ];
  });
  return { element, update: (overview) => update({ totals: overview.totals, saved: overview.saved, uptime: uptime(overview.uptime_s), mode: overview.mode ?? "reuse" }) };
}

/** Since when, coarse enough that the headline does not change at every look. */
function uptime(seconds) {
  return Number.isFinite(seconds) && seconds >= 60 ? span(seconds - (seconds % (seconds < 3600 ? 60 : 3600))) : "";
}

function figure(name, value, about) {
  return h("div", { class: "figure" }, h("dt", { text: name }), h("dd", { class: "figure-value", text: value }), h("dd", { class: "figure-about", text: about }));
}

function sentence({ looked, hits, exact, mode }) {
  if (looked === 0) return "Point a client's base URL at rejoinder; what it does with each request appears here.";
  if (mode === "observe") return "Mode observe: every request still goes to the model. What would have been served is compared and counted.";
  if (hits === 0) return "Every question so far was new. Ask one of them again and it is answered without the model.";
  return `${count(hits)} ${hits === 1 ? "question" : "questions"} did not need the model: ${count(exact)} had been asked before word for word, ${count(hits - exact)} in other words.`;
}

function timeCard() {
  let chosen = "15m";
  let changed = () => {};
  const name = "window";
  const choice = h("fieldset", { class: "segments" }, h("legend", { class: "hidden", text: "Time window" }),
    WINDOWS.map(([value, text]) => h("label", {},
      h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => { chosen = value; changed(); } }), h("span", { text }))));
  const drawn = chart(overTime);
  const element = card("Hit rate over time", null, choice, legend([["exact", "Exact hits"], ["semantic", "Semantic hits"], ["volume", "Requests"]]), drawn.element);
  element.classList.add("wide", "with-choice");
  const nothing = { step_s: 10, from: 0, exact: [], semantic: [], upstream: [], bypass: [] };
  return {
    element,
    update: (overview) => drawn.update(overview.series ?? nothing),
    window: () => chosen,
    onChange: (then) => { changed = then; },
  };
}

function trustCard() {
  const body = h("div");
  const update = updater(body, ({ mode, thresholds = {}, audits, proved, store, embedder }) => {
    const rows = [["Mode", h("span", {}, h("span", { class: `badge mode-${mode}`, text: mode }), " ", aboutMode(mode))]];
    rows.push(["Exact hits", "The same question, word for word, from the same caller with the same options."]);
    if (embedder === "off") rows.push(["Semantic hits", "Off: nothing is matched by meaning."]);
    else if (mode !== "verified") {
      const sure = [Number.isFinite(thresholds.similarity) && `similarity ${decimal(thresholds.similarity)} or more`, Number.isFinite(thresholds.confidence) && `${percent(thresholds.confidence, 0)} sure that one answer does for both`].filter(Boolean);
      rows.push(["Semantic hits", `Need ${sure.join(" and ")}, and no decisive difference (a number, a name, a negation).`]);
    }
    rows.push(...measured({ mode, audits, proved, thresholds }));
    if (store) rows.push(["Store", [store.kind === "redis" ? "Redis" : "in this process", Number.isFinite(store.entries) && `${count(store.entries)} entries`, Number.isFinite(store.bytes) && bytes(store.bytes)].filter(Boolean).join(", ")]);
    return h("dl", { class: "facts" }, rows.map(([term, value]) => h("div", {}, h("dt", { text: term }), h("dd", {}, value))));
  });
  const element = card("Can the answers be trusted?", null, body);
  element.classList.add("narrow");
  return {
    element,
    update: ({ overview, audits, proved }) => update({
      mode: overview.mode ?? "reuse", thresholds: overview.thresholds, audits, proved, store: overview.store,
      embedder: overview.embedder?.kind ?? overview.embedder?.state ?? overview.embedder,
    }),
  };
}

/** What has been measured on this traffic, the plainest first. */
function measured({ mode, audits, proved, thresholds }) {
  const rows = [];
  if (mode === "verified" && proved) {
    rows.push(["Promise", `At most ${percent(proved.max_error)} of semantic hits wrong, with ${percent(proved.confidence, 0)} certainty.`]);
    rows.push(["So far", `${count(proved.served)} served, ${count(proved.explored)} compared: ${count(proved.same)} same, ${count(proved.different)} different, ${count(proved.unclear)} unclear.${proved.least_trust === null ? " Nothing is trusted enough yet." : ""}`]);
  }
  if (mode === "observe" && proved?.semantic) {
    const { error, hit_rate } = proved.semantic;
    rows.push(["Would hit", `${share(hit_rate)} of requests by meaning`]);
    rows.push(["Would be wrong", error?.of > 0 ? `${share(error)} of those hits` : "Nothing was compared yet."]);
  }
  if (audits?.audited > 0) {
    rows.push(["Audited", `${share(audits.false_hit_rate)} of hits contradicted by a fresh reply; ${count(audits.audited)} checked, ${count(audits.poisoned)} withdrawn.`]);
  } else if (mode !== "observe" && audits) {
    rows.push(["Audited", audits.audit_share > 0
      ? `${percent(audits.audit_share)} of semantic hits are compared with a fresh reply; none was drawn yet.`
      : h("span", {}, "Not measured. Set ", h("code", { text: "cache.audit_share" }), " to compare a share of hits with fresh replies.")]);
  }
  if (rows.length === 0 && Number.isFinite(thresholds.max_error)) rows.push(["Limit", `${percent(thresholds.max_error)} of look-alikes`]);
  return rows;
}

function share(rate) {
  if (!Number.isFinite(rate?.value)) return "–";
  return `${percent(rate.value)} (95 % interval ${percent(rate.low)} to ${percent(rate.high)})`;
}

function missCard() {
  const body = h("div");
  const update = updater(body, (reasons) => {
    const rows = Object.entries(reasons).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
    if (rows.length === 0) return empty("No misses yet", "Each request that the model had to answer is listed here by its reason.");
    const all = sum(rows.map(([, n]) => n));
    return h("ul", { class: "bars" }, rows.map(([token, n]) => {
      const { name, about } = reason(token);
      return h("li", {},
        h("div", { class: "bars-head" }, h("span", {}, h("b", { text: name }), " ", h("code", { text: token })), h("span", { class: "number", text: `${count(n)} · ${percent(n / all, 0)}` })),
        bar(n / all, "upstream"), h("p", { text: about }));
    }));
  });
  return { element: card("Why requests missed", "Each answer's Cache-Status header gives its reason by these names.", body), update: ({ overview }) => update(overview.miss_reasons ?? {}) };
}

function latencyCard() {
  const body = h("div");
  const update = updater(body, (data) => {
    const layers = ["exact", "semantic", "upstream"].filter((layer) => sum(data[layer]?.counts) > 0);
    // Bypasses wait for upstream as misses do.
    const called = (layer) => (layer === "upstream" ? "Upstream" : LAYERS[layer].name);
    if (layers.length === 0) return empty("No requests yet", "How long each layer takes to answer is drawn here.");
    const bins = Math.max(...layers.map((layer) => data[layer].counts.length));
    const names = Array.from({ length: bins }, (_, index) => binName(data.edges_ms ?? [], index, bins));
    const used = names.map((_, index) => layers.some((layer) => data[layer].counts[index] > 0));
    const [first, last] = [used.indexOf(true), used.lastIndexOf(true)];
    const cutOut = (values) => values.slice(first, last + 1);
    return [
      layers.map((layer) => h("div", { class: "strip-row" },
        h("div", { class: "strip-head" }, h("span", {}, h("span", { class: `swatch fill-${layer}`, "aria-hidden": "true" }), called(layer)),
          h("span", { class: "number" }, "half within ", h("b", { text: latency(data[layer].p50_ms) }), ", 99 % within ", h("b", { text: latency(data[layer].p99_ms) }))),
        strip(`${called(layer)}: median ${latency(data[layer].p50_ms)}, 99th percentile ${latency(data[layer].p99_ms)}`, cutOut(data[layer].counts), cutOut(names), layer))),
      h("div", { class: "ends", "aria-hidden": "true" }, h("span", { text: names[first] }), h("span", { text: names[last] })),
      figures("Latency by layer", ["Time to the reply's head", ...layers.map((layer) => ({ name: called(layer), number: true }))],
        cutOut(names).map((name, index) => [name, ...layers.map((layer) => count(data[layer].counts[first + index] ?? 0))])),
    ];
  });
  return { element: card("How fast each layer answers", "Time until the head of the reply; each further column is a longer time.", body), update: ({ overview }) => update(overview.latency ?? {}) };
}

/** A bin's name; edges are upper bounds, or one more than the bins where the first is a lower one. */
function binName(edges, index, bins) {
  const lower = edges.length === bins + 1 ? edges[index] : edges[index - 1];
  const upper = edges.length === bins + 1 ? edges[index + 1] : edges[index];
  if (!Number.isFinite(upper)) return `over ${latency(lower)}`;
  return Number.isFinite(lower) && lower > 0 ? `${latency(lower)} – ${latency(upper)}` : `under ${latency(upper)}`;
}

function similarityCard() {
  const nothing = empty("No neighbours yet", "Once a lookup has met a stored prompt in its scope, how near they were is drawn here.");
  const drawn = chart((data, width) => ({
    chart: similarity(data, width),
    table: figures("Similarity of the nearest stored prompt", ["Similarity", { name: "Served", number: true }, { name: "Not served", number: true }],
      data.hits.map((n, index) => [`${data.edges[index].toFixed(2)} to ${data.edges[index + 1].toFixed(2)}`, count(n), count(data.misses[index])])
        .filter((_, index) => data.hits[index] + data.misses[index] > 0)),
  }));
  let data = null;
  let tried = null;
  const slider = h("input", { type: "range", id: "try-threshold", min: "0", max: "1", step: "0.02", oninput: () => { tried = Number(slider.value); tell(); } });
  const output = h("output", { for: "try-threshold" });
  const back = h("button", { type: "button", class: "quiet", text: "Back to the configured one", onclick: () => { tried = null; tell(); slider.focus(); } });
  const value = h("b", { class: "tried-value" });
  const content = h("div", {},
    legend([["semantic", "Served by meaning"], ["upstream", "Had a neighbour, not served"]]), drawn.picture,
    h("div", { class: "try" },
      h("label", { for: "try-threshold" }, "What if the threshold were ", value, "?"), slider, h("div", { class: "try-said" }, output, back)), drawn.table);
  content.hidden = true;

  function tell() {
    const at = tried ?? data.threshold;
    value.textContent = at.toFixed(2);
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", `${at.toFixed(2)}`);
    back.hidden = tried === null || Math.abs(tried - data.threshold) < 0.005;
    replace(output, whatIf({ ...data, tried: at }));
    drawn.update({ edges: data.edges, hits: data.hits, misses: data.misses, from: data.from, threshold: data.threshold, tried: at });
  }

  const update = ({ overview }) => {
    const { edges = [], hits = [], misses = [] } = overview.similarity ?? {};
    const some = sum(hits) + sum(misses) > 0;
    content.hidden = !some;
    nothing.hidden = some;
    if (!some) return;
    const threshold = overview.thresholds?.similarity ?? 0.7;
    const lowest = edges[hits.findIndex((n, index) => n + (misses[index] ?? 0) > 0)] ?? 0;
    const from = Math.min(lowest, threshold - 0.1) >= 0.5 ? 0.5 : 0;
    const below = overview.similarity.below_threshold ?? misses;
    data = { edges, hits, misses, below, threshold, from, totals: overview.totals ?? {} };
    slider.min = String(from);
    tell();
  };
  const element = card("The similarity picture", "How near the nearest stored prompt was, for lookups that were served and for those that were not.", nothing, content);
  element.classList.add("full");
  return { element, update };
}

/** The hit rate that another threshold would have had, as far as these counts can say. */
function whatIf({ edges, hits, below, threshold, tried, totals }) {
  const exact = totals.exact_hits ?? 0;
  const semantic = totals.semantic_hits ?? sum(hits);
  const looked = exact + semantic + (totals.misses ?? 0);
  if (looked === 0) return "";
  const now = (exact + semantic) / looked;
  // A bin counts where its middle is.
  const within = (counts, low, high) => sum(counts.filter((_, index) => {
    const middle = (edges[index] + edges[index + 1]) / 2;
    return middle >= low && middle < high;
  }));
  if (Math.abs(tried - threshold) < 0.005) return h("span", {}, "As configured, the hit rate is ", h("b", { text: percent(now) }), ".");
  if (tried > threshold) {
    const lost = Math.min(semantic, within(hits, threshold, tried));
    return h("span", {}, "The hit rate would have been ", h("b", { text: percent((exact + semantic - lost) / looked) }), ` instead of ${percent(now)}: ${count(lost)} semantic hits would have gone to the model.`);
  }
  const more = within(below, tried, threshold);
  return h("span", {}, "The hit rate would have been ", h("b", { text: `${percent(now)} to ${percent(Math.min(1, (exact + semantic + more) / looked))}` }),
    `: ${count(more)} more lookups would have had a candidate, and guard and verifier would still have turned some of them away.`);
}

function modelsCard() {
  const body = h("div");
  const update = updater(body, ({ models, tokens }) => {
    if (models.length === 0 && tokens > 0) return empty("Not told apart by model", "The headline has what was saved in all.");
    if (models.length === 0) return empty("Nothing saved yet", "What each model did not have to do again is counted here.");
    return table("Saved by model", ["Model", { name: "Hits", number: true }, { name: "Tokens in", number: true }, { name: "Tokens out", number: true }, { name: "Money", number: true }],
      models.map((model) => [h("span", { class: "name", text: model.model || "(none)" }), count(model.hits), compact(model.prompt_tokens), compact(model.completion_tokens), sums(model.money).join(" + ") || "–"]), { className: "cards" });
  });
  return { element: card("Saved by model", "Tokens as upstream counted them; money where the price table knows the model.", body), update: ({ overview: { saved = {} } }) => update({ models: saved.models ?? [], tokens: saved.models?.length > 0 ? 0 : (saved.prompt_tokens ?? 0) + (saved.completion_tokens ?? 0) }) };
}

/** What fell just short of being served, both prompts side by side. */
function nearCard() {
  const body = h("div");
  const update = updater(body, (list) => {
    if (list.length === 0) return empty("None of late", "Lookups that fell just short of being served are listed here, with both prompts.");
    return h("ul", { class: "pairs" }, list.map((near) => h("li", {},
      h("p", { class: "pair" }, h("span", { class: "muted", text: "asked" }), h("span", { dir: "auto", text: cut(near.prompt, 120) })),
      h("p", { class: "pair" }, h("span", { class: "muted", text: "stored" }), h("a", { href: `#/entries/${encodeURIComponent(near.entry)}`, dir: "auto", text: cut(near.stored_prompt, 120) })),
      h("p", { class: "pair-why" }, h("span", { text: reason(near.reason).name }), near.rule && [" ", h("code", { text: near.rule })], h("span", { class: "number", text: `similarity ${decimal(near.similarity)}` })))));
  });
  return { element: card("Just short of a hit", null, body), update: ({ near }) => update((near?.near_misses ?? []).slice(0, 5)) };
}

function topCard() {
  const body = h("div");
  const update = updater(body, (entries) => {
    if (entries.length === 0) return empty("No hits yet", "The entries that serve most are listed here.");
    const most = Math.max(1, ...entries.map((entry) => entry.hits ?? 0));
    return h("ol", { class: "bars top" }, entries.map((entry) => h("li", {},
      h("div", { class: "bars-head" },
        h("a", { href: `#/entries/${encodeURIComponent(entry.id)}`, dir: "auto", text: cut(entry.prompt, 90) || "(no prompt)" }),
        h("span", { class: "number", text: `${count(entry.hits)} ${entry.hits === 1 ? "hit" : "hits"}` })),
      bar((entry.hits ?? 0) / most, "exact"))));
  });
  return { element: card("Entries that serve most", null, body), update: ({ overview }) => update(overview.top_entries ?? []) };
}
