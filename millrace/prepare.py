"""`millrace prepare`: write the credentials and the configuration of a nats-server that others run.

It is the configuration of `millrace up`, for a container: `nats-server -c <data>/nats-server.conf`.
"""

import argparse
import os

from broker.settings import Settings, SettingsError
from contracts.config import ConfigError, load
from millrace.datadir import DEFAULT, DataDir, State
from millrace.errors import CommandError

HELP = "write the credentials and configuration of a nats-server, without running it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")
    parser.add_argument("--host", default="127.0.0.1", help="where the server listens (127.0.0.1)")
    parser.add_argument("--nats-port", type=int, default=4222, help="and on which port (4222)")


def run(args: argparse.Namespace) -> int:
    """Write them. What is there is kept; a new tenant or group of agents is added."""
    try:
        settings = Settings.from_env(os.environ)
        config = load(settings.config or None)
    except (SettingsError, ConfigError) as error:
        raise CommandError(str(error)) from None
    data = DataDir.at(args.data)
    data.make()
    with data.locked():
        state = State(
            host=args.host,
            nats_port=args.nats_port,
            log_bytes=data.log_bytes(settings),
            tenants=tuple(config.tenants),
            groups=tuple(config.groups),
            config=settings.config,
        )
        data.server(state, settings.sync).prepare()
        data.remember(state)
    print(data.path / "nats-server.conf")
    return 0
