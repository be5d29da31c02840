"""The part `litellm` of scripts/bench: LiteLLM's proxy with its cache in Redis, beside rejoinder over the same Redis.

LiteLLM comes from PyPI into .test-clients/litellm, when this part is asked for. It has one worker, since it has one core,
asks for no key and reports nothing anywhere.

Its cache by meaning needs a vector database. redis-semantic needs RediSearch 2.4 or newer, and Debian has 1.2, which knows
no vectors; so it is given one by Qdrant's API that answers at once (benches/servers.rs), and the simulated upstream's
embeddings. What it takes is then its own, and less than with a database that searches.
"""

import json
import subprocess
import sys
from pathlib import Path

from lab import BenchError, Program, Spread, free_port, load, say
from questions import ASKED, FLEETING, REWORDED, TASKS
from shared import CONNECTIONS, start_redis

WANTED = Path(__file__).with_name("litellm.txt")
FOLDER = Path(__file__).resolve().parent.parent / ".test-clients" / "litellm"
HIT = "x-litellm-cache-key"
WARM = 20


def litellm(bench):
    install()
    redis = start_redis(bench)
    exact(bench, redis)
    semantic(bench)
    redis.stop()


def install():
    stamp = FOLDER.with_suffix(".stamp")
    if stamp.exists() and stamp.read_text() == WANTED.read_text() and (FOLDER / "bin" / "litellm").exists():
        return
    say(f"installing {WANTED.read_text().strip()} into {FOLDER}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
    pip = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", WANTED]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    stamp.write_text(WANTED.read_text())


def start_litellm(bench, cache):
    port = free_port()
    behind = {"api_base": f"http://127.0.0.1:{bench.upstream.port}/v1", "api_key": "none"}
    config = bench.folder / f"litellm-{port}.yaml"
    names = ("bench", "embedder")
    models = [{"model_name": name, "litellm_params": {"model": f"openai/{name}", **behind}} for name in names]
    # JSON is YAML.
    config.write_text(json.dumps({"model_list": models, "litellm_settings": {"cache": True, "cache_params": cache}}))
    command = [
        "env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_LOG=ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true",
        FOLDER / "bin" / "litellm", "--config", config, "--host", "127.0.0.1", "--port", port,
        "--num_workers", "1", "--telemetry", "False",
    ]  # fmt: skip
    return Program("LiteLLM", bench.cores[0], command, port, "/health/liveliness")


def exact(bench, redis):
    """Exact hits, under load and one after the other; and the upstream asked directly, which is not what limits them."""
    body = bench.body("What does the harbour master write about vessels, and why does nobody answer the letters?", False)
    file = bench.folder / "body-litellm.json"
    file.write_text(body)
    programs = {
        "LiteLLM": start_litellm(bench, {"type": "redis", "host": "127.0.0.1", "port": redis.port, "ttl": 3600}),
        "rejoinder, asks Redis": bench.start_rejoinder(redis=redis, hot_max_bytes="0"),
        "rejoinder, hot tier": bench.start_rejoinder(redis=redis),
    }
    for program in programs.values():
        bench.ask(program, body)
    if HIT not in {name.lower() for name, _ in bench.ask(programs["LiteLLM"], body)[0]}:
        raise BenchError("LiteLLM does not answer from its cache")
    runs = {name: [] for name in [*programs, "upstream, direct"]}
    for turn in range(bench.rounds):
        order = list(programs)[turn % len(programs) :] + list(programs)[: turn % len(programs)]
        for name in [*order, "upstream, direct"]:
            program = programs.get(name, bench.upstream)
            one = load(
                program, bench.upstream, bench.cores, bench.options.endpoint, file,
                2 if bench.quick else 4, CONNECTIONS, redis,
            )  # fmt: skip
            runs[name].append(one)
            say(f"exact hit beside LiteLLM, round {turn + 1}, {name}: {one.per_second:,.0f}/s")
            if program is not bench.upstream and one.upstream_share > 0.05:
                raise BenchError(f"hits of {name} reached upstream")
    what = "exact hit over Redis"
    figures = lambda figure, spec: {n: f"{Spread(map(figure, a)):{spec}}" for n, a in runs.items()}  # noqa: E731
    bench.row(f"{what}: requests/s, {CONNECTIONS} connections", figures(lambda one: one.per_second, ",.0f"))
    bench.row(f"{what}: p50 at full load, ms", figures(lambda one: one.p50_us / 1000, ".2f"))
    bench.row(f"{what}: p99 at full load, ms", figures(lambda one: one.p99_us / 1000, ".2f"))
    bench.row(f"{what}: CPU-seconds per 1,000 requests", figures(lambda one: one.cpu_per_1000, ".4f"))
    bench.row(f"{what}: peak memory, MiB", {name: f"{program.peak_mib():.0f}" for name, program in programs.items()})
    file = bench.requests_file(f"POST {bench.options.endpoint}", [body])
    one_at_a_time(bench, f"{what}, one at a time", file, 100, programs)
    bench.loads.append((what, runs))
    for program in programs.values():
        program.stop()


def one_at_a_time(bench, what, file, count, programs):
    """Medians and 99 % over rounds."""
    bench.latencies(file, WARM, programs)
    rounds = [bench.latencies(file, count, programs) for _ in range(bench.rounds)]
    for share, at in (("p50", 0.5), ("p99", 0.99)):
        times = {n: Spread(quantile([last for _, last, _ in one[n]], at) / 1000 for one in rounds) for n in programs}
        bench.row(f"{what}: {share}, ms", {name: f"{value:.2f}" for name, value in times.items()})
    return rounds


def quantile(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)]


