"""The part `growth` of scripts/bench: how cost grows with entries, scopes, reply size, streams and replicas.

Each is a curve: a row for each point, then the exponent, which is the slope of the regression line through the
logarithms of the medians. 0 is a cost that does not grow, 1 one in proportion. Its range is over the slopes of each round
and of the points without each in turn, so that a bend in the curve shows.
"""

import json
import math
import statistics
import time

from lab import BenchError, Program, Spread, Together, free_port, load
from shared import measured, report_memory, start_redis

CPU, REDIS_CPU = "CPU-s per 1,000", "of Redis, CPU-s per 1,000"
ONE, SEARCH, FOUND = "the same entry, CPU-s per 1,000", "search, CPU µs", "found, %"
MIB, EACH = "memory, MiB", "bytes each"
NET_IN, NET_OUT = "into Redis, bytes", "out of Redis, bytes"
FORMATS = {CPU: ".4f", REDIS_CPU: ".4f", ONE: ".4f", SEARCH: ".1f", FOUND: ".0f", MIB: ",.1f", EACH: ",.0f"}
FORMATS |= {NET_IN: ",.0f", NET_OUT: ",.0f"}

ROOMY = 'max_bytes = "16GiB"\nmax_entries = 4000000\nmax_entry_bytes = "4MiB"\nmax_upstream_requests = 4096'
# Fewer than may wait to be written to Redis in one scope (src/store/redis/writer.rs).
WAITING = 500
QUESTION = "What does the harbour master write about vessel {n}, and why?"


def growth(bench):
    for part in PARTS.values():
        part(bench)
    bench.note(f"growth: {rounds(bench)} rounds for each point; peak memory where streams are at once, else resident")


class Curve:
    """Figures over something that grows; each figure a list, by round."""

    def __init__(self, bench, what):
        self.bench, self.what, self.points = bench, what, []

    def point(self, size, unit, figures):
        self.points.append((size, figures))
        once = {name: Spread(values) if len(values) > 1 else values[0] for name, values in figures.items()}
        shown = {name: f"{value:{FORMATS[name]}}" for name, value in once.items()}
        self.bench.row(f"{self.what}, {size:,} {unit}", shown)

    def close(self):
        names = [name for name in self.points[0][1] if name != FOUND]
        exponents = {name: self.exponent([(size, figures[name]) for size, figures in self.points]) for name in names}
        self.bench.row(f"{self.what}: exponent", exponents)

    @staticmethod
    def exponent(points):
        medians = [(size, statistics.median(values)) for size, values in points]
        if any(value <= 0 for _, value in medians):
            return ""
        rounds = min(len(values) for _, values in points)
        slopes = [slope([(size, values[at]) for size, values in points]) for at in range(rounds)]
        if len(points) > 2:
            slopes += [slope(medians[:at] + medians[at + 1 :]) for at in range(len(medians))]
        return f"{slope(medians):.2f} ({min(slopes):.2f}–{max(slopes):.2f})"


def slope(points):
    """Of the regression line through the logarithms."""
    sizes, values = zip(*points)
    return statistics.linear_regression([*map(math.log, sizes)], [math.log(max(value, 1e-9)) for value in values]).slope


def runs(bench, program, file, upstream=None, turns=None, **more):
    """A run of the load generator for each round."""
    upstream, path, seconds = upstream or bench.upstream, bench.options.endpoint, 1 if bench.quick else 2
    turns = turns or rounds(bench)
    return [load(program, upstream, bench.cores, path, file, seconds, **more) for _ in range(turns)]


def rounds(bench):
    return 2 if bench.quick else 3


def only_hits(runs_):
    if any(one.upstream_share > 0.05 for one in runs_):
        raise BenchError("hits reached upstream")
    return [one.cpu_per_1000 for one in runs_]


def written(bench, text):
    file = bench.folder / f"body-{time.monotonic_ns()}"
    file.write_text(text)
    return file


# Entries and scopes


def entries(bench):
    """Exact hits of any entry, and of the same one again and again, among more and more in one scope."""
    curve = Curve(bench, "exact hit, one scope")
    for count in [1_000, 10_000, 100_000] + [1_000_000] * (not bench.quick):
        curve.point(count, "entries", hits_among(bench, count, 1))
    curve.close()


def scopes(bench):
    """The same number of entries, in more and more scopes."""
    count = 10_000 if bench.quick else 100_000
    curve = Curve(bench, f"exact hit, {count:,} entries")
    for many in (1, 100, 10_000):
        curve.point(many, "scopes", hits_among(bench, count, many))
    curve.close()


