// What the admin API could say on a busy day, and the worst that prompts could hold.

export const HOSTILE = [
  '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">',
  "\u202Eطلب من اليمين إلى اليسار\u202C שלום <b onclick=alert(1)>עולם</b>",
  `${"averylongwordwithoutanyblanks".repeat(60)}</td></table>`,
  "javascript:alert(1) \" ' ` ${window.hacked = 3} {{7*7}} \u0000\u0007 🙂".replaceAll("\u0000", ""),
];

const PROMPTS = [
  "How do I reverse a list in Python?",
  "What is the difference between a left join and an inner join?",
  "Summarise the refund policy for annual plans in two sentences.",
  "How do I rotate the signing keys without logging everyone out?",
  "Explain how HTTP caching works, for someone new to it",
  "What ports does PostgreSQL use by default?",
  "Translate “good morning, see you at the meeting” into Portuguese",
];

const id = (n) => n.toString(16).padStart(32, "ab12");

/** Numbers that look random and are the same each time. */
function wave(n, seed) {
  return (Math.sin(n * 12.9898 + seed * 78.233) * 43758.5453) % 1;
}

function series() {
  const length = 90;
  const made = { step_s: 10, from: 1764360000, exact: [], semantic: [], upstream: [], bypass: [] };
  for (let n = 0; n < length; n += 1) {
    const load = 40 + 22 * Math.sin(n / 14) + 10 * Math.abs(wave(n, 1));
    const share = 0.18 + 0.3 * (1 - Math.exp(-n / 25));
    const quiet = n > 30 && n < 34;
    made.exact.push(quiet ? 0 : Math.round(load * (share + 0.05 * wave(n, 2))));
    made.semantic.push(quiet ? 0 : Math.round(load * (0.06 + 0.16 * (1 - Math.exp(-n / 30)) + 0.04 * wave(n, 3))));
    made.upstream.push(quiet ? 0 : Math.round(load * (0.75 - share)));
    made.bypass.push(quiet ? 0 : Math.round(load * 0.05));
  }
  return made;
}

function similarity() {
  const edges = Array.from({ length: 51 }, (_, n) => Number((n * 0.02).toFixed(2)));
  const bell = (x, at, width, height) => Math.round(height * Math.exp(-((x - at) ** 2) / (2 * width * width)));
  const middles = edges.slice(0, -1).map((edge) => edge + 0.01);
  return {
    edges,
    hits: middles.map((x) => (x < 0.7 ? 0 : bell(x, 0.91, 0.07, 160))),
    misses: middles.map((x) => bell(x, 0.52, 0.11, 150) + (x > 0.66 ? bell(x, 0.8, 0.09, 62) : 0)),
  };
}

const sum = (values) => values.reduce((total, n) => total + n, 0);

const near = similarity();
const semantic = sum(near.hits);

export const overview = {
  version: "0.1.0", mode: "reuse", uptime_s: 93_780,
  store: { kind: "embedded", state: "ok", entries: 2841, bytes: 48_213_004 },
  embedder: { kind: "builtin", state: "ok" },
  thresholds: { similarity: 0.7, confidence: 0.837, max_error: 0.02 },
  totals: { requests: 9412, exact_hits: 4127, semantic_hits: semantic, misses: 2790, bypasses: 361, errors: 4, hit_rate: (4127 + semantic) / (4127 + semantic + 2790) },
  saved: {
    prompt_tokens: 1_204_551, completion_tokens: 2_310_870, seconds: 15_422, money: { USD: 21.47 },
    models: [
      { model: "gpt-4o-mini", hits: 3122, prompt_tokens: 801_220, completion_tokens: 1_544_120, money: { USD: 1.05 } },
      { model: "gpt-4o", hits: 1204, prompt_tokens: 312_001, completion_tokens: 590_230, money: { USD: 20.42 } },
      { model: "llama3.2", hits: 977, prompt_tokens: 91_330, completion_tokens: 176_520, money: null },
    ],
  },
  series: series(),
  latency: {
    edges_ms: [0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000],
    exact: { counts: [320, 2104, 1290, 301, 80, 22, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], p50_ms: 0.047, p99_ms: 0.6 },
    semantic: { counts: [0, 0, 0, 0, 0, 0, 4, 190, 702, 371, 60, 9, 2, 0, 0, 0, 0, 0, 0], p50_ms: 8.1, p99_ms: 44 },
    upstream: { counts: [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 6, 31, 190, 640, 1033, 702, 260, 40, 6], p50_ms: 812, p99_ms: 6900 },
  },
  miss_reasons: {
    "no-candidate": 1120, "below-threshold": 861, "guard-rejected": 402, "low-confidence": 233, "exact-only": 131, expired: 43, "credential-unverified": 0,
  },
  similarity: { ...near, below_threshold: near.misses.map((n, bin) => (near.edges[bin] < 0.7 ? n : 0)) },
  top_entries: PROMPTS.slice(0, 6).map((prompt, n) => ({ id: id(n + 1), model: "gpt-4o-mini", prompt, hits: [612, 388, 301, 188, 121, 97][n] })),
};

