// Drives a browser over the dashboard of a running proxy, and prints a line for each case:
//   node check.mjs ADMIN_URL [TOKEN]
// Run in the folder into which scripts/test installed Playwright and axe. What the proxy itself has is looked at where
// the case is named "live"; the rest puts fixtures between the page and the proxy.
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { answerFromFixtures } from "./answers.mjs";
import * as fixtures from "./fixtures.mjs";

const require = createRequire(join(process.cwd(), "package.json"));
const { chromium } = require("playwright-core");
const axeSource = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");

const [admin, token] = process.argv.slice(2);
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"] });
let failed = 0;

function demand(truth, what) {
  if (!truth) throw new Error(what);
}

const cases = [];
const test = (...one) => cases.push(one);

/** Runs a case on a page of its own, and holds it to: no error on the console, no request that leaves the origin. */
async function run([name, options, body]) {
  const { fixture, over, colorScheme = "light", viewport = DESK, expected = [] } = options;
  const httpCredentials = token === undefined ? undefined : { username: "any", password: token, send: "unauthorized" };
  const context = await browser.newContext({ viewport, colorScheme, httpCredentials, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const wrong = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expected.some((pattern) => pattern.test(message.text()))) wrong.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { wrong.push(`dialog: ${dialog.message()}`); void dialog.dismiss(); });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(admin).origin) wrong.push(`request to ${request.url()}`);
  });
  try {
    if (fixture !== false) await answerFromFixtures(page, over);
    await body(page, context);
    if (wrong.length > 0) throw new Error(wrong.join("; "));
    console.log(`${name}: ok`);
  } catch (error) {
    failed += 1;
    console.log(`${name}: FAILED ${error.message}`);
  } finally {
    await context.close();
  }
}

/** Opens a view and waits for what only its data brings. */
async function open(page, hash, ready) {
  await page.goto(`${admin}/${hash}`);
  await page.waitForSelector(ready);
}

async function accessible(page) {
  await page.evaluate(axeSource);
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const found = result.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html.slice(0, 120)} (${node.any.concat(node.all, node.none).map((check) => check.message).join("; ")})`).join(" | ")}`);
  demand(found.length === 0, `axe: ${found.join("\n  ")}`);
  demand(result.passes.length > 10, "axe looked at next to nothing");
}

async function fits(page) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  demand(over <= 0, `${over} pixels wider than the screen`);
}

const explain = async (page) => {
  await page.fill("#model", "llama3.2");
  await page.fill("#prompt", "How can I reverse a Python list?");
  await page.click("button:has-text('Explain')");
  await page.waitForSelector(".steps");
};
const VIEWS = [
  ["overview", "#/", ".hero h2 strong"],
  ["live", "#/live", ".tail tbody tr"],
  ["entries", "#/entries", ".results tbody tr"],
  ["entry", "#/entries/ab12", ".entry-title"],
  ["playground", "#/playground", "#prompt", explain],
  ["an unknown page", "#/nothing", "main h1"],
];

for (const [name, hash, ready, act] of VIEWS) {
  for (const colorScheme of ["light", "dark"]) {
    test(`axe: ${name}, ${colorScheme}`, { colorScheme, expected: [] }, async (page) => {
      await open(page, hash, ready);
      await act?.(page);
      for (const details of await page.locator("main details").all()) await details.evaluate((element) => { element.open = true; });
      await accessible(page);
    });
  }
  test(`phone: ${name}`, { viewport: PHONE }, async (page) => {
    await open(page, hash, ready);
    await act?.(page);
    await fits(page);
  });
}

test("axe: the question before a deletion", {}, async (page) => {
  await open(page, "#/entries/ab12", ".entry-title");
  await page.click("button:has-text('Delete…')");
  await page.waitForSelector("dialog[open]");
  await accessible(page);
});

test("axe: before the first request", { over: { "/overview": fixtures.emptyOverview, "/near-misses": { near_misses: [] } } }, async (page) => {
  await open(page, "#/", ".hero h2");
  await page.waitForSelector("text=Waiting for the first request");
  await page.waitForSelector("text=Send it a first request");
  demand(await page.locator(".chart:visible").count() === 0, "an empty chart is drawn");
  await accessible(page);
});

