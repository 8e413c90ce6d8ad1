"""The life of a service's process: from its environment to its exit code.

    stop intake   SIGTERM or SIGINT sets `process.stop`
    finish        `run` has `drain_grace` seconds to return; a second signal ends them
    release       what has not returned is cancelled; what it held goes back to the broker
    close         the broker's connection, the health server, the traces

Exit codes: 0 stopped, 1 to be restarted (a failure, or the broker's connection lost for good),
2 a setting or the configuration is wrong; one line on stderr says which.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import uvloop
from msgspec import Struct, field

from broker import health, logs, points, telemetry
from broker.connect import Broker, connect
from broker.serve import listen, serving
from broker.settings import Settings, SettingsError
from contracts.config import Config, ConfigError, load

logger = logging.getLogger(__name__)

LOST_GRACE = 1.0
"""How long `run` may go on without a broker, to say goodbye to its clients."""

GARBAGE = (2_000, 5, 50)
"""When to look for garbage in cycles (gc.set_threshold). To look at everything stops every stream of the process, for
0.2 s where 2,000 turns run, and by default happens a dozen times while they begin. What gathers meanwhile, up to some
20 MB, is 3 KB a turn and 20 KB for each connection of an edge."""

Run = Callable[["Process"], Awaitable[None]]


class Process(Struct, kw_only=True):
    """What `run` is given. It returns once `stop` is set and its work in flight is done."""

    name: str
    settings: Settings
    config: Config
    broker: Broker
    stop: asyncio.Event
    checks: dict[str, Callable[[], bool]] = field(default_factory=dict)

    def readiness(self) -> Mapping[str, bool]:
        """Whether each thing is there that the service depends on; it may add to `checks`."""
        return {name: check() for name, check in self.checks.items()}

    def begins(self, what: str) -> Callable[[], None]:
        """Not ready until what this returns was called."""
        begun = asyncio.Event()
        self.checks[what] = begun.is_set
        return begun.set


class _Life:
    """One process from start to end."""

    def __init__(self, name: str, run: Run, settings: Settings, config: Config) -> None:
        self._name, self._run = name, run
        self._settings, self._config = settings, config
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._process: Process | None = None

    async def live(self, *, own_http: bool) -> int:
        """The exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        async with nullcontext() if own_http else self._health():
            working = asyncio.create_task(self._work(), name=self._name)
            await _first(working, self._stop)
            if self._process is None:
                working.cancel()
            await asyncio.wait({working})
        return 0 if working.cancelled() else working.result()

    async def _work(self) -> int:
        settings = self._settings
        async with connect(settings.nats_url, self._name, seed_file=settings.nkey) as broker:
            process = self._process = Process(
                name=self._name,
                settings=settings,
                config=self._config,
                broker=broker,
                stop=self._stop,
            )
            process.checks["broker"] = lambda: broker.connected
            return await self._drained(process)

    async def _drained(self, process: Process) -> int:
        """Run, and after a stop let it finish; the exit code."""
        lost = process.broker.lost
        running = asyncio.ensure_future(self._run(process))
        await _first(running, self._stop, lost)
        if unasked := not self._stop.is_set():
            logger.error("ending unasked", extra={"broker_lost": lost.is_set()})
            self._stop.set()
        grace = LOST_GRACE if lost.is_set() else self._settings.drain_grace
        await _first(running, self._hurry, within=grace)
        if running.cancel():
            logger.warning("work in flight is cancelled", extra={"grace": grace})
        try:
            await running
        except asyncio.CancelledError:
            return int(unasked)
        except (SettingsError, ConfigError):
            raise
        except Exception:
            logger.exception("failed")
            return 1
        return int(unasked)

    def _signalled(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _health(self) -> AbstractAsyncContextManager[None]:
        host, port = self._settings.host, self._settings.port
        try:
            listener = listen(host, port)
        except OSError as error:
            raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        logger.info("listening", extra={"host": host, "port": listener.getsockname()[1]})
        return serving(health.app(self._checks), listener)

    def _checks(self) -> Mapping[str, bool]:
        return self._process.readiness() if self._process else {"broker": False}


async def _first(running: asyncio.Future[Any], *events: asyncio.Event, within: float | None = None) -> None:
    """Wait until `running` is done, an event is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait([running, *waits], timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def main(name: str, run: Run, *, own_http: bool = False) -> int:
    """Live as the service `name` and return the exit code.

    A service with `own_http` serves the paths of `broker.health` itself.
    """
    try:
        settings = Settings.from_env(os.environ)
        if settings.nkey and not Path(settings.nkey).is_file():
            raise SettingsError(f"MILLRACE_NKEY={settings.nkey}: no such file")
        points.arm(settings.fault)
        life = _Life(name, run, settings, load(settings.config or None))
        logs.set_up(name, settings.log_level)
        gc.freeze()  # what is imported stays
        gc.set_threshold(*GARBAGE)
        with (
            telemetry.exporting(name, os.environ),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(life.live(own_http=own_http))
    except (SettingsError, ConfigError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
