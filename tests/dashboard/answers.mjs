// Answers of the admin API from fixtures, put between the page and the proxy.

import * as fixtures from "./fixtures.mjs";

const json = (value, status = 200) => ({ status, contentType: "application/json", body: JSON.stringify(value) });

/** Answers that path of the page's origin from fixtures; `over` replaces some of them by path. */
export async function answerFromFixtures(page, over = {}) {
  const all = {
    "/overview": fixtures.overview, "/audits": fixtures.audits, "/near-misses": fixtures.nearMisses, "/entries": fixtures.entries, "/explain": fixtures.explained,
    "/readyz": { store: "ok", embedder: "ok", upstream: "ok" }, "/decisions": fixtures.decisions, "/entries/*": fixtures.entryPage, ...over,
  };
  await page.route("**/*", async (route) => {
    const url = new URL(route.request().url());
    const known = Object.hasOwn(all, url.pathname) ? url.pathname : url.pathname.startsWith("/entries/") ? "/entries/*" : null;
    if (known === null) return route.fallback();
    if (route.request().method() === "DELETE") return route.fulfill({ status: 204 });
    if (known === "/decisions") return route.fulfill({ status: 200, contentType: "text/event-stream", body: fixtures.events(all[known]) });
    const value = all[known];
    return route.fulfill(typeof value === "number" ? json({ error: `answered ${value}` }, value) : json(value));
  });
}
