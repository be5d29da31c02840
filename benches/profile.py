#!/usr/bin/env python3
"""Counts what an exact hit costs: instructions (callgrind), allocations (as calls of malloc), system calls (strace).

Instructions do not depend on what else the machine does, so these are the figures to compare before and after a
change. Needs valgrind and strace. The kernel's own instructions are not counted.

    benches/profile.py [--endpoint /api/generate] [--stream] [--top 25] [--no-request-log] [--self]
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benches"))

from lab import ensure_installed, free_port, say  # noqa: E402

WARM, COUNTED = 200, 1000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", default="/v1/chat/completions")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--no-request-log", action="store_true")
    parser.add_argument("--inclusive", action="store_true", help="count what a function calls as its own too")
    parser.add_argument("--callers", help="show who calls the functions whose name holds this")
    parser.add_argument("--keep", type=Path, help="keep callgrind's output in this file")
    return parser.parse_args()


def build():
    """The release with line tables, in a folder of its own, and the simulated upstream."""
    environment = {**os.environ, "CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only", "CARGO_PROFILE_RELEASE_STRIP": "none"}
    target = ROOT / "target" / "profiling"
    command = ["cargo", "build", "--quiet", "--release", "--bin", "rejoinder", "--bench", "servers"]
    command += ["--target-dir", target, "--message-format=json"]
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
                return head.decode()


def request(options):
    prompt = " ".join(["maple"] * 59)
    body = {"model": "bench", "stream": options.stream}
    if options.endpoint.endswith(("/generate", "/v1/completions")):
        body["prompt"] = prompt
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
    text = json.dumps(body)
    head = f"POST {options.endpoint} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer bench\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


def serve(options, programs, folder, wrapper):
    """The upstream, and the proxy run by `wrapper`; returns them and the proxy's port."""
    upstream_port, port = free_port(), free_port()
    config = folder / "rejoinder.toml"
    config.write_text(f"[log]\nrequests = {str(not options.no_request_log).lower()}\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    upstream = subprocess.Popen([programs["servers"], "upstream", f"127.0.0.1:{upstream_port}"], **quiet)
    command = [*wrapper, programs["rejoinder"], "serve", "--config", config, "--embedder", "off"]
    command += ["--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}"]
    # One core, as in the benchmark: one worker of the runtime.
    proxy = subprocess.Popen(["taskset", "-c", "0", *command], **quiet)
    return upstream, proxy, port


def exchange(client, bytes_, count):
    for _ in range(count):
        head = client.ask(bytes_)
    if "detail=exact" not in head:
        raise SystemExit(f"no exact hit:\n{head}")


def instructions(options, programs, folder):
    out = options.keep or folder / "callgrind.out"
    wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    upstream, proxy, port = serve(options, programs, folder, wrapper)
    try:
        client = Client(port)
        client.ask(request(options))
        exchange(client, request(options), WARM)
        control(proxy, "-i", "on")
        exchange(client, request(options), WARM)
        control(proxy, "-z")
        exchange(client, request(options), COUNTED)
        control(proxy, "-i", "off")
        # In good order, so that callgrind writes what it counted.
        proxy.terminate()
        client.socket.close()
        proxy.wait(120)
    finally:
        proxy.kill()
        upstream.kill()
    annotate = ["callgrind_annotate", "--threshold=100", "--auto=no", "--show-percs=no"]
    annotate += [f"--inclusive={'yes' if options.inclusive else 'no'}"]
    annotate += ["--tree=caller"] if options.callers else []
    annotated = subprocess.run([*annotate, out], check=True, capture_output=True, text=True).stdout
    return annotated, allocations(out)


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


def system_calls(options, programs, folder):
    upstream, proxy, port = serve(options, programs, folder, [])
    try:
        client = Client(port)
        client.ask(request(options))
        exchange(client, request(options), WARM)
        out = folder / "strace"
        tracer = subprocess.Popen(
            ["strace", "-c", "-f", "-p", str(proxy.pid), "-o", out], stderr=subprocess.DEVNULL
        )
        time.sleep(1)
        exchange(client, request(options), COUNTED)
        tracer.terminate()
        tracer.wait()
    finally:
        proxy.kill()
        upstream.kill()
    return out.read_text()


def main():
    options = arguments()
    ensure_installed("valgrind", "strace")
    say("building")
    programs = build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotated, allocated = instructions(options, programs, folder)
        if options.callers:
            blocks = annotated.split("\n\n")
            print("\n\n".join(b for b in blocks if re.search(rf"\* .*{re.escape(options.callers)}", b)))
            return
        calls = system_calls(options, programs, folder)
    total = re.search(r"^\s*([\d,]+).*PROGRAM TOTALS", annotated, re.M)[1]
    print(f"instructions a hit: {int(total.replace(',', '')) / COUNTED:,.0f}")
    lines = re.findall(r"^\s*([\d,]+)\s+(\S.*)$", annotated.partition("PROGRAM TOTALS")[2], re.M)
    for count, function in lines[: options.top]:
        function = re.sub(r" \[.*?\]$", "", function).partition(":")[2]
        print(f"{int(count.replace(',', '')) / COUNTED:>10,.0f}  {function}")
    print(f"allocations a hit: {', '.join(f'{n / COUNTED:.2f} {name}' for name, n in sorted(allocated.items()))}")
    print("system calls a hit:")
    for line in calls.splitlines()[2:]:
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and int(fields[3]) >= COUNTED / 100:
            print(f"{int(fields[3]) / COUNTED:>10.2f}  {fields[-1]}")


if __name__ == "__main__":
    main()
