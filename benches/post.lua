-- wrk's side of a benchmark: one POST, the same each time, its body read once from the file named by BODY.
-- At the end one line of figures for scripts/bench. Requests are laid out before the run, so that none costs Lua.

local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer bench"
file:close()

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    "RESULT %d %d %d %.0f %.0f",
    summary.requests,
    summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50),
    latency:percentile(99)
  ))
end
