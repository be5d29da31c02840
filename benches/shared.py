"""The parts of scripts/bench about the store in Redis: what a hit costs over it, what a replica finds in it, how
soon, and in how much memory.

Redis itself runs on the core of the load, so that the program under test has its core to itself; what Redis takes is
given beside. The figures of searches and delays come from benches/shared.rs, which drives the store itself.
"""

import json
import subprocess
import time
import urllib.request

from lab import BenchError, Program, Redis, Spread, ensure_installed, load, say

CONNECTIONS = 32


def start_redis(bench):
    ensure_installed("redis-server")
    return Redis(bench.cores[1], bench.folder)


def measured(bench, *arguments, program="shared"):
    """What benches/shared.rs, or another, prints, by name."""
    command = ["taskset", "-c", str(bench.cores[0]), bench.binaries[program], *map(str, arguments)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = dict(line.split("\t") for line in printed.splitlines())
    say("; ".join(f"{name} {value}" for name, value in figures.items()))
    return figures


def hits(bench):
    """Exact hits: the store in this process, in Redis with the hot tier in process, with one that asks Redis each time
    whether what it has is still the same, and without; and nginx."""
    redis = start_redis(bench)
    prompt = "What does the harbour master write about vessels, and why does nobody answer the letters?"
    body = bench.body(prompt, False)
    file = bench.folder / "body-redis.json"
    file.write_text(body)
    programs = {
        "rejoinder": bench.start_rejoinder(),
        "Redis, cold tier": bench.start_rejoinder(redis=redis, hot_max_bytes="0"),
        "Redis, cold tier, no request log": bench.start_rejoinder(redis=redis, hot_max_bytes="0", requests_logged=False),
        "Redis, validated": bench.start_rejoinder(redis=redis, hot_max_age="0s"),
        "Redis, hot tier": bench.start_rejoinder(redis=redis),
        "nginx": bench.start_nginx(),
    }
    for program in programs.values():
        bench.ask(program, body)
    asked = {name: 0 for name in programs}
    runs = {name: [] for name in programs}
    for name, program in programs.items():
        # What the first over Redis stored is the others' hit too: it is one cache.
        if name != "nginx" and "detail=exact" not in bench.cache_status(program, body):
            raise BenchError(f"no exact hit: {name}")
        load(program, bench.upstream, bench.cores, bench.options.endpoint, file, 1)
    for turn in range(bench.rounds):
        order = list(programs)[turn % len(programs) :] + list(programs)[: turn % len(programs)]
        for name in order:
            calls = looked_up(redis)
            one = load(
                programs[name], bench.upstream, bench.cores, bench.options.endpoint, file,
                1 if bench.quick else 4, CONNECTIONS, redis,
            )  # fmt: skip
            asked[name] += looked_up(redis) - calls
            runs[name].append(one)
            say(f"exact hit over Redis, round {turn + 1}, {name}: {one.per_second:,.0f}/s")
    if any(one.upstream_share > 0.05 for all_ in runs.values() for one in all_):
        raise BenchError("hits reached upstream")
    report_hits(bench, runs, asked)
    latencies(bench, body, programs)
    for program in (*programs.values(), redis):
        program.stop()


def looked_up(redis):
    """How often an entry was read so far, or its seal alone."""
    return redis.calls("hmget") + redis.calls("hget")


def report_hits(bench, runs, asked):
    what = "exact hit, store in Redis"
    requests = {name: sum(one.requests for one in all_) for name, all_ in runs.items()}
    per_second = {name: [one.per_second for one in all_] for name, all_ in runs.items()}
    per_cpu = {name: [one.per_cpu_second for one in all_] for name, all_ in runs.items()}
    bench.row(f"{what}: requests/s, {CONNECTIONS} connections", {n: f"{Spread(v):,.0f}" for n, v in per_second.items()})
    bench.row(f"{what}: requests per CPU-second", {n: f"{Spread(v):,.0f}" for n, v in per_cpu.items()})
    bench.row(
        f"{what}: CPU-seconds per 1,000 requests",
        {n: f"{Spread(1000 * o.cpu_seconds / o.requests for o in a):.4f}" for n, a in runs.items()},
    )
    bench.row(
        f"{what}: CPU-seconds of Redis per 1,000 requests",
        {n: f"{Spread(1000 * o.beside_seconds / o.requests for o in a):.4f}" for n, a in runs.items() if "Redis" in n},
    )
    bench.row(
        f"{what}: p50 / p99 at full load, µs",
        {
            n: f"{Spread(o.p50_us for o in a).median:.0f} / {Spread(o.p99_us for o in a).median:.0f}"
            for n, a in runs.items()
        },
    )
    bench.row(
        f"{what}: look-ups in Redis for each request",
        {name: f"{count / requests[name]:.2f}" for name, count in asked.items() if "Redis" in name},
        "cold 1, validated 1, hot 0",
    )
    for figures, name, rival, goal in (
        (per_cpu, "per CPU-second, ratio to the embedded store", "rejoinder", ""),
        (per_second, "requests/s, ratio to the embedded store", "rejoinder", ""),
        (per_cpu, "per CPU-second, ratio to nginx", "nginx", "cold ≥ 1.0"),
        (per_second, "requests/s, ratio to nginx", "nginx", ""),
    ):
        ratios = {n: f"{Spread.ratio(v, figures[rival]):.2f}" for n, v in figures.items() if n not in (rival, "nginx")}
        bench.row(f"{what}: {name}", ratios, goal)
    bench.loads.append((what, runs))


def latencies(bench, body, programs):
    """One connection, one request after the other: what a round trip adds."""
    file = bench.requests_file(f"POST {bench.options.endpoint}", [body])
    medians = {name: [] for name in programs}
    bench.latencies(file, 100, programs)
    for _ in range(bench.rounds):
        for name, replies in bench.latencies(file, 400 if bench.quick else 2000, programs).items():
            medians[name].append(Spread(last for _, last, _ in replies).median)
    bench.row("exact hit, store in Redis: one at a time, median, µs", {n: f"{Spread(v):.0f}" for n, v in medians.items()})


def search(bench):
    """Hits by meaning among many entries, a replica's start, and memory."""
    one_scope = [1_000, 20_000] if bench.quick else [1_000, 100_000, 1_000_000]
    many_scopes = [(1_000, 10_000)] if bench.quick else [(10_000, 100_000), (10_000, 1_000_000)]
    for scopes, entries in [(1, entries) for entries in one_scope] + many_scopes:
        redis = start_redis(bench)
        empty = redis.info("memory")
        where = f"{entries:,} entries in {'one scope' if scopes == 1 else f'{scopes:,} scopes'}"
        filled = measured(bench, "fill", redis.url, scopes, entries)
        bench.row(f"{where}: stored through the store's own API, entries/s", {"Redis": filled["stored per second"]})
        report_memory(bench, where, redis, empty, entries)
        if entries == max(one_scope):
            start(bench, where, redis)
        figures = measured(bench, "search", redis.url, scopes, entries, bench.rounds)
        report_search(bench, where, entries, figures)
        if scopes == 1 and entries == max(one_scope):
            crowded(bench, where, redis, entries)
        redis.stop()


def report_memory(bench, where, redis, empty, entries):
    full = redis.info("memory")
    stored = redis.ask("DBSIZE")
    if stored < entries:
        raise BenchError(f"{stored} keys for {entries} entries")
    each = [(int(full[name]) - int(empty[name])) / entries for name in ("used_memory", "used_memory_rss")]
    bench.row(f"{where}: memory of Redis for each, bytes (resident)", {"Redis": f"{each[0]:.0f} ({each[1]:.0f})"})


def report_search(bench, where, entries, figures):
    rounds = lambda name: Spread(float(figures[f"round {at} {name}"]) for at in range(bench.rounds))  # noqa: E731
    bench.row(f"{where}: semantic hit, the store's part, p50, ms", {"Redis": f"{rounds('hit ms'):.3f}"})
    parts = ", ".join(f"{name} {rounds(f'{name} ms').median:.3f}" for name in ("refresh", "nearest", "load"))
    bench.row(f"{where}: its parts, medians, ms", {"Redis": parts})
    bench.row(f"{where}: paraphrases that found their entry, %", {"Redis": f"{rounds('found %'):.0f}"})
    if "first visit p50 ms" in figures:
        for visit in ("first visit", "second visit"):
            times = " / ".join(f"{float(figures[f'{visit} {name} ms']):.2f}" for name in ("p50", "p99", "max"))
            bench.row(f"{where}: {visit} of a scope, p50 / p99 / max, ms", {"Redis": times})
    else:
        bench.row(f"{where}: a new replica connected, ms", {"Redis": f"{float(figures['connected ms']):.0f}"})
        bench.row(f"{where}: its first look by meaning, ms", {"Redis": f"{float(figures['first look ms']):.1f}"})
        found = f"{float(figures['middle found s']):.2f} / {float(figures['oldest found s']):.2f}"
        bench.row(f"{where}: until a middling / the oldest entry is found, s", {"Redis": found})
    if entries >= 10_000:
        mib = [float(figures[f"{how} bytes per entry"]) * 100_000 / 1024 / 1024 for how in ("resident", "counted")]
        bench.row(
            f"{where}: resident memory of a replica per 100,000 (as it counts itself), MiB",
            {"Redis": f"{mib[0]:.0f} ({mib[1]:.0f})"},
        )


def start(bench, where, redis):
    """From a program's start until it says that it is ready, and its store too."""
    for embedder in ("off", "builtin"):
        times = []
        for _ in range(bench.rounds):
            started = time.monotonic()
            program = bench.start_rejoinder(redis=redis, embedder=embedder)
            while json.loads(ready(program))["store"] != "ok":
                if time.monotonic() - started > 60:
                    raise BenchError("the store is not ready")
                time.sleep(0.005)
            times.append(time.monotonic() - started)
            program.stop()
        bench.row(f"{where}: from start to ready, embedder {embedder}, s", {"Redis": f"{Spread(times):.2f}"}, "< 2")


def ready(program):
    with urllib.request.urlopen(f"http://127.0.0.1:{program.admin}/readyz", timeout=5) as reply:
        return reply.read()


def crowded(bench, where, redis, entries):
    """A scope that is larger than what a replica may hold of it."""
    room = max(4, entries // 2000)
    figures = measured(bench, "crowded", redis.url, entries, room)
    found = f"{figures['entries found %']} / {figures['new entries found %']}"
    bench.row(f"{where}, room for {room} MiB: found, of all / of what comes new, %", {"Redis": found})
    times = " / ".join(f"{float(figures[f'refresh {name} ms']):.2f}" for name in ("p50", "p99", "max"))
    bench.row(f"{where}, room for {room} MiB: whether there is anything new, p50 / p99 / max, ms", {"Redis": times})


def visible(bench):
    """How soon one replica finds what another stored, and no longer finds what it removed."""
    count = 1_000 if bench.quick else 10_000
    for at_once in (1, 32):
        redis = start_redis(bench)
        figures = measured(bench, "visible", redis.url, count, at_once)
        redis.stop()
        unanswered = sum(int(value) for name, value in figures.items() if name.endswith("without an answer"))
        if unanswered:
            bench.note(f"visible to another replica, {at_once} at once: {unanswered} commands without an answer in time")
        for kind in (name.removesuffix(" p50 ms") for name in figures if name.endswith(" p50 ms")):
            times = " / ".join(f"{float(figures[f'{kind} {name} ms']):.2f}" for name in ("p50", "p99", "max"))
            goal = "" if "call" in kind else "p99 < 100, max < 1000"
            what = f"visible to another replica, {at_once} at once, {kind}: p50 / p99 / max, ms"
            bench.row(what, {"Redis": times}, goal)
