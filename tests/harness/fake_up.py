"""`millrace up` with services that do nothing; `FAKE_<NAME>` chooses what one does instead."""

import argparse
import os
import sys

from millrace import up
from millrace.__main__ import execute
from millrace.services import SERVICES, Service


def fake(service: Service) -> Service:
    """The same service, with nothing to do."""
    mode = os.environ.get(f"FAKE_{service.name.upper()}", "wait")
    command = (sys.executable, "-m", "tests.harness.service", service.name, mode)
    return Service(service.name, command, service.stage)


def run(args: argparse.Namespace) -> int:
    """What `millrace up` does."""
    return up.run(args, [fake(service) for service in SERVICES])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    parser.set_defaults(run=run)
    sys.exit(execute(parser.parse_args()))