def semantic(bench):
    """Hits by meaning, one after the other, with an embedder that costs nothing."""
    port = free_port()
    command = [bench.binaries["servers"], "vectors", f"127.0.0.1:{port}"]
    database = Program("vectors", bench.cores[1], command, port, "/collections/bench/exists")
    cache = {
        "type": "qdrant-semantic", "qdrant_api_base": f"http://127.0.0.1:{port}", "qdrant_collection_name": "bench",
        "qdrant_semantic_cache_embedding_model": "embedder", "similarity_threshold": 0.8,
    }  # fmt: skip
    programs = {
        "LiteLLM": start_litellm(bench, cache),
        "rejoinder, same embedder": bench.start_rejoinder(embedder="openai"),
        "rejoinder, built-in embedder": bench.start_rejoinder(embedder="builtin"),
    }
    for program in programs.values():
        for task in TASKS:
            bench.ask(program, bench.body(ASKED.format(task), False))
    reworded = [bench.body(form.format(task), False) for form in REWORDED for task in TASKS]
    if HIT not in {name.lower() for name, _ in bench.ask(programs["LiteLLM"], reworded[0])[0]}:
        raise BenchError("LiteLLM does not answer by meaning")
    file = bench.requests_file(f"POST {bench.options.endpoint}\t{FLEETING}", reworded)
    what = "semantic hit, one at a time"
    before = {name: program.cpu_seconds() for name, program in programs.items()}
    rounds = one_at_a_time(bench, what, file, len(reworded), programs)
    asked = (bench.rounds * len(reworded) + WARM) / 1000
    spent = {name: f"{(program.cpu_seconds() - before[name]) / asked:.2f}" for name, program in programs.items()}
    bench.row(f"{what}: CPU-seconds per 1,000 requests", spent)
    shares = {"LiteLLM": "whatever the database finds"}
    for name in ("rejoinder, same embedder", "rejoinder, built-in embedder"):
        found = [sum("detail=semantic" in status for _, _, status in one[name]) for one in rounds]
        shares[name] = f"{Spread(100 * hits / len(reworded) for hits in found):.0f}"
    bench.row(f"{what}: share that hit, %", shares)
    bench.row(f"{what}: peak memory, MiB", {name: f"{program.peak_mib():.0f}" for name, program in programs.items()})
    bench.note(
        "LiteLLM's redis-semantic is not measured: it needs RediSearch 2.4 or newer, and Debian has 1.2. Its "
        "qdrant-semantic is, over a database that searches nothing and finds at once: a lower bound"
    )
    for program in (*programs.values(), database):
        program.stop()
