"""The command line. Exit codes: 0 done, 1 failed, 2 cannot be done as it was asked."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from millrace.errors import CommandError

COMMANDS = ("up", "token", "keys", "publish", "dead", "env", "provision", "prepare")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what goes wrong is one line on stderr."""
    parser = argparse.ArgumentParser(prog="millrace", description="AI-agent sessions on NATS.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"millrace.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return execute(parser.parse_args(argv))


def execute(args: argparse.Namespace) -> int:
    """Run the command that was asked for; the exit code."""
    logging.getLogger().addHandler(logging.NullHandler())  # what goes wrong is said below, once
    try:
        return int(args.run(args))
    except CommandError as error:
        print(f"millrace: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
