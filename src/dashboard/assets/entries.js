// Stored entries: a list with search and pages, and one entry with its evidence.

import { get, remove } from "./api.js";
import { similarities } from "./charts.js";
import { card, count, cut, decimal, empty, full, h, replace, span, table } from "./dom.js";

const PAGE = 25;

export function open(at) {
  return at.rest.length > 0 ? one(at.rest[0]) : list(at.query);
}

function list(query) {
  const asked = query.get("q") ?? "";
  const search = h("input", { type: "search", id: "search", name: "q", value: asked, placeholder: "Text in a prompt or reply", autocomplete: "off", spellcheck: "false" });
  const results = h("div", { class: "results" });
  const told = h("p", { class: "tail-state", role: "status" });
  const newer = h("button", { type: "button", class: "quiet", text: "← Newer", disabled: true });
  const older = h("button", { type: "button", class: "quiet", text: "Older →", disabled: true });
  const element = h("div", { class: "view" },
    h("div", { class: "view-head" }, h("div", {}, h("h1", { text: "Entries" }), h("p", { class: "about", text: "Replies that are stored, newest first." }))),
    h("section", { class: "card", "aria-label": "Stored entries" },
      h("form", { class: "tools", role: "search", onsubmit: (event) => {
        event.preventDefault();
        const text = search.value.trim();
        location.hash = text === "" ? "#/entries" : `#/entries?q=${encodeURIComponent(text)}`;
        if (text === asked) void load();
      } },
      h("label", { class: "hidden", for: "search", text: "Search entries" }), search, h("button", { type: "submit", class: "primary", text: "Search" }), told),
      results, h("div", { class: "pages" }, newer, older)));
  const stopped = new AbortController();
  const before = [];
  let cursor = "";
  let next = null;

  async function load() {
    const parameters = new URLSearchParams({ limit: String(PAGE) });
    if (asked !== "") parameters.set("q", asked);
    if (cursor !== "") parameters.set("cursor", cursor);
    told.textContent = "Loading…";
    try {
      const page = await get(`/entries?${parameters}`, stopped.signal);
      next = page.next_cursor;
      told.textContent = page.entries.length === 0 ? "None" : `${count(page.entries.length)} on page ${before.length + 1}`;
      replace(results, page.entries.length === 0
        ? empty(asked === "" ? "Nothing is stored yet" : "Nothing found", asked === "" ? "The first reply that can be reused appears here." : "No stored prompt or reply has this text.")
        : rows(page.entries));
    } catch (error) {
      if (error.name === "AbortError") return;
      told.textContent = "";
      next = null;
      replace(results, h("p", { class: "notice", role: "alert", text: error.message }));
    }
    newer.disabled = before.length === 0;
    older.disabled = next === null || next === undefined;
  }

  newer.addEventListener("click", () => { cursor = before.pop() ?? ""; void load(); });
  older.addEventListener("click", () => { before.push(cursor); cursor = next; void load(); });
  return { element, title: "Entries", start: () => void load(), stop: () => stopped.abort() };
}

function rows(entries) {
  return table("Stored entries, newest first",
    ["Prompt", "Reply", "Model", { name: "Age", number: true }, { name: "Hits", number: true }],
    entries.map((entry) => [
      h("a", { href: `#/entries/${encodeURIComponent(entry.id)}`, dir: "auto", text: cut(entry.prompt, 110) || "(no prompt)" }),
      h("span", { class: "muted", dir: "auto", text: cut(entry.reply, 110) }),
      h("span", { class: "name", text: [entry.model, entry.namespace].filter(Boolean).join(" · ") || "–" }),
      span(entry.age_s), count(entry.hits),
    ]), { className: "cards entries" });
}

function one(id) {
  const place = h("div", { class: "entry" }, h("p", { class: "muted", text: "Loading…" }));
  const element = h("div", { class: "view" }, h("p", { class: "back" }, h("a", { href: "#/entries", text: "← All entries" })), place);
  const stopped = new AbortController();

  async function load() {
    try {
      replace(place, entryPage(await get(`/entries/${encodeURIComponent(id)}`, stopped.signal)));
    } catch (error) {
      if (error.name === "AbortError") return;
      const gone = error.status === 404;
      replace(place, h("h1", { text: gone ? "No such entry" : "The entry cannot be shown" }),
        h("p", { class: "notice", role: "alert", text: gone ? "It was deleted, replaced or has expired." : error.message }));
    }
  }
  return { element, title: "Entry", start: () => void load(), stop: () => stopped.abort() };
}

