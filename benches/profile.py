#!/usr/bin/env python3
"""Counts what an exact hit costs, or a miss: instructions (callgrind), allocations (as calls of malloc), system calls (strace).

Instructions do not depend on what else the machine does, so these are the figures to compare before and after a
change. Needs valgrind and strace. The kernel's own instructions are not counted.

    benches/profile.py [--endpoint /api/generate] [--stream] [--miss] [--bare] [--top 25] [--inclusive] [--no-request-log] [--redis [--validated]] [--no-lines]
"""

import argparse
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))

from lab import Program, Redis, ensure_installed, free_port, say  # noqa: E402

WARM, COUNTED = 200, 1000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", default="/v1/chat/completions")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--miss", action="store_true", help="ask another prompt each time, which upstream answers and the store keeps")
    parser.add_argument("--bare", action="store_true", help="count a bare hyper server that answers the same")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--no-request-log", action="store_true")
    parser.add_argument("--redis", action="store_true", help="the store in Redis, without the hot tier in process")
    parser.add_argument("--validated", action="store_true", help="with --redis: with the hot tier, asking Redis each time whether it is still the same")
    parser.add_argument("--inclusive", action="store_true", help="count what a function calls as its own too")
    parser.add_argument("--no-lines", action="store_true", help="the release as it is: soon built, inlined functions unseen")
    parser.add_argument("--keep", type=Path, help="keep callgrind's output in this file")
    return parser.parse_args()


def build(lines):
    """The release, with line tables in a folder of its own, and the simulated upstream."""
    environment = {**os.environ}
    command = ["cargo", "build", "--quiet", "--release", "--bin", "rejoinder", "--bench", "servers"]
    command += ["--message-format=json"]
    if lines:
        environment |= {"CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only", "CARGO_PROFILE_RELEASE_STRIP": "none"}
        command += ["--target-dir", ROOT / "target" / "profiling"]
    built = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}


class Client:
    """One kept connection."""

    def __init__(self, port):
        for _ in range(600):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
                break
            except OSError:
                time.sleep(0.1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request):
        self.socket.sendall(request)
        reply = b""
        while True:
            reply += self.socket.recv(1 << 16)
            head, blank, body = reply.partition(b"\r\n\r\n")
            if not blank:
                continue
            length = re.search(rb"content-length: (\d+)", head, re.I)
            if len(body) >= int(length[1]) if length else body.endswith(b"\r\n0\r\n\r\n"):
                return reply


def request(options, number):
    """The bytes of a request: the same each time, or another prompt of the same length."""
    prompt = " ".join(["maple"] * 59) + (f" {number:08}" if options.miss else "")
    body = {"model": "bench", "stream": options.stream}
    if options.endpoint.endswith(("/generate", "/v1/completions")):
        body["prompt"] = prompt
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
    text = json.dumps(body)
    head = f"POST {options.endpoint} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


class Setup:
    """The upstream, and the program under test run by `wrapper` on one core, as in the benchmark."""

    def __init__(self, options, programs, folder, wrapper, reply=None):
        upstream_port, port = free_port(), free_port()
        config = folder / "rejoinder.toml"
        settings = f"[log]\nrequests = {str(not options.no_request_log).lower()}\n"
        if options.redis:
            # Nothing is quick under valgrind.
            tier = 'hot_max_age = "0s"' if options.validated else 'hot_max_bytes = "0"'
            settings += f'[redis]\n{tier}\nconnect_timeout = "10s"\ncommand_timeout = "10s"\n'
            settings = f'redis_url = "{Redis(1, folder).url}"\n{settings}'
        config.write_text(settings)
        command = [programs["rejoinder"], "serve", "--config", config, "--embedder", "off"]
        command += ["--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"]
        command += ["--upstream", f"http://127.0.0.1:{upstream_port}"]
        if reply:
            command = [programs["servers"], "bare", f"127.0.0.1:{port}", reply]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.upstream = subprocess.Popen([programs["servers"], "upstream", f"127.0.0.1:{upstream_port}"], **quiet)
        self.program = subprocess.Popen(["taskset", "-c", "0", *wrapper, *command], **quiet)
        self.client = Client(port)
        self.requests = (request(options, number) for number in itertools.count())
        self.expected = b"detail=no-candidate" if options.miss else b"detail=exact"
        self.client.ask(next(self.requests))
        self.exchange(WARM)

    def exchange(self, count):
        for request_ in itertools.islice(self.requests, count):
            reply = self.client.ask(request_)
        if self.expected not in reply:
            raise SystemExit(f"expected {self.expected.decode()}:\n{reply.decode()}")
        return reply

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.kill()
        self.upstream.kill()
        Program.stop_all()