test("the headline says what it saves, and why requests missed", {}, async (page) => {
  await open(page, "#/", ".hero h2 strong");
  const hero = await page.innerText(".hero");
  for (const part of ["66 %", "9,412", "4 h 17 min", "3.5M", "$21.47", "mode reuse"]) demand(hero.includes(part), `${part} is not in: ${hero}`);
  demand((await page.innerText("#health")).includes("Healthy"), "health");
  const misses = await page.innerText("section:has(> h2:text('Why requests missed'))");
  for (const reason of Object.entries(fixtures.overview.miss_reasons).filter(([, n]) => n > 0)) demand(misses.includes(reason[0]), `${reason[0]} is not in: ${misses}`);
  demand(misses.includes("never reused"), "reasons are explained");
  const trust = await page.innerText("section:has(> h2:text('Can the answers be trusted?'))");
  for (const part of ["1.0 %", "0.70", "84 %"]) demand(trust.includes(part), `${part} is not in: ${trust}`);
});

test("another threshold is tried by the keyboard", {}, async (page) => {
  await open(page, "#/", ".try output b");
  const slider = page.locator("#try-threshold");
  const output = page.locator(".try output");
  const { totals, similarity } = fixtures.overview;
  const looked = totals.exact_hits + totals.semantic_hits + totals.misses;
  const share = (hits) => `${(hits / looked * 100).toFixed(1)} %`;
  demand((await output.innerText()).includes(share(totals.exact_hits + totals.semantic_hits)), "as configured");
  await slider.focus();
  for (let n = 0; n < 5; n += 1) await page.keyboard.press("ArrowRight");
  const lost = similarity.hits.reduce((sum, n, bin) => sum + (similarity.edges[bin] < 0.795 ? n : 0), 0);
  const up = await output.innerText();
  demand(up.includes(share(totals.exact_hits + totals.semantic_hits - lost)), `0.80: ${up}`);
  for (let n = 0; n < 10; n += 1) await page.keyboard.press("ArrowLeft");
  const more = similarity.below_threshold.reduce((sum, n, bin) => sum + (similarity.edges[bin] > 0.595 ? n : 0), 0);
  const down = await output.innerText();
  demand(down.includes(share(totals.exact_hits + totals.semantic_hits + more)), `0.60: ${down}`);
  await page.click("text=Back to the configured one");
  demand((await output.innerText()).startsWith("As configured"), "and back");
});

test("every chart has its figures as a table", {}, async (page) => {
  await open(page, "#/", ".try output b");
  for (const name of ["Hit rate over time", "How fast each layer answers", "The similarity picture"]) {
    const card = page.locator(`section:has(> h2:text("${name}"))`);
    demand(await card.locator("svg[role=img][aria-label]").count() > 0, `${name} has no described drawing`);
    await card.locator("summary").click();
    demand(await card.locator("tbody tr").count() > 3, `${name} has no table`);
  }
});

test("the window is chosen", {}, async (page) => {
  await open(page, "#/", ".hero h2 strong");
  const asked = page.waitForRequest((request) => request.url().endsWith("window=7d"));
  await page.locator("input[name=window][value='7d']").check({ force: true });
  await asked;
});

test("the theme is chosen and kept", { colorScheme: "light" }, async (page) => {
  await open(page, "#/", ".hero h2 strong");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.click("#theme");
  demand(await ground() === light, "light is light");
  await page.click("#theme");
  const dark = await ground();
  demand(dark !== light, "dark is dark");
  await page.reload();
  demand(await ground() === dark, "it is kept");
  await page.click("#theme");
  demand(await ground() === light, "and as the system has it again");
});

test("the live tail pauses, goes on and filters", {}, async (page) => {
  await open(page, "#/live", ".tail tbody tr");
  await page.waitForFunction((n) => document.querySelectorAll(".tail tbody tr").length === n, fixtures.decisions.length);
  const first = await page.innerText(".tail tbody tr:first-child");
  demand(first.includes("Nearest prompt not similar enough"), `newest first: ${first}`);
  await page.waitForSelector("text=3 decisions came faster");
  await page.selectOption("#layer", "semantic");
  demand(await page.locator(".tail tbody tr:visible").count() === 2, "two semantic hits");
  await page.selectOption("#layer", "");
  await page.click("button:has-text('Pause')");
  demand((await page.innerText(".tail-state")).includes("Paused"), "paused");
  await page.click("button:has-text('Resume')");
  await page.click("button:has-text('Clear')");
  await page.waitForSelector("text=Nothing yet");
});