export const emptyOverview = {
  ...overview, uptime_s: 12, saved: { prompt_tokens: 0, completion_tokens: 0, seconds: 0, money: {}, models: [] },
  store: { kind: "embedded", state: "ok", entries: 0, bytes: null },
  totals: { requests: 0, exact_hits: 0, semantic_hits: 0, misses: 0, bypasses: 0, errors: 0, hit_rate: 0 },
  series: { step_s: 10, from: 1764360000, exact: Array(90).fill(0), semantic: Array(90).fill(0), upstream: Array(90).fill(0), bypass: Array(90).fill(0) },
  latency: { edges_ms: [1, 10], exact: { counts: [0, 0, 0], p50_ms: null, p99_ms: null }, semantic: { counts: [0, 0, 0], p50_ms: null, p99_ms: null }, upstream: { counts: [0, 0, 0], p50_ms: null, p99_ms: null } },
  miss_reasons: {}, similarity: { edges: near.edges, hits: near.hits.map(() => 0), misses: near.misses.map(() => 0) }, top_entries: [],
};

export const audits = {
  audit_share: 0.02, audited: 214, same: 203, different: 2, unclear: 9, skipped: 0, poisoned: 2,
  false_hit_rate: { count: 2, of: 205, value: 0.009756, low: 0.002679, high: 0.034884 },
  false_hit_rate_if_unclear_is_wrong: { count: 11, of: 214, value: 0.0514, low: 0.0289, high: 0.0897 },
};

export const nearMisses = {
  near_misses: [
    { at: "2026-07-30T10:02:11Z", model: "gpt-4o-mini", namespace: "", prompt: "How do I reverse a list in Ruby?", stored_prompt: PROMPTS[0], entry: id(1), similarity: 0.861, confidence: 0, reason: "guard-rejected", rule: "language" },
    { at: "2026-07-30T10:01:50Z", model: "gpt-4o", namespace: "", prompt: "Summarise the refund policy for monthly plans in two sentences.", stored_prompt: PROMPTS[2], entry: id(3), similarity: 0.942, confidence: 0.31, reason: "low-confidence", rule: "aspect" },
    { at: "2026-07-30T09:59:02Z", model: "gpt-4o-mini", namespace: "", prompt: "Which port should I open for Postgres replicas?", stored_prompt: PROMPTS[5], entry: id(6), similarity: 0.664, confidence: 0.22, reason: "below-threshold", rule: null },
  ],
};

const REPLY = "Use `reversed(items)` for an iterator, `items[::-1]` for a new list, or `items.reverse()` to change the list in place.\n\n    numbers = [1, 2, 3]\n    numbers.reverse()\n    print(numbers)  # [3, 2, 1]\n\nThe first costs nothing until it is read; the last returns None, which surprises many.";

const entry = (prompt, n) => ({
  id: id(n + 1), path: "/v1/chat/completions", model: n % 3 === 2 ? "llama3.2" : "gpt-4o-mini", namespace: n === 4 ? "docs-v2" : "",
  prompt, reply: n === 0 ? REPLY : `Here is what to know about it: ${prompt}`, created_at: "2026-07-30T09:12:44Z", age_s: 5400 * (n + 1), ttl_s: 86_400, hits: [612, 388, 301, 188, 121, 97][n] ?? 0,
});

