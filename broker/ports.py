"""Ports: which are free on this machine.

They are chosen below the range that outgoing connections use: a client that keeps trying a dead
port of that range may end up connected to itself, and hold the port against its server.
"""

import random
import socket

RANGE = range(20_000, 32_000)


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def free_port(host: str, *preferred: int, taken: frozenset[int] = frozenset()) -> int:
    """The first preferred port that is free, else any. Raises OSError where there is none."""
    anywhere = random.sample(RANGE, 200)
    for port in (*preferred, *anywhere):
        if port not in taken and is_free(host, port):
            return port
    raise OSError(f"no free port on {host}")
