// Elements and figures. Everything shown goes through here as text: no string ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `attributes` may hold `on…` functions, `class`, `text`, and properties of state (`value`, `checked`, …). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const STATE = new Set(["value", "checked", "disabled", "hidden", "open", "selected"]);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = String(value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (STATE.has(name) && name in element) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/** Adds children: elements, texts, lists of them; nothing for null and false. */
export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Puts children in the place of those there are. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Draws again only where the data has changed, and not under the hands of who is using it. */
export function updater(element, draw) {
  let last;
  return (data) => {
    const now = JSON.stringify(data) ?? "";
    if (now === last) return;
    const active = document.activeElement;
    if (last !== undefined && active !== document.body && element.contains(active)) return;
    last = now;
    replace(element, draw(data));
  };
}

/** A card: a heading, a line that says what it shows, and its body. */
export function card(title, about, ...children) {
  const id = `card-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("section", { class: "card", "aria-labelledby": id },
    h("h2", { id, text: title }),
    about && h("p", { class: "about" }, about),
    ...children);
}

/** A table for reading: `columns` are names or `{name, number}`, `rows` lists of cells. */
export function table(caption, columns, rows, { hideCaption = true, className = "" } = {}) {
  const heads = columns.map((column) => (typeof column === "string" ? { name: column } : column));
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    h("table", { class: className },
      h("caption", { class: hideCaption ? "hidden" : "", text: caption }),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col", class: head.number ? "number" : null, text: head.name })))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, index) => {
        const attributes = { class: heads[index]?.number ? "number" : null, "data-label": heads[index]?.name };
        return index === 0 ? h("th", { scope: "row", ...attributes }, cell) : h("td", attributes, cell);
      }))))));
}

/** What stands where there is nothing yet. */
export function empty(title, text) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title", text: title }), text && h("p", {}, text));
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n) => (Number.isFinite(n) ? whole.format(n) : "–");
export const compact = (n) => (Number.isFinite(n) ? (Math.abs(n) < 10_000 ? whole.format(n) : short.format(n)) : "–");

export function percent(share, digits = 1) {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  return `${value.toFixed(value === 0 || value === 100 ? 0 : digits)} %`;
}

export const decimal = (n, digits = 2) => (Number.isFinite(n) ? n.toFixed(digits) : "–");

/** A length of time in words: the two largest units. */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return seconds === 0 ? "0 s" : `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  let rest = Math.round(seconds);
  const parts = [];
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const n = Math.floor(rest / size);
    rest -= n * size;
    if (n > 0) parts.push(`${n} ${unit}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** A latency given in milliseconds. */
export function latency(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  return `${(ms / 60_000).toFixed(1)} min`;
}

const symbols = new Map();

export function money(currency, amount) {
  if (!Number.isFinite(amount)) return "–";
  const digits = amount !== 0 && Math.abs(amount) < 0.1 ? 4 : 2;
  const key = `${currency}${digits}`;
  if (!symbols.has(key)) {
    let format;
    try {
      format = new Intl.NumberFormat("en", { style: "currency", currency, maximumFractionDigits: digits });
    } catch {
      const plain = new Intl.NumberFormat("en", { maximumFractionDigits: digits });
      format = { format: (n) => `${plain.format(n)} ${currency}` };
    }
    symbols.set(key, format);
  }
  return symbols.get(key).format(amount);
}

/** Money by currency, as `{"USD": 1.2}` or one number in dollars; empty where no price is known. */
export function sums(value) {
  if (Number.isFinite(value)) return [money("USD", value)];
  if (value === null || typeof value !== "object") return [];
  return Object.entries(value).filter(([, amount]) => Number.isFinite(amount)).map(([currency, amount]) => money(currency, amount));
}

export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  let value = n;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${value.toFixed(step === 0 || value >= 100 ? 0 : 1)} ${units[step]}`;
}

/** A point in time, given as Unix seconds or RFC 3339. */
export function instant(at) {
  const date = typeof at === "number" ? new Date(at * 1000) : new Date(at);
  return Number.isNaN(date.getTime()) ? null : date;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { weekday: "short", hour: "2-digit", minute: "2-digit" });
const fullFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const say = (format) => (at) => {
  const date = instant(at);
  return date === null ? "–" : format.format(date);
};
export const clock = say(clockFormat);
export const minute = say(minuteFormat);
export const day = say(dayFormat);
export const full = say(fullFormat);

/** The first characters of a text, cut between characters. */
export function cut(text, most) {
  const points = Array.from(String(text ?? "").slice(0, most * 2 + 2));
  return points.length > most ? `${points.slice(0, most).join("").trimEnd()}…` : points.join("");
}
