// Pictures of each view, from fixtures and the files as they lie in src/dashboard/assets; no proxy is needed:
//   cd .test-clients/dashboard && node ../../tests/dashboard/screenshots.mjs FOLDER [PART-OF-NAME]
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { answerFromFixtures } from "./answers.mjs";
import * as fixtures from "./fixtures.mjs";

const require = createRequire(join(process.cwd(), "package.json"));
const { chromium } = require("playwright-core");
const folder = process.argv[2] ?? ".";
const only = process.argv[3]; // part of a picture's name
const assets = new URL("../../src/dashboard/assets/", import.meta.url);
const types = { html: "text/html; charset=utf-8", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
await mkdir(folder, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

async function picture(name, { width, height, colorScheme, hash, over, act, fullPage = true }) {
  if (only && !name.includes(only)) return;
  const page = await browser.newPage({ viewport: { width, height }, colorScheme, deviceScaleFactor: 1 });
  page.on("console", (message) => { if (message.type() === "error") console.log(name, message.text()); });
  page.on("pageerror", (error) => console.log(name, error.message));
  await page.route("**/*", async (route) => {
    const path = new URL(route.request().url()).pathname;
    const file = path === "/" ? "index.html" : path.replace("/dashboard/", "");
    await route.fulfill({ body: await readFile(new URL(file, assets)), contentType: types[file.split(".").at(-1)] });
  });
  await answerFromFixtures(page, over);
  await page.goto(`http://rejoinder.test/${hash}`);
  await page.waitForLoadState("networkidle");
  await act?.(page);
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) console.log(`${name}: ${wide} pixels too wide`);
  await page.close();
}

const views = {
  overview: { hash: "#/" }, live: { hash: "#/live" }, entries: { hash: "#/entries" }, entry: { hash: "#/entries/ab12" },
  playground: { hash: "#/playground", act: async (page) => {
    await page.fill("#prompt", "How can I reverse a Python list?");
    await page.click("text=Explain");
    await page.waitForSelector(".steps");
  } },
  empty: { hash: "#/", over: { "/overview": fixtures.emptyOverview } },
  hostile: { hash: "#/entries", over: { "/entries": fixtures.hostileEntries } },
  tried: { hash: "#/", act: async (page) => { await page.locator("#try-threshold").fill("0.6"); await page.locator(".try").scrollIntoViewIfNeeded(); } },
};
for (const [name, view] of Object.entries(views)) {
  await picture(`${name}-dark`, { width: 1280, height: 900, colorScheme: "dark", ...view });
  await picture(`${name}-light`, { width: 1280, height: 900, colorScheme: "light", ...view });
  await picture(`${name}-phone`, { width: 390, height: 844, colorScheme: "light", ...view });
}
// Those of the README and docs/.
const top = { width: 1280, height: 900, fullPage: false };
await picture("dashboard-overview", { ...views.overview, ...top, colorScheme: "dark" });
await picture("dashboard-playground", { ...views.playground, ...top, height: 1010, colorScheme: "light" });
await picture("dashboard-phone", { ...views.overview, width: 390, height: 844, fullPage: false, colorScheme: "light" });
await browser.close();