def hits_among(bench, count, many):
    program = bench.start_rejoinder(limits=ROOMY)
    empty = program.resident_mib()
    # A model for each scope.
    bodies = [bench.body(QUESTION, False, f"bench-{at}") for at in range(many)]
    _, first = bench.fill(program, bench.requests_file(f"POST {bench.options.endpoint}", bodies), count)
    stored = bench.metric(program, "store_entries")
    if stored != count:
        raise BenchError(f"{stored:.0f} of {count} replies are stored")
    memory = program.resident_mib() - empty
    one = written(bench, bodies[0].replace("{n}", f"{first:020}"))
    any_ = written(bench, "\n".join(bodies))
    figures = {
        CPU: only_hits(runs(bench, program, any_, numbers=(first, count))),
        ONE: only_hits(runs(bench, program, one)),
        MIB: [memory],
        EACH: [memory * 1024 * 1024 / count],
    }
    program.stop()
    return figures


def searches(bench):
    """The search of a semantic hit, by the store's own API (benches/store.rs), among made-up embeddings."""
    one_scope = [1_000, 10_000, 100_000] + [1_000_000] * (not bench.quick)
    count = 10_000 if bench.quick else 100_000
    curve = Curve(bench, "search, one scope")
    for many in one_scope:
        curve.point(many, "entries", searched(bench, many, 1))
    curve.close()
    curve = Curve(bench, f"search, {count:,} entries")
    for many in (1, 100, 10_000):
        curve.point(many, "scopes", searched(bench, count, many))
    curve.close()


def searched(bench, count, many):
    printed = measured(bench, "growth", count, many, rounds(bench), program="store")
    figures = {name: float(value) for name, value in printed.items()}
    memory = figures["resident bytes"]
    by_round = lambda name: [figures[f"round {at} {name}"] for at in range(rounds(bench))]  # noqa: E731
    held = {MIB: [memory / 1024 / 1024], EACH: [memory / count]}
    return {SEARCH: by_round("search us"), FOUND: by_round("found %"), **held}


# Replies


def sizes(bench):
    """Exact hits of larger and larger replies, whole and streamed."""
    whole, streamed = Curve(bench, "exact hit, reply"), Curve(bench, "streamed hit, reply")
    for kib in (1, 4, 16, 64, 256, 1024):
        upstream = start_saying(bench, kib)
        program = bench.start_rejoinder(upstream, limits=ROOMY)
        bodies = [bench.body("Tell me all.", stream) for stream in (False, True)]
        bench.ask(program, bodies[0])
        for curve, body in zip((whole, streamed), bodies):
            if "detail=exact" not in bench.cache_status(program, body):
                raise BenchError(f"no hit of {kib} KiB")
            found = runs(bench, program, written(bench, body), upstream=upstream)
            curve.point(kib, "KiB", {CPU: only_hits(found)})
        program.stop()
        upstream.stop()
    whole.close()
    streamed.close()


def start_saying(bench, kib):
    """An upstream whose every reply says this much."""
    text = ("All of it is well considered. " * (kib * 35))[: kib * 1024]
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 4, "completion_tokens": kib * 256, "total_tokens": kib * 256 + 4}
    reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "bench", "choices": [choice]}
    document = json.dumps(reply | {"usage": usage})
    port = free_port()
    file = written(bench, f"content-type: application/json\n\n{document}")
    command = [bench.binaries["servers"], "bare", f"127.0.0.1:{port}", file]
    return Program("bare hyper", bench.cores[1], command, port, "/")


def streams(bench):
    """More and more streams at once: hits, and misses of an upstream that pauses a millisecond between pieces."""
    many = (1, 10, 100, 1_000, 2_000)
    program = bench.start_rejoinder()
    body = bench.body("What became of the harbour?", True)
    bench.ask(program, body)
    file = written(bench, body)
    curve = Curve(bench, "streamed hit")
    for connections in many:
        curve.point(connections, "at once", {CPU: only_hits(runs(bench, program, file, connections=connections))})
    curve.close()
    program.stop()
    slow = bench.start_upstream(1)
    curve = Curve(bench, "streamed miss")
    for connections in many:
        # Of what it stores it keeps next to nothing, so that its memory is that of the streams.
        program = bench.start_rejoinder(slow, limits='max_bytes = "1MiB"\nmax_upstream_requests = 4096')
        idle = program.resident_mib()
        file = written(bench, bench.body("Number {n}?", True))
        costs = []
        for _ in range(rounds(bench)):
            numbers = int(time.time() * 1e6), 40_000
            one = load(
                program, slow, bench.cores, bench.options.endpoint, file, 2 if bench.quick else 4,
                connections=connections, numbers=numbers,
            )  # fmt: skip
            if one.requests > numbers[1]:
                raise BenchError("a question came again, and so was no miss")
            costs.append(one.cpu_per_1000)
        curve.point(connections, "at once", {CPU: costs, MIB: [program.peak_mib() - idle]})
        program.stop()
    curve.close()
    slow.stop()


