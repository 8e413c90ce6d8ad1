"""What a tree of processes uses, by role, read from /proc."""

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(Struct, frozen=True):
    """One process: CPU (user and system) in seconds, resident memory in bytes."""

    pid: int
    begun: int  # with `pid` it names a process for good
    parent: int
    role: str
    cpu: float
    rss: int


def role_of(arguments: list[str]) -> str:
    """The role a command line names: the module behind `-m`, or the program."""
    if "-m" in arguments[:-1]:
        module, *rest = arguments[arguments.index("-m") + 1 :]
        return rest[0] if module == "bench.floor" else module.split(".")[0]
    return Path(arguments[0]).name if arguments and arguments[0] else "other"


def read(pid: int) -> Process | None:
    """The process `pid`, or None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        arguments = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    cpu = (int(fields[11]) + int(fields[12])) / TICK
    begun, parent, rss = int(fields[19]), int(fields[1]), int(fields[21]) * PAGE
    return Process(pid, begun, parent, role_of(arguments), cpu, rss)


def tree(roots: Iterable[int]) -> list[Process]:
    """The processes `roots` and everything below them."""
    children: dict[int, list[Process]] = defaultdict(list)
    everything = {p.pid: p for d in os.listdir("/proc") if d.isdigit() and (p := read(int(d)))}
    for process in everything.values():
        children[process.parent].append(process)
    found: list[Process] = []
    waiting = [everything[pid] for pid in roots if pid in everything]
    while waiting:
        found.append(process := waiting.pop())
        waiting.extend(children[process.pid])
    return found


def cpu_by_role(processes: Iterable[Process]) -> dict[str, float]:
    """CPU seconds used so far, by role."""
    used: dict[str, float] = defaultdict(float)
    for process in processes:
        used[process.role] += process.cpu
    return dict(used)


def rss_by_role(processes: Iterable[Process]) -> dict[str, int]:
    """Resident memory now, by role, in KiB."""
    held: dict[str, int] = defaultdict(int)
    for process in processes:
        held[process.role] += process.rss // 1024
    return dict(held)


def busy() -> float:
    """CPU seconds that this machine has spent on anything, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


def stop(started: list[subprocess.Popen[bytes]], grace: float = 15.0) -> None:
    """End `started` and all below them: SIGTERM, and SIGKILL for what is left after `grace`."""
    known = tree(child.pid for child in started)
    for child in reversed(started):
        child.terminate()
    deadline = time.monotonic() + grace
    for child in started:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for process in known:
        left = read(process.pid)
        if left and left.begun == process.begun:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def traffic(pid: int) -> tuple[int, int]:
    """Bytes that a process has read and written by system calls: its sockets, and files that it did not map."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["wchar"])