test("an entry is deleted only when one says yes", {}, async (page) => {
  const deleted = [];
  page.on("request", (request) => { if (request.method() === "DELETE") deleted.push(request.url()); });
  await open(page, "#/entries/ab12", ".entry-title");
  await page.click("button:has-text('Delete…')");
  demand(await page.evaluate(() => document.activeElement.textContent) === "Keep it", "the harmless answer has the focus");
  await page.keyboard.press("Escape");
  demand(deleted.length === 0 && await page.locator("dialog[open]").count() === 0, "nothing is deleted on Escape");
  await page.click("button:has-text('Delete…')");
  await page.click("dialog button:has-text('Keep it')");
  demand(deleted.length === 0, "nothing is deleted on No");
  await page.click("button:has-text('Delete…')");
  await page.click("dialog button.danger");
  await page.waitForSelector(".results tbody tr");
  demand(deleted.length === 1 && deleted[0].endsWith(fixtures.entryPage.id), `deleted: ${deleted}`);
});

test("entries are searched and paged", {}, async (page) => {
  const asked = [];
  page.on("request", (request) => { if (request.url().includes("/entries?")) asked.push(new URL(request.url()).searchParams); });
  await open(page, "#/entries", ".results tbody tr");
  await page.click("text=Older →");
  await page.waitForSelector("text=page 2");
  demand(asked.at(-1).get("cursor") === "77", "the next page is asked for");
  await page.click("text=← Newer");
  await page.waitForSelector("text=page 1");
  await page.fill("#search", "a & b=c");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => location.hash.includes("q="));
  await page.waitForSelector(".results tbody tr");
  demand(asked.at(-1).get("q") === "a & b=c", `asked for ${asked.at(-1)}`);
  demand(await page.inputValue("#search") === "a & b=c", "what was searched for stays in the field");
});

test("the playground shows each layer's decision with its evidence", {}, async (page) => {
  await open(page, "#/playground", "#prompt");
  const sent = page.waitForRequest((request) => request.url().endsWith("/explain"));
  await explain(page);
  const { path, body } = (await sent).postDataJSON();
  demand(path === "/v1/chat/completions" && body.model === "llama3.2" && body.messages[0].content.includes("Python"), JSON.stringify(body));
  const result = await page.innerText(".result");
  for (const part of ["Semantic hit", "Exact layer", "Semantic layer", "Upstream", "not needed", "0.94", "0.99", "0.98", "language", "differs", "reversed(items)"]) {
    demand(result.includes(part), `${part} is not in: ${result}`);
  }
});

test("the whole body and headers are one's own", {}, async (page) => {
  await open(page, "#/playground", "#prompt");
  await page.fill("#model", "m");
  await page.fill("#prompt", "p");
  await page.click("summary");
  await page.fill("#headers", "X-Rejoinder-Namespace: docs\n\nnot a header");
  await page.check("#own");
  await page.fill("#raw", "{ not json");
  await page.click("button:has-text('Explain')");
  await page.waitForSelector("text=The body is not JSON");
  await page.fill("#raw", '{"model": "x", "prompt": "y", "seed": 1}');
  const sent = page.waitForRequest((request) => request.url().endsWith("/explain"));
  await page.click("button:has-text('Explain')");
  const { body, headers } = (await sent).postDataJSON();
  demand(body.seed === 1 && headers["x-rejoinder-namespace"] === "docs" && Object.keys(headers).length === 1, JSON.stringify(headers));
});