export const entries = { entries: PROMPTS.map(entry), next_cursor: "77" };
export const hostileEntries = { entries: HOSTILE.map((text, n) => ({ ...entry(text, n), reply: text, model: text.slice(0, 80), namespace: "<i>" })), next_cursor: null };

export const entryPage = {
  ...entry(PROMPTS[0], 0), status: "fresh", tool_calls: false, prompt_tokens: 18, completion_tokens: 74,
  scope: { path: "/v1/chat/completions", model: "gpt-4o-mini", namespace: "" },
  hit_similarities: { edges: near.edges, counts: near.hits.map((n) => Math.round(n / 12)) },
  evidence: { same: 3, different: 0, contradicted: false, trials: [0.93, 0.97, 0.95].map((confidence) => ({ confidence, same: true })) },
};

export const explained = {
  normalised_prompt: "How can I reverse a Python list?",
  layers: [
    { layer: "exact", decision: "miss", detail: "no-candidate", entry: null, micros: 12 },
    {
      layer: "semantic", decision: "hit", detail: "hit", micros: 8123,
      candidates: [
        { entry: id(1), prompt: PROMPTS[0], similarity: 0.942, rules: [], verifier: 4.7, confidence: 0.978, freshness: 0.98, decision: "serve" },
        { entry: id(9), prompt: "How do I reverse a list in Ruby?", similarity: 0.861, rules: ["language"], verifier: null, confidence: null, freshness: 0.9, decision: "guard-rejected" },
        { entry: id(10), prompt: "How do I sort a list in Python?", similarity: 0.744, rules: ["aspect"], verifier: -2.44, confidence: 0.04, freshness: 1, decision: "low-confidence" },
      ],
    },
    { layer: "upstream", decision: "not needed", detail: null },
  ],
  would_serve: { entry: id(1), reply: REPLY },
};

const decision = (n, layer, detail, more) => ({
  at: 1764360000 + n, path: "/v1/chat/completions", model: "gpt-4o-mini", namespace: "", layer, detail, rule: null,
  similarity: null, confidence: null, entry: null, status: 200, duration_ms: 0.05, prompt: PROMPTS[n % PROMPTS.length], ...more,
});

export const decisions = [
  decision(1, "upstream", "no-candidate", { duration_ms: 913 }),
  decision(2, "exact", "exact", { similarity: 1, confidence: 1, entry: id(3) }),
  decision(3, "semantic", "semantic", { similarity: 0.93, confidence: 0.97, entry: id(4), duration_ms: 8.2 }),
  decision(4, "upstream", "guard-rejected", { rule: "number", similarity: 0.95, confidence: 0, duration_ms: 1204 }),
  decision(5, "bypass", "bypass", { path: "/v1/models", model: null, prompt: null, duration_ms: 41 }),
  decision(6, "upstream", "exact-only", { rule: "moment", duration_ms: 702 }),
  decision(7, "exact", "exact", { similarity: 1, confidence: 1, entry: id(1), duration_ms: 0.04 }),
  decision(8, "semantic", "semantic", { similarity: 0.88, confidence: 0.91, entry: id(2), duration_ms: 11 }),
  decision(9, "upstream", "below-threshold", { similarity: 0.61, confidence: 0.11, duration_ms: 1490 }),
];
export const hostileDecisions = HOSTILE.map((prompt, n) => decision(n, ["exact", "semantic", "upstream", "<b>"][n], "<img src=x onerror=alert(1)>", { prompt, rule: "<u>", model: "<s>", entry: n === 0 ? "../../x" : null }));

/** A stream of server-sent events that ends, and asks to be left alone for long. */
export const events = (list) => `retry: 600000\n\n${list.map((one) => `event: decision\ndata: ${JSON.stringify(one)}\n\n`).join("")}event: skipped\ndata: {"count":3}\n\n`;
