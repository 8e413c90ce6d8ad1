"""A child process that is kept running until it is stopped, and never outlives this process."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

BACKOFF = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each restart in a row; the first is at once."""
STEADY = 1.5
"""A child that ran for so many seconds has a clean record."""
LOG_KEPT = 16 * 1024 * 1024
"""A log longer than this is set aside at a start; one such is kept."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Program(Struct, frozen=True, kw_only=True):
    """What to run. `inherits` are file descriptors that it keeps open."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    inherits: tuple[int, ...] = ()


class Child:
    """One program's process."""

    def __init__(self, program: Program, died: Callable[[str, int], None]) -> None:
        self.program = program
        self.process: Process | None = None
        self._died = died
        self._stopping = False
        self._changing = asyncio.Lock()

    async def start(self) -> Process:
        """Start it, in a process group of its own: the terminal's Ctrl-C is not for it."""
        async with self._changing:
            return await self._spawn()

    async def _spawn(self) -> Process:
        program = self.program
        with _open_log(program.log) as log:
            self.process = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(program.env),
                pass_fds=program.inherits,
                start_new_session=True,
                preexec_fn=_dies_with(os.getpid()),
            )
        return self.process

    async def keep(self) -> None:
        """Start it again whenever it ends, until `stop` or `kill`."""
        deaths, started = 0, time.monotonic()
        while self.process:
            code = await self.process.wait()
            if self._stopping:
                return
            deaths = 0 if time.monotonic() - started >= STEADY else deaths
            await asyncio.sleep(BACKOFF[min(deaths, len(BACKOFF) - 1)])
            async with self._changing:
                if self._stopping:
                    return
                await self._spawn()
            deaths, started = deaths + 1, time.monotonic()
            self._died(self.program.name, code)

    async def stop(self, grace: float) -> bool:
        """Ask it to end, and kill it where it takes longer. Returns whether it ended well."""
        self._stopping = True
        async with self._changing:
            process = self.process
        if process is None:
            return False
        if process.returncode is None:
            _signal(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                return await process.wait() == 0
        except TimeoutError:
            self.kill()
            await process.wait()
            return False

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        self._stopping = True
        if self.process and self.process.returncode is None:
            _signal(-self.process.pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    """Signal a process, or a group (-pid). Popen would not do: it may reap before asyncio does."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > LOG_KEPT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _dies_with(parent: int) -> Callable[[], None] | None:
    """What the child does before it becomes its program: ask the kernel to be killed with us.

    Linux only; elsewhere the children of a killed `millrace up` live on.
    """
    if _libc is None:
        return None
    prctl = _libc.prctl

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind
