"""`millrace up`: run everything on this machine until Ctrl-C."""

import argparse
import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from broker.ports import free_port, is_free
from broker.settings import Settings, SettingsError
from contracts.config import Config, ConfigError, load
from millrace.datadir import DEFAULT, DataDir, State
from millrace.errors import CommandError, PortTaken
from millrace.services import SERVICES, Service, for_groups
from millrace.system import Plan, System
from millrace.tokens import sign

CONFIG = "millrace.toml"
NATS_PORT = 4222
TOKEN_TTL = 12 * 3600
USER = "dev"
LOCAL = "127.0.0.1"

HELP = "run a broker and the four services here until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--port", type=int, default=8000, help="the edge's port (8000)")
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")
    parser.add_argument("--config", default=None, help=f"the configuration (./{CONFIG}, if there)")


def run(args: argparse.Namespace, services: Iterable[Service] = SERVICES) -> int:
    """Run until told to stop. Raises CommandError where it cannot."""
    try:
        settings = Settings.from_env(os.environ)
        path = _config_path(args.config)
        config = load(path or None)
    except (SettingsError, ConfigError) as error:
        raise CommandError(str(error)) from None
    data = DataDir.at(args.data)
    data.make()
    with data.locked() as lock:
        if not is_free(settings.host, args.port):
            raise CommandError(f"port {args.port} is in use; choose another one with --port")
        plan = Plan(
            data=data,
            state=_state(data, settings, config, path, args.port),
            settings=settings,
            services=for_groups(services, config.groups),
            ack_waits=config.ack_waits,
            port=args.port,
            lock=lock,
            env=os.environ,
        )
        try:
            return asyncio.run(_live(plan))
        except PortTaken:
            again = structs.replace(plan, state=_state(data, settings, config, path, args.port))
            return asyncio.run(_live(again))


def _state(data: DataDir, settings: Settings, config: Config, path: str, port: int) -> State:
    """How to start this time, remembered for the other commands: the broker where it was before, if it can."""
    known = data.remembered()
    ports = (known.nats_port, NATS_PORT) if known else (NATS_PORT,)
    state = State(
        nats_port=free_port(LOCAL, *ports, taken=frozenset({port})),
        log_bytes=data.log_bytes(settings),
        tenants=tuple(config.tenants),
        config=path,
        groups=tuple(config.groups),
    )
    data.remember(state)
    return state


def _config_path(given: str | None) -> str:
    path = Path(given if given is not None else CONFIG)
    return str(path.resolve()) if given is not None or path.exists() else ""


async def _live(plan: Plan) -> int:
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    system = System(plan, tell)
    running = asyncio.create_task(_run(system, plan))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        tell("Stopping; a second Ctrl-C kills.")
    stop.set()
    running.cancel()
    await asyncio.wait([running])
    killer = asyncio.create_task(_kill(system, hurry))
    await system.drain()
    killer.cancel()
    if not running.cancelled():
        running.result()
    tell("Stopped.")
    return 0


async def _run(system: System, plan: Plan) -> None:
    await system.start()
    tell(banner(plan))
    await system.failed()


async def _kill(system: System, hurry: asyncio.Event) -> None:
    await hurry.wait()
    system.kill()


def tell(text: str) -> None:
    """Say it on the terminal, now."""
    print(text, flush=True)


def banner(plan: Plan) -> str:
    """Where everything is, and what to try next."""
    tenant = plan.state.tenants[0]
    address = f"{plan.settings.host}:{plan.port}"
    token = sign(plan.data.jwt_secret, tenant, USER, TOKEN_TTL)
    millrace = _millrace()
    where = "" if plan.data == DataDir.at(DEFAULT) else f" --data {_near(plan.data.path)}"
    return f"""Millrace is running. Ctrl-C stops it.

  chat page    http://{address}/#token={token}
  broker       {plan.state.nats_url}
  credentials  {_near(plan.data.credentials.tenant(tenant))}  (to publish as tenant {tenant})
  logs         {_near(plan.data.log("*"))}

Try in another terminal:

  TOKEN=$({millrace} token --tenant {tenant} --user {USER}{where})
  curl --json '{{"session_id": "hello"}}' -H "Authorization: Bearer $TOKEN" \\
    http://{address}/api/v1/sessions
  {_near(Path(sys.executable).with_name("websockets"))} \\
    "ws://{address}/api/v1/sessions/hello/ws?token=$TOKEN"
  {millrace} publish --tenant {tenant} --session hello --type demo.greeting \\
    '{{"text": "hi"}}'{where}
"""


def _millrace() -> str:
    """What to type to run this command line."""
    script = Path(sys.executable).with_name("millrace")
    if script.exists():
        return shlex.quote(_near(script))
    return f"{shlex.quote(_near(Path(sys.executable)))} -m millrace"


def _near(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