# Over Redis


def replicas(bench):
    """What one of several replicas over one Redis stores, of which all are told; and hits of all, each from Redis."""
    hits, stores = Curve(bench, "exact hit over Redis"), Curve(bench, "miss stored in Redis, told to all")
    count = 2_000 if bench.quick else 10_000
    body = bench.body(QUESTION, False)
    file, bodies = bench.requests_file(f"POST {bench.options.endpoint}", [body]), written(bench, body)
    for many in (1, 2, 4):
        redis = start_redis(bench)
        fleet = Together([bench.start_rejoinder(redis=redis) for _ in range(many)])
        figures = {CPU: [], REDIS_CPU: [], NET_IN: [], NET_OUT: []}
        for _ in range(rounds(bench)):
            before = spent(fleet, redis)
            first = store(bench, fleet.programs[0], redis, file, count)
            note(figures, count, before, spent(fleet, redis))
        stores.point(many, "replicas", figures)
        fleet.stop()
        fleet = Together([bench.start_rejoinder(redis=redis, hot_max_bytes="0") for _ in range(many)])
        figures = {CPU: [], REDIS_CPU: [], NET_IN: [], NET_OUT: []}
        for _ in range(rounds(bench)):
            before = spent(fleet, redis)
            (one,) = runs(bench, fleet, bodies, turns=1, numbers=(first, WAITING))
            note(figures, one.requests, before, spent(fleet, redis))
            only_hits([one])
        hits.point(many, "replicas", figures)
        fleet.stop()
        redis.stop()
    hits.close()
    stores.close()


def spent(fleet, redis):
    net = redis.info("stats")
    return (
        1000 * fleet.cpu_seconds(), 1000 * redis.cpu_seconds(),
        int(net["total_net_input_bytes"]), int(net["total_net_output_bytes"]),
    )  # fmt: skip


def note(figures, count, before, after):
    for values, less, more in zip(figures.values(), before, after):
        values.append((more - less) / count)


def store(bench, program, redis, file, count):
    """So many misses, a part at a time, each awaited: the first number of the last part."""
    for _ in range(count // WAITING):
        wanted, until = redis.ask("DBSIZE") + WAITING, time.monotonic() + 30
        _, first = bench.fill(program, file, WAITING)
        while redis.ask("DBSIZE") < wanted:
            if time.monotonic() > until:
                raise BenchError("what was sent to Redis is not there")
            time.sleep(0.005)
    return first


def redis_memory(bench):
    """Memory of Redis for each entry: with an embedding and without, and by the reply's size."""
    count = 10_000 if bench.quick else 100_000
    for how, more in (("without embeddings", ["plain"]), ("with embeddings", [])):
        redis = start_redis(bench)
        empty, where = redis.info("memory"), f"{count:,} entries {how}, of 623 bytes of prompt and reply"
        measured(bench, "fill", redis.url, 1, count, *more)
        report_memory(bench, where, redis, empty, count)
        sent = int(redis.info("stats")["total_net_input_bytes"]) / count
        bench.row(f"{where}: sent to Redis for each", {NET_IN: f"{sent:.0f}"})
        if not more:
            before = int(redis.info("stats")["total_net_output_bytes"])
            held = measured(bench, "search", redis.url, 1, count, 1)
            read = (int(redis.info("stats")["total_net_output_bytes"]) - before) / count
            figures = {NET_OUT: f"{read:.0f}", EACH: held["resident bytes per entry"]}
            bench.row(f"{where}: a replica that searches them, for each", figures)
        redis.stop()
    curve, count = Curve(bench, "memory of Redis, no embedding, reply"), 2_000
    for kib in (1, 4, 16, 64):
        redis, upstream = start_redis(bench), start_saying(bench, kib)
        program = bench.start_rejoinder(upstream, redis=redis, hot_max_bytes="0")
        before = int(redis.info("memory")["used_memory"])
        file = bench.requests_file(f"POST {bench.options.endpoint}", [bench.body(QUESTION, False)])
        store(bench, program, redis, file, count)
        memory = int(redis.info("memory")["used_memory"]) - before
        curve.point(kib, "KiB", {EACH: [memory / count]})
        for one in (program, upstream, redis):
            one.stop()
    curve.close()


PARTS = {
    "entries": entries,
    "scopes": scopes,
    "search": searches,
    "sizes": sizes,
    "streams": streams,
    "replicas": replicas,
    "redis-memory": redis_memory,
}