test("all can be done by the keyboard alone", {}, async (page) => {
  await open(page, "#/", ".hero h2 strong");
  await page.keyboard.press("Tab");
  demand(await page.evaluate(() => document.activeElement.textContent) === "Skip to content", "the way past the menu comes first");
  await page.keyboard.press("Enter");
  demand(await page.evaluate(() => document.activeElement.id) === "main", "and leads to the content");
  const reached = new Set();
  const invisible = new Set();
  await page.reload();
  await page.waitForSelector(".hero h2 strong");
  for (let n = 0; n < 80; n += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const element = document.activeElement;
      if (element === null || element === document.body) return null;
      const name = element.getAttribute("aria-label") ?? element.id ?? "";
      const outlined = (node) => node !== null && getComputedStyle(node).outlineStyle !== "none";
      const drawn = outlined(element) || outlined(element.nextElementSibling);
      return { name: `${element.tagName} ${name} ${element.textContent.trim().slice(0, 30)}`, drawn };
    });
    if (at === null) break;
    reached.add(at.name);
    if (!at.drawn) invisible.add(at.name);
  }
  demand(invisible.size === 0, `no focus is drawn on ${[...invisible]}`);
  for (const wanted of ["Overview", "Live", "Entries", "Playground", "Theme", "try-threshold", "Show as table", "reverse a list"]) {
    demand([...reached].some((name) => name.includes(wanted)), `${wanted} is not reached: ${[...reached]}`);
  }
  await page.locator("nav a[data-view=entries]").focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector(".results tbody tr");
  demand(await page.evaluate(() => document.activeElement.id) === "main", "a new view takes the focus");
  await page.locator(".results a").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector(".entry-title");
  await page.locator("button:has-text('Delete…')").focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  await page.locator("nav a[data-view=playground]").focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("#prompt");
  await page.locator("#model").fill("m");
  await page.locator("#prompt").focus();
  await page.keyboard.type("How can I reverse a Python list?");
  await page.keyboard.press("Control+Enter");
  await page.waitForSelector(".steps");
});

// Text from anywhere stays text, wherever it is shown.
const nasty = fixtures.HOSTILE[0];
const hostile = {
  "/overview": {
    ...fixtures.overview, mode: "<b>reuse", version: nasty, miss_reasons: { [nasty]: 3, __proto__x: 1 }, store: { kind: nasty, entries: 1 },
    saved: { ...fixtures.overview.saved, money: { "<i>": 1 }, models: fixtures.HOSTILE.map((model) => ({ model, hits: 1, prompt_tokens: 1, completion_tokens: 1, money: { [model]: 1 } })) },
    top_entries: fixtures.HOSTILE.map((prompt) => ({ id: prompt, model: prompt, prompt, hits: 1 })),
  },
  "/near-misses": { near_misses: fixtures.HOSTILE.map((text) => ({ prompt: text, stored_prompt: text, entry: text, similarity: 0.5, reason: text, rule: text })) },
  "/entries": fixtures.hostileEntries, "/decisions": fixtures.hostileDecisions,
  "/entries/*": { ...fixtures.entryPage, prompt: nasty, reply: fixtures.HOSTILE.join("\n"), model: nasty, namespace: nasty, status: nasty, scope: { [nasty]: nasty }, evidence: { [nasty]: [{ [nasty]: nasty }] } },
  "/explain": {
    normalised_prompt: nasty, would_serve: { entry: nasty, reply: nasty },
    layers: [{ layer: nasty, decision: nasty, detail: nasty, entry: nasty }, { layer: "semantic", decision: "hit", detail: nasty, candidates: fixtures.HOSTILE.map((prompt) => ({ entry: prompt, prompt, similarity: 1, rules: [prompt], verifier: prompt, confidence: 1, freshness: 0.5, decision: prompt })) }],
  },
};
for (const [name, hash, ready, act] of VIEWS.slice(0, 5)) {
  for (const viewport of [DESK, PHONE]) {
    test(`hostile text: ${name}, ${viewport.width} wide`, { over: hostile, viewport }, async (page) => {
      await open(page, hash, ready);
      await act?.(page);
      const text = await page.evaluate(() => document.body.textContent);
      demand(text.includes("<script>") && text.includes("<img src=x"), "it is shown as it is");
      demand(await page.locator("main script, main img, main b[onclick]").count() === 0, "it became markup");
      demand(await page.evaluate(() => globalThis.hacked === undefined), "it ran");
      await fits(page);
      if (viewport === DESK) await accessible(page);
    });
  }
}

