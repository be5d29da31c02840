// The frame: which view is shown, the theme, how the proxy is. Views are modules that make an element and may be told
// to stop.

import { get, readiness } from "./api.js";
import { h, replace, s, span } from "./dom.js";
import * as overview from "./overview.js";
import * as live from "./live.js";
import * as entries from "./entries.js";
import * as playground from "./playground.js";

/** How often figures are asked for, in milliseconds. */
const EVERY = 5000;

const VIEWS = { overview, live, entries, playground };
const main = document.getElementById("main");

let shown = null;

/** `#/entries/ID?q=…` as its parts. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  return { view: view === "" ? "overview" : view, rest: rest.map(decodeURIComponent), query: new URLSearchParams(query) };
}

function show(focus) {
  let at;
  try {
    at = place();
  } catch {
    at = { view: "", rest: [], query: new URLSearchParams() };
  }
  shown?.stop?.();
  shown = null;
  const view = Object.hasOwn(VIEWS, at.view) ? VIEWS[at.view] : null;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === at.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === null) {
    document.title = "Not found · rejoinder";
    replace(main, h("h1", { text: "There is no such page" }), h("p", {}, h("a", { href: "#/", text: "To the overview" })));
  } else {
    shown = view.open(at);
    document.title = shown.title === undefined ? "rejoinder" : `${shown.title} · rejoinder`;
    replace(main, shown.element);
    shown.start?.();
  }
  if (focus) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

// What the parts of /readyz are, for people.
const PARTS = { store: "store", embedder: "embedder", upstream: "upstream" };
const health = document.getElementById("health");

function tellHealth(kind, text, title) {
  const words = health.querySelector(".health-text");
  if (health.dataset.kind === kind && words.textContent === text) return;
  health.dataset.kind = kind;
  health.title = title;
  words.textContent = text;
}

async function lookAfter() {
  try {
    const parts = await readiness();
    const wrong = Object.entries(PARTS).filter(([part]) => ["down", "degraded"].includes(parts?.[part]));
    const detail = Object.entries(PARTS).map(([part, name]) => `${name} ${parts?.[part] ?? "unknown"}`).join(", ");
    if (wrong.length === 0) tellHealth("ok", "Healthy", detail);
    else if (parts.upstream === "down") tellHealth("down", "Upstream down", detail);
    else tellHealth("degraded", wrong.map(([part, name]) => `${name} ${parts[part]}`).join(", "), detail);
  } catch {
    tellHealth("down", "No connection", "rejoinder does not answer");
  }
}

async function tick() {
  if (document.hidden) return;
  await Promise.allSettled([lookAfter(), shown?.refresh?.()]);
}

async function every() {
  await tick();
  setTimeout(every, EVERY);
}

// The theme: as the system has it, light, dark.
const THEMES = [
  ["auto", "Theme: as the system has it", "M12 3a9 9 0 1 0 0 18Zm0 0v18m0-18a9 9 0 0 1 0 18"],
  ["light", "Theme: light", "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M5.6 18.4 7 17M17 7l1.4-1.4"],
  ["dark", "Theme: dark", "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z"],
];
const themeButton = document.getElementById("theme");

function tellTheme() {
  const [, label, path] = THEMES.find(([name]) => name === (document.documentElement.dataset.theme ?? "auto")) ?? THEMES[0];
  themeButton.setAttribute("aria-label", label);
  themeButton.title = label;
  replace(themeButton, s("svg", { viewBox: "0 0 24 24", width: 20, height: 20, class: "icon", "aria-hidden": "true" }, s("path", { d: path })));
}

themeButton.addEventListener("click", () => {
  const now = THEMES.findIndex(([name]) => name === (document.documentElement.dataset.theme ?? "auto"));
  const [next] = THEMES[(now + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("rejoinder-theme");
    else localStorage.setItem("rejoinder-theme", next);
  } catch {
    // It holds for this page alone.
  }
  tellTheme();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

window.addEventListener("hashchange", () => show(true));
document.addEventListener("visibilitychange", () => void tick());

async function tellVersion() {
  try {
    const { version, uptime_s } = await get("/overview");
    document.getElementById("foot").textContent = [`rejoinder ${version ?? ""}`.trim(), Number.isFinite(uptime_s) && `up ${span(uptime_s)}`].filter(Boolean).join(" · ");
  } catch {
    // The views say what does not answer.
  }
}

tellTheme();
show(false);
void tellVersion();
void every();
