"""`millrace provision`: make a broker's streams and consumers match the topology.

For a broker that `millrace up` does not run: with `--data`, the one that `millrace prepare` made
the configuration of; without it, any, with the provisioner's seed in `MILLRACE_NKEY`.
"""

import argparse
import asyncio
import os

from broker.connect import Unavailable
from broker.provision import ProvisionFailed, Topology, provision
from broker.settings import Settings, SettingsError
from contracts.config import ConfigError, load
from contracts.streams import PROVISIONER
from millrace.datadir import DataDir
from millrace.errors import CommandError, CommandFailed

HELP = "create or change the streams and consumers of a broker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--data", default=None, help="the data directory of `millrace prepare`")
    parser.add_argument("--within", type=float, default=30.0, help="seconds to wait for the broker")
    parser.add_argument(
        "--renew-epoch",
        action="store_true",
        help="after a restore: no cursor given before is honoured",
    )


def run(args: argparse.Namespace) -> int:
    """Do it. May be repeated at any time."""
    try:
        settings = Settings.from_env(os.environ)
        config = load(settings.config or None)
    except (SettingsError, ConfigError) as error:
        raise CommandError(str(error)) from None
    seed, log_bytes = settings.nkey, settings.log_bytes
    if args.data is not None:
        data = DataDir.at(args.data)
        seed, log_bytes = str(data.credentials.user(PROVISIONER)), data.state().log_bytes
    topology = Topology(
        tenants=tuple(config.tenants),
        groups=tuple(config.groups),
        ack_waits=config.ack_waits,
        log_bytes=log_bytes,
        ack_wait=settings.ack_wait,
        replicas=settings.replicas,
        renew_epoch=args.renew_epoch,
    )
    try:
        asyncio.run(provision(settings.nats_url, seed, topology, within=args.within))
    except ProvisionFailed as error:
        raise CommandError(str(error)) from None
    except Unavailable as error:
        raise CommandFailed(str(error)) from None
    return 0
