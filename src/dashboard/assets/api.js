// The admin API of the origin that served this page. A token, where one is set, is sent by the browser (HTTP Basic).

/** An answer that is not what was asked for; `status` 0 where there was none. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "rejoinder does not answer. Is it running?");
  }
  return response;
}

async function read(response) {
  const text = await response.text();
  let value = null;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    // What is no document is told by its status.
  }
  return value;
}

/** The document at a path; throws `Refused`. */
export async function get(path, signal) {
  const response = await ask(path, { signal });
  const value = await read(response);
  if (!response.ok) throw new Refused(response.status, said(value, response));
  return value;
}

/** `GET /readyz`, which says with 503 what is down. */
export async function readiness(signal) {
  return read(await ask("/readyz", { signal }));
}

/** Posts a document and reads one; throws `Refused`. */
export async function post(path, body, signal) {
  const headers = { "content-type": "application/json" };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const value = await read(response);
  if (!response.ok) throw new Refused(response.status, said(value, response));
  return value;
}

/** Deletes what is at a path; throws `Refused`. */
export async function remove(path) {
  const response = await ask(path, { method: "DELETE" });
  if (!response.ok) throw new Refused(response.status, said(await read(response), response));
}

function said(value, response) {
  if (typeof value?.error === "string") return value.error;
  if (response.status === 404) return "This rejoinder does not know that.";
  return `The answer was ${response.status} ${response.statusText}`.trim();
}
