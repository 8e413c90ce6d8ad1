"""What a connection asks the broker for, counted: what something costs, without a clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from broker.connect import Broker


class Counted:
    """Requests that were sent, and stored messages that came in answer to them."""

    def __init__(self) -> None:
        self.requests = 0
        self.records = 0


@contextmanager
def counted(broker: Broker) -> Iterator[Counted]:
    """Count what `broker` asks for until the block ends."""
    count, converse = Counted(), broker.converse

    def counting(subject: str, payload: bytes, heard: Any, **more: Any) -> Any:
        count.requests += 1

        def hearing(to: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
            count.records += b"\r\nNats-Sequence: " in headers
            heard(to, reply, data, headers)

        return converse(subject, payload, hearing, **more)

    broker.converse = counting  # type: ignore[method-assign]
    try:
        yield count
    finally:
        del broker.converse
