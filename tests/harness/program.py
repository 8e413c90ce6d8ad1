"""A program in a process of its own: what it says, its signals, its exit code, its children."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL, Signals

from tests.harness.wait import until

ROOT = Path(__file__).parents[2]
EXIT_WITHIN = 20.0


class Program:
    """One running program."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.output: list[str] = []
        self.errors: list[str] = []
        self._reading = [
            asyncio.create_task(_read(process.stdout, self.output)),
            asyncio.create_task(_read(process.stderr, self.errors)),
        ]

    @property
    def text(self) -> str:
        """All that it said on stdout."""
        return "\n".join(self.output)

    async def says(self, text: str, within: float = EXIT_WITHIN) -> str:
        """The first line on stdout or stderr that contains `text`."""

        def found() -> str:
            assert self.process.returncode is None or self._reading, self.errors
            return next((line for line in [*self.output, *self.errors] if text in line), "")

        try:
            return await until(found, within)
        except AssertionError:
            raise AssertionError(f"no {text!r} in {self.output} {self.errors}") from None

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    async def exit(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(EXIT_WITHIN):
            code = await self.process.wait()
            await asyncio.gather(*self._reading)
        return code

    def children(self) -> list[int]:
        """The processes that it started."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@asynccontextmanager
async def program(*arguments: str, env: Mapping[str, str], cwd: Path) -> AsyncIterator[Program]:
    """`python -m ARGUMENTS` with this project in its path; killed when the block ends."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "OTEL_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), **env},
    )
    running = Program(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, SIGKILL)
        await running.exit()


async def _read(stream: asyncio.StreamReader | None, lines: list[str]) -> None:
    assert stream
    async for line in stream:
        lines.append(line.decode(errors="replace").rstrip("\n"))
