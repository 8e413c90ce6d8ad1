"""Processes that begin at once: each is forked from one that has imported what services run."""

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path

from contracts.streams import SERVICES

_context = multiprocessing.get_context("forkserver")


class Forked:
    """A process that runs a module, as `python -m` does; to be used as one of asyncio's."""

    def __init__(self, name: str, env: dict[str, str], log: Path) -> None:
        self.returncode: int | None = None
        self._process = _context.Process(target=_become, args=(name, env, str(log)), name=name)
        self._ended = asyncio.Event()
        _have_server()
        self._process.start()
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._over)

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end; its exit code, or the negative number of the signal."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _over(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self.returncode = self._process.exitcode
        self._ended.set()


def _have_server() -> None:
    """Start the process that all are forked from. It notes no coverage: those that are killed cannot tell any."""
    _context.set_forkserver_preload([*(f"{name}.__main__" for name in SERVICES), "tests.harness.http_demo"])
    measured = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    try:
        forkserver.ensure_running()
    finally:
        if measured is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = measured


def _become(name: str, env: dict[str, str], log: str) -> None:
    """What `python -m name` does, in a process that has the modules."""
    os.environ.clear()
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main = f"{name}.__main__"
    del sys.modules[main if main in sys.modules else name]  # it runs a second time
    runpy.run_module(name, run_name="__main__", alter_sys=True)
