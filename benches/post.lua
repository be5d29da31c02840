-- wrk's side of a benchmark: POSTs whose body is read once from the file named by BODY. At the end one line of figures
-- for scripts/bench. Requests are laid out before the run, so that none costs Lua.
--
-- NUMBERS="FIRST COUNT": the file has a body a line, and request number N, from FIRST on, is the one whose place that
-- is with N in the place of {n}, as benches/client.rs fills a cache; of more than LAID_OUT numbers, as many, evenly.
-- PORTS="PORT ...": a thread for each, which asks there alone.

local LAID_OUT = 40000

local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer bench"
file:close()

local threads = 0

function setup(thread)
  local at = 0
  for port in os.getenv("PORTS"):gmatch("%d+") do
    if at == threads then
      thread.addr = wrk.lookup("127.0.0.1", port)[1]
    end
    at = at + 1
  end
  threads = threads + 1
end

local first, count = (os.getenv("NUMBERS") or ""):match("(%d+) (%d+)")
if first then
  local bodies, requests, at = {}, {}, 0
  for line in wrk.body:gmatch("[^\n]+") do
    bodies[#bodies + 1] = line
  end
  local laid_out = math.min(count, LAID_OUT)
  function init()
    for i = 0, laid_out - 1 do
      -- A prime apart, so that neighbours in the store are not neighbours here.
      local place = math.floor((i * 7919 % laid_out) * (count / laid_out))
      local body = bodies[place % #bodies + 1]:gsub("{n}", string.format("%020.0f", first + place))
      requests[i] = wrk.format(nil, nil, nil, body)
    end
  end
  function request()
    at = (at + 1) % laid_out
    return requests[at]
  end
end

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
