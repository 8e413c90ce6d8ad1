"""`millrace env`: print what a service takes from its environment, for `env $(millrace env …)`."""

import argparse

from contracts.streams import SERVICES
from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandError
from millrace.services import environment

HELP = "print the environment of one more process of a service"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("service", choices=SERVICES)
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Print `KEY=value` lines. Raises CommandError for a value that the shell would take apart."""
    data = DataDir.at(args.data)
    variables = environment(data, data.state(), args.service)
    for name, value in variables.items():
        if len(value.split()) > 1:
            raise CommandError(f"{name}={value}: `env $(…)` cannot carry a space")
    print("\n".join(f"{name}={value}" for name, value in variables.items()))
    return 0
