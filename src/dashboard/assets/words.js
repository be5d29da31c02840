// What the program's own terms mean, in words for someone who has never seen them.

export const LAYERS = {
  exact: { name: "Exact hit", about: "the same question was asked before, word for word" },
  semantic: { name: "Semantic hit", about: "another question with the same meaning was answered before" },
  upstream: { name: "Miss", about: "the model was asked" },
  bypass: { name: "Bypass", about: "never looked up: of a kind that is not cached, or the client said so" },
};

/** Reasons of misses: what happened, and where there is one, what to do about it. */
export const REASONS = {
  "no-candidate": ["Nothing like it was stored", "The first request of its kind, or of its scope: same model, key, options and earlier turns."],
  "below-threshold": ["Nearest prompt not similar enough", "Its similarity is below the threshold. See the similarity picture before you change it."],
  "low-confidence": ["Similar, but not surely the same", "Similarity, guard, verifier and age together say too little for one answer to do for both."],
  "guard-rejected": ["Looks alike, differs decisively", "Another number, name, unit, negation or language: such a pair is never reused."],
  "exact-only": ["Leans on its context", "“Continue”, “today”, “my order”, “another joke”: matched word for word only."],
  expired: ["Entry too old", "It outlived its time to live, or the client's max-age."],
  poisoned: ["Entry found to be wrong", "An audit contradicted it; a new reply takes its place."],
  observed: ["Would have hit", "Mode observe serves nothing; it only counts."],
  exploring: ["Being verified", "Mode verified sent it upstream to compare the stored reply with a fresh one."],
  "credential-unverified": ["Credentials not yet accepted", "Upstream has not accepted this key of late, so nothing is served on its behalf."],
  "embedder-unavailable": ["Embedder failed", "The prompt could not be embedded, so only the exact layer worked."],
  "verifier-unavailable": ["Verifier failed", "The second opinion on two prompts was missing."],
  "store-unavailable": ["Store failed", "The store did not answer; the request went upstream as if there were no cache."],
};

export const OTHER_DETAILS = {
  hit: ["Served", "A stored reply answers it."],
  exact: ["Served", "The same request was answered before."],
  semantic: ["Served", "A prompt of the same meaning was answered before."],
  request: ["Client asked for a fresh reply", "no-cache, no-store or max-age."],
  bypass: ["Passed through", "Of a kind that is never cached."],
  collapsed: ["Shared a reply", "Waited for another request that asked the same."],
};

/** A reason's name and explanation; one that is not known here is shown as it is. */
export function reason(token) {
  const known = [REASONS, OTHER_DETAILS].find((words) => Object.hasOwn(words, token ?? ""));
  const [name, about] = known?.[token] ?? [token ?? "–", ""];
  return { name, about };
}

const MODES = {
  reuse: "Stored replies are served when similarity, guard and verifier agree.",
  observe: "Nothing is served from the cache: what would have been is compared with the model's own reply, and counted.",
  verified: "Semantic hits are served only once comparisons on your own traffic have shown that they are right.",
};

/** What a mode does; nothing for one that is not known here. */
export const mode = (name) => (Object.hasOwn(MODES, name) ? MODES[name] : "");

/** The endpoints whose prompts are looked at. */
export const ENDPOINTS = [
  "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions", "/api/chat", "/api/generate",
];