test("what fails is told", { over: { "/overview": 500, "/entries": 503, "/entries/*": 404, "/explain": 400, "/readyz": { store: "degraded", embedder: "ok", upstream: "down" } }, expected: [/Failed to load resource/] }, async (page) => {
  await open(page, "#/", ".notice:has-text('answered 500')");
  await page.waitForSelector("#health:has-text('Upstream down')");
  await accessible(page);
  await open(page, "#/entries", ".notice:has-text('answered 503')");
  await open(page, "#/entries/ab12", "h1:has-text('No such entry')");
  await open(page, "#/playground", "#prompt");
  await page.fill("#model", "m");
  await page.fill("#prompt", "p");
  await page.click("button:has-text('Explain')");
  await page.waitForSelector(".result .notice:has-text('answered 400')");
});

test("the browser is told to run nothing but the page's own files", { fixture: false, expected: [/TrustedHTML/] }, async (page) => {
  const answer = await page.goto(`${admin}/`);
  const headers = answer.headers();
  const policy = headers["content-security-policy"] ?? "";
  for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) demand(policy.includes(part), policy);
  demand(!policy.includes("unsafe"), policy);
  for (const [name, value] of [["x-content-type-options", "nosniff"], ["x-frame-options", "DENY"], ["referrer-policy", "no-referrer"]]) demand(headers[name] === value, `${name}: ${headers[name]}`);
  await page.waitForSelector(".hero h2");
  const made = await page.evaluate(() => { try { document.createElement("p").innerHTML = "<b>x</b>"; return true; } catch { return false; } });
  demand(!made, "a string became markup");
});

test("live: the figures of this proxy", { fixture: false }, async (page) => {
  await open(page, "#/", ".hero h2 strong");
  const truth = await page.evaluate(async () => (await fetch("/overview")).json());
  demand(truth.totals.exact_hits > 0 && truth.totals.semantic_hits > 0 && truth.totals.misses > 0, JSON.stringify(truth.totals));
  const hero = await page.innerText(".hero");
  demand(hero.includes(`${(truth.totals.hit_rate * 100).toFixed(1)} %`), `${truth.totals.hit_rate} is not in: ${hero}`);
  for (const title of ["Why requests missed", "How fast each layer answers", "Entries that serve most"]) {
    demand(await page.locator(`section:has(> h2:text("${title}")) .empty`).count() === 0, `${title} is empty`);
  }
  await page.waitForSelector(".try output b");
  await accessible(page);
});

test("live: an entry is found, shown and deleted", { fixture: false }, async (page) => {
  await open(page, "#/entries", ".results tbody tr");
  await page.fill("#search", "onerror");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".results tbody tr").length === 1);
  await page.click(".results a");
  await page.waitForSelector(".entry-title:has-text('<img src=x onerror')");
  await accessible(page);
  await page.click("button:has-text('Delete…')");
  await page.click("dialog button.danger");
  await page.waitForFunction(() => location.hash === "#/entries");
  await page.waitForSelector(".results tbody tr");
  demand(!(await page.innerText(".results")).includes("onerror"), "it is gone");
});

test("live: decisions are seen as they are made", { fixture: false }, async (page) => {
  await open(page, "#/live", ".tail-state:has-text('Listening')");
  console.log("ready for a request");
  await page.waitForSelector(".tail tbody tr");
  const line = await page.innerText(".tail tbody tr");
  demand(line.includes("Exact hit") && line.includes("capital of France"), line);
});

test("live: the playground explains", { fixture: false }, async (page) => {
  await open(page, "#/playground", "#prompt");
  await page.fill("#model", "llama3.2");
  await page.fill("#prompt", "What is the capital city of France, please?");
  await page.click("button:has-text('Explain')");
  await page.waitForSelector(".steps");
  const result = await page.innerText(".result");
  demand(result.includes("Semantic layer") && result.includes("What is the capital of France?"), result);
  await accessible(page);
});

// Each browser page mostly waits, so some run at once; those that change the proxy's store, one after the other.
const alone = cases.filter(([name]) => name.startsWith("live:"));
const together = cases.filter(([name]) => !name.startsWith("live:"));
await Promise.all(Array.from({ length: 4 }, async () => {
  for (let one = together.shift(); one !== undefined; one = together.shift()) await run(one);
}));
for (const one of alone) await run(one);
await browser.close();
process.exit(failed === 0 ? 0 : 1);
