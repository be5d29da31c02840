"""Programs under test, and what they use: started pinned to a core, measured through /proc.

Used by scripts/bench. Knows nothing of what is measured or why.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class BenchError(Exception):
    """The benchmark cannot go on, or would not measure what it says."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def ensure_installed(*tools):
    """Installs missing tools from the system's packages, each of the same name."""
    missing = [tool for tool in tools if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin")]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise BenchError(f"install {' and '.join(missing)} first")
    say(f"installing {' and '.join(missing)} by apt-get")
    subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    subprocess.run(install, check=True, stdout=sys.stderr)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stat_fields(pid):
    """The fields of /proc/PID/stat after the program's name, which may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def busy_seconds(cores):
    """Seconds that these cores have spent on anything, and on another guest of the host (steal)."""
    busy = steal = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.removeprefix("cpu").isdigit() and int(name.removeprefix("cpu")) in cores:
            user, nice, system, _, _, irq, softirq, stolen, *_ = map(int, fields)
            busy += user + nice + system + irq + softirq
            steal += stolen
    return busy / TICKS, steal / TICKS


class Program:
    """A running program, with the processes it started."""

    running = []

    def __init__(self, name, core, command, port, ready):
        self.name, self.port = name, port
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)],
            stdout=subprocess.DEVNULL,
            # A log is written as always; where it goes then is not the program's cost.
            stderr=subprocess.DEVNULL if not os.environ.get("BENCH_STDERR") else None,
        )
        Program.running.append(self)
        self.wait_until_ready(ready)

    def wait_until_ready(self, path):
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended at once; BENCH_STDERR=1 shows why")
            try:
                self.ask_whether_ready(path)
                return
            except OSError:
                time.sleep(0.005)
        raise BenchError(f"{self.name} does not answer")

    def ask_whether_ready(self, path):
        """Raises an `OSError` where it is not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                reply.read()
        except urllib.error.HTTPError:
            pass

    def pids(self):
        """The process and its children."""
        own = self.process.pid
        pids = [own]
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and int(stat_fields(folder.name)[1]) == own:
                    pids.append(int(folder.name))
            except OSError:
                pass  # It ended while we looked.
        return pids

    def cpu_seconds(self):
        """User and system time so far."""
        fields = [stat_fields(pid) for pid in self.pids()]
        return sum(int(one[11]) + int(one[12]) for one in fields) / TICKS

    def resident_mib(self):
        """Resident memory of the process (VmRSS), and what its children have for themselves."""
        own, *children = self.pids()
        kib = int(stat_fields(own)[21]) * PAGE_KIB
        for child in children:
            lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        return kib / 1024

    def peak_mib(self):
        """The most that was resident so far (VmHWM), of the process alone."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        Program.running.remove(self)

    @classmethod
    def stop_all(cls):
        for program in list(reversed(cls.running)):
            program.stop()


class Together:
    """Programs under test as one: the load is spread over them."""

    def __init__(self, programs):
        self.programs = programs
        self.name = programs[0].name
        self.port = programs[0].port

    def cpu_seconds(self):
        return sum(program.cpu_seconds() for program in self.programs)

    def stop(self):
        for program in self.programs:
            program.stop()


class Redis(Program):
    """A Redis server that keeps nothing on disk."""

    def __init__(self, core, folder):
        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        super().__init__("redis-server", core, command, port, None)
        self.url = f"redis://127.0.0.1:{port}"

    def ask_whether_ready(self, _):
        if self.ask("PING") != "PONG":
            raise OSError("it is not there yet")

    def ask(self, *command):
        """A simple or bulk string, or a number (Redis protocol specification, RESP2)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(" ".join(command).encode() + b"\r\n")
            with connection.makefile("rb") as answer:
                line = answer.readline().decode().strip()
                if line.startswith("$"):
                    return answer.read(int(line[1:])).decode()
        if line.startswith("-"):
            raise BenchError(f"redis-server: {line[1:]}")
        return int(line[1:]) if line.startswith(":") else line[1:]

    def info(self, section):
        """The server's figures by name (its manual, `INFO`)."""
        lines = self.ask("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def calls(self, command):
        """How often a command was called."""
        figures = self.info("commandstats").get(f"cmdstat_{command}", "calls=0")
        return int(figures.split(",")[0].removeprefix("calls="))


@dataclass
class Load:
    """One run of the load generator."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_seconds: float
    """Of the program under test."""
    program_share: float
    """Of one core, as are the other shares."""
    generator_share: float
    upstream_share: float
    others_share: float
    """What else ran on the two cores meanwhile, steal included."""
    beside_seconds: float
    """CPU time of the program beside the one under test; zero without one."""

    @property
    def per_second(self):
        return self.requests / self.seconds

    @property
    def per_cpu_second(self):
        return self.requests / self.cpu_seconds

    @property
    def cpu_per_1000(self):
        return 1000 * self.cpu_seconds / self.requests


def load(program, upstream, cores, path, body, seconds, connections=32, beside=None, numbers=None):
    """Runs wrk against a program, which may have another to help it; `numbers` (the first, how many) as in post.lua."""
    lua = Path(__file__).with_name("post.lua")
    ports = [one.port for one in getattr(program, "programs", [program])]
    settings = {"BODY": str(body), "PORTS": " ".join(map(str, ports))}
    settings |= {"NUMBERS": " ".join(map(str, numbers))} if numbers else {}
    command = ["taskset", "-c", str(cores[1]), "wrk", f"-t{len(ports)}", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "30s", "-s", str(lua), f"http://127.0.0.1:{program.port}{path}"]
    beside_seconds = beside.cpu_seconds if beside else lambda: 0.0
    before = program.cpu_seconds(), upstream.cpu_seconds(), busy_seconds(cores), os.times(), beside_seconds()
    started = time.monotonic()
    run = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings})
    wall = time.monotonic() - started
    after = program.cpu_seconds(), upstream.cpu_seconds(), busy_seconds(cores), os.times(), beside_seconds()
    line = next((line for line in run.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchError(f"wrk said nothing of {program.name}: {run.stdout}{run.stderr}")
    requests, duration, errors, p50, p99 = map(int, line.split()[1:])
    if errors or not requests:
        raise BenchError(f"{errors} of {requests} requests to {program.name} failed")
    cpu, upstream_cpu = after[0] - before[0], after[1] - before[1]
    generator = sum(after[3][2:4]) - sum(before[3][2:4])
    machine = sum(after[2]) - sum(before[2])
    helped = after[4] - before[4]
    return Load(
        requests=requests,
        seconds=duration / 1e6,
        p50_us=p50,
        p99_us=p99,
        cpu_seconds=cpu,
        program_share=cpu / wall,
        generator_share=generator / wall,
        upstream_share=upstream_cpu / wall,
        others_share=max(0.0, machine - cpu - upstream_cpu - generator - helped) / wall,
        beside_seconds=helped,
    )


class Spread:
    """A figure over rounds: its median, least and most."""

    def __init__(self, values):
        self.values = list(values)
        self.median = statistics.median(self.values)

    def __format__(self, spec):
        low, high = min(self.values), max(self.values)
        return f"{self.median:{spec}} ({low:{spec}}–{high:{spec}})"

    @staticmethod
    def ratio(above, below):
        """Round by round."""
        return Spread(a / b for a, b in zip(above, below, strict=True))