def hit(options, programs, folder):
    """A file with rejoinder's reply, for the bare server to answer."""
    with Setup(options, programs, folder, []) as setup:
        head, _, body = setup.exchange(1).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n")[1:] if not line.startswith((b"content-length", b"date"))]
    if options.stream:
        # The chunks' framing out again: a line with the length, the chunk, an empty line.
        body = re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", body)
    reply = folder / "reply"
    reply.write_bytes(b"\n".join(lines) + b"\n\n" + body)
    return reply


def instructions(options, programs, folder, reply):
    out = options.keep or folder / "callgrind.out"
    wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    with Setup(options, programs, folder, wrapper, reply) as setup:
        control(setup.program, "-i", "on")
        setup.exchange(WARM)
        control(setup.program, "-z")
        setup.exchange(COUNTED)
        control(setup.program, "-i", "off")
        # In good order, so that callgrind writes what it counted.
        setup.program.send_signal(signal.SIGINT)
        setup.client.socket.close()
        setup.program.wait(120)
    annotate = ["callgrind_annotate", "--threshold=100", "--auto=no", "--show-percs=no"]
    annotate += [f"--inclusive={'yes' if options.inclusive else 'no'}", out]
    annotated = subprocess.run(annotate, check=True, capture_output=True, text=True).stdout
    counts = {}
    for count, function in re.findall(r"^\s*([\d,]+)\s+(\S.*)$", annotated.partition("PROGRAM TOTALS")[2], re.M):
        count = int(count.replace(",", ""))
        # What was running when the counters were set to zero wraps around.
        if count < 1 << 62:
            name = re.sub(r" \[.*?\]$", "", function).partition(":")[2]
            counts[name] = max(counts.get(name, 0), count) if options.inclusive else counts.get(name, 0) + count
    return counts, allocations(out)


def allocations(path):
    """Calls of the allocator by name, from callgrind's output (its manual, "Callgrind Format Specification")."""
    names, called, counts = {}, None, {}
    for line in path.read_text().splitlines():
        if line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            called = names.setdefault(number, name)
        elif line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            names.setdefault(number, name)
        elif line.startswith("calls=") and called in ("malloc", "calloc", "realloc", "memalign", "posix_memalign"):
            counts[called] = counts.get(called, 0) + int(line[6:].split()[0])
    return counts


def control(proxy, *arguments_):
    subprocess.run(["callgrind_control", *arguments_, str(proxy.pid)], check=True, stdout=subprocess.DEVNULL)


def system_calls(options, programs, folder, reply):
    with Setup(options, programs, folder, [], reply) as setup:
        out = folder / "strace"
        command = ["strace", "-c", "-f", "-p", str(setup.program.pid), "-o", out]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(1)
        setup.exchange(COUNTED)
        tracer.terminate()
        tracer.wait()
    return out.read_text()


def main():
    options = arguments()
    ensure_installed("valgrind", "strace", *(["redis-server"] if options.redis else []))
    say("building")
    programs = build(not options.no_lines)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reply = hit(options, programs, folder) if options.bare else None
        counts, allocated = instructions(options, programs, folder, reply)
        calls = system_calls(options, programs, folder, reply)
    if not options.inclusive:
        print(f"instructions a request: {sum(counts.values()) / COUNTED:,.0f}")
    for name, count in sorted(counts.items(), key=lambda one: -one[1])[: options.top]:
        print(f"{count / COUNTED:>10,.0f}  {name}")
    print(f"allocations a request: {', '.join(f'{n / COUNTED:.2f} {name}' for name, n in sorted(allocated.items()))}")
    print("system calls a request:")
    for line in calls.splitlines()[2:]:
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and int(fields[3]) >= COUNTED / 100 and fields[-1] != "total":
            print(f"{int(fields[3]) / COUNTED:>10.2f}  {fields[-1]}")


if __name__ == "__main__":
    main()