function entryPage(entry) {
  const facts = [
    ["Model", entry.model], ["Path", entry.path], ["Namespace", entry.namespace],
    ["Stored", `${full(entry.created_at)}, ${span(entry.age_s)} ago`],
    ["Lives", `${span(Math.max(0, entry.ttl_s - entry.age_s))} more of ${span(entry.ttl_s)}`],
    ["Hits", count(entry.hits)],
    ["Tokens", Number.isFinite(entry.prompt_tokens) && `${count(entry.prompt_tokens)} in, ${count(entry.completion_tokens)} out`],
    ["Tool calls", entry.tool_calls === true && "yes: reused for the identical request only"], ["Status", entry.status && said(entry.status)], ["Id", h("code", { class: "id", text: entry.id })],
  ].filter(([, value]) => value !== "" && value !== false && value !== null && value !== undefined);
  for (const [name, value] of Object.entries(entry.scope ?? {})) {
    if (!["model", "path", "namespace"].includes(name) && value !== null && value !== "") facts.push([title(name), said(value)]);
  }
  const picture = entry.hit_similarities;
  const some = picture?.counts?.some((n) => n > 0);
  const drawn = some ? similarities(picture.edges, picture.counts) : null;
  return [
    h("div", { class: "view-head" }, h("div", {}, h("h1", { class: "entry-title", dir: "auto", text: cut(entry.prompt, 120) || "(no prompt)" }),
      h("p", { class: "about", text: `Stored once, served ${count(entry.hits)} ${entry.hits === 1 ? "time" : "times"}.` })), deleting(entry)),
    h("div", { class: "grid" },
      h("div", { class: "column-of-cards wide" }, textCard("Prompt", entry.prompt), textCard("Reply", entry.reply)),
      h("div", { class: "column-of-cards narrow" }, factsCard("Facts", facts),
        card("Similarity of its hits", null, some ? [drawn.chart, drawn.table] : empty("None by meaning yet", "Prompts that it answered in other words are counted here.")),
        evidence(entry.evidence))),
  ];
}

function textCard(name, text) {
  return card(name, null, h("pre", { class: "text", dir: "auto", tabindex: "0", "aria-label": name, role: "group", text: text ?? "" }));
}

function factsCard(name, facts) {
  return card(name, null, h("dl", { class: "facts" }, facts.map(([term, value]) => h("div", {}, h("dt", { text: term }), h("dd", {}, value)))));
}

/** What comparisons have found about it, whatever names it goes by. */
function evidence(found) {
  const facts = flat(found ?? {});
  const tested = found?.contradicted === true || found?.same > 0 || found?.different > 0;
  if (facts.length === 0 || (found.trials?.length === 0 && !tested)) return card("Evidence", null, empty("Never put to the test", "Comparisons with fresh replies (audits, modes verified and observe) are listed here."));
  return factsCard("Evidence", facts);
}

function flat(value, before = "") {
  return Object.entries(value).flatMap(([name, inner]) => {
    const term = before === "" ? title(name) : `${before}: ${title(name).toLowerCase()}`;
    if (inner === null || inner === "") return [];
    if (Array.isArray(inner)) return inner.length === 0 ? [] : [[term, inner.slice(-20).map((item) => h("p", { class: "item", text: typeof item === "object" ? Object.entries(item).map(([key, v]) => `${title(key).toLowerCase()} ${said(v)}`).join(", ") : said(item) }))]];
    if (typeof inner === "object") return flat(inner, term);
    return [[term, said(inner)]];
  });
}

function said(value) {
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : decimal(value, 3);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value !== null && typeof value === "object") return JSON.stringify(value);
  return String(value ?? "–");
}

const title = (name) => {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

/** Deletes after asking. */
function deleting(entry) {
  const failed = h("p", { class: "notice", role: "alert", hidden: true });
  const yes = h("button", { type: "button", class: "danger", text: "Delete" });
  const no = h("button", { type: "button", class: "quiet", text: "Keep it" });
  const dialog = h("dialog", { "aria-labelledby": "ask-title", "aria-describedby": "ask-text" },
    h("h2", { id: "ask-title", text: "Delete this entry?" }),
    h("p", { id: "ask-text", text: "The next request like it goes to the model again. This cannot be undone." }), failed, h("div", { class: "dialog-buttons" }, no, yes));
  no.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    try {
      await remove(`/entries/${encodeURIComponent(entry.id)}`);
      dialog.close();
      location.hash = "#/entries";
    } catch (error) {
      failed.hidden = false;
      failed.textContent = error.message;
      yes.disabled = false;
    }
  });
  const ask = h("button", { type: "button", class: "danger-outline", text: "Delete…", onclick: () => { dialog.showModal(); no.focus(); } });
  return h("div", {}, ask, dialog);
}
