"""History: what the clients of a test did and saw, and what happened around them.

With the log it is all that the checker knows. It is written by the test's own clients and can be stored as a file: a
failing round leaves it beside the logs.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field
from nats.aio.client import Client

Frame = dict[str, Any]
Outcome = Literal["accepted", "refused", "unknown"]


class Sent(Struct):
    """A message that a client sent, however often: `unknown` where nobody told what became of it.

    `code`: why it was refused.
    """

    session_id: str
    client_message_id: str
    content: str
    outcome: Outcome = "unknown"
    message_ids: list[str] = field(default_factory=list)
    code: str = ""


class Connection(Struct):
    """One connection, every frame of it. `after`: the connection and the number of the frame whose cursor it resumed.

    `is_last`: it was open when everything had ended, and so must have been told everything. `transport`: `many` is a
    socket for many sessions, on which the user's and the tenant's events have a replay of their own.
    """

    number: int
    tenant: str
    session_id: str
    after: tuple[int, int] | None
    frames: list[Frame] = field(default_factory=list)
    is_last: bool = False
    transport: str = "socket"


class Published(Struct):
    """An external event that its publisher has a receipt for."""

    tenant: str
    source: str
    event_id: str


class Fault(Struct):
    """Something that was done to a process, between two points in (Unix) time.

    `noticed`: when a process was seen to be dead or stopped that did so by itself.
    """

    service: str
    what: str
    since: float
    until: float | None = None
    noticed: float = 0

    @property
    def is_death(self) -> bool:
        """Whether a process was seen to be dead."""
        return bool(self.noticed) and self.what != "found T"

    def end(self) -> None:
        """Its effect is over: the process is gone, or goes on."""
        self.until = time.time()


class Record(Struct, frozen=True):
    """One message of the log, as it is stored. `headers`: the condition that it was stored under."""

    seq: int
    subject: str
    time: str
    event: Frame
    headers: dict[str, str] = {}

    @property
    def topic(self) -> str:
        """`<tenant>.<kind>.<id>`."""
        return ".".join(self.subject.split(".")[1:4])

    @property
    def lane(self) -> str:
        """`delta`, or the lane of facts."""
        parts = self.subject.split(".")
        return parts[5] if parts[4] == "fact" else parts[4]

    @property
    def type(self) -> str:
        """The event's type."""
        return str(self.event["type"])


class History(Struct):
    """Everything that the checker compares with the log. `notes`: the effects outside the system."""

    sent: list[Sent] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    canaries: dict[str, str] = field(default_factory=dict)
    replicas: int = 1
    log: list[Record] = field(default_factory=list)

    def fault(self, service: str, what: str) -> Fault:
        """Note a fault that begins now."""
        fault = Fault(service, what, time.time())
        self.faults.append(fault)
        return fault

    def connected(
        self, tenant: str, session_id: str, after: tuple[int, int] | None, transport: str = "socket"
    ) -> Connection:
        """Note a new connection."""
        connection = Connection(len(self.connections), tenant, session_id, after, transport=transport)
        self.connections.append(connection)
        return connection

    def of_session(self, topic: str) -> Iterator[Record]:
        """The log of one topic, in order."""
        return (record for record in self.log if record.topic == topic)

    def save(self, file: Path) -> None:
        """Store it."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=0))

    @classmethod
    def load(cls, file: Path) -> "History":
        """Read a stored one."""
        return msgspec.json.decode(file.read_bytes(), type=cls)


async def read_log(client: Client, after: int) -> list[Record]:
    """Everything stored after a sequence, read with plain NATS: the provisioner may read all of it."""
    records: list[Record] = []
    more = True
    while more:
        page, more = await _page(client, records[-1].seq if records else after)
        records += page
    return records


async def _page(client: Client, after: int) -> tuple[list[Record], bool]:
    """The next of them, and whether there are more.

    nats-py may mix up two messages where a connection breaks: what follows is read again.
    """
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, pending_bytes_limit=-1, pending_msgs_limit=-1)
    records: list[Record] = []
    request = {"seq": after + 1, "next_by_subj": "log.>", "batch": 1000}
    try:
        await client.publish("$JS.API.DIRECT.GET.LOG", json.dumps(request).encode(), reply=inbox)
        while True:
            message = await subscription.next_msg(timeout=10)
            headers = dict(message.headers or {})
            if "Nats-Subject" not in headers:
                return records, int(headers.get("Nats-Num-Pending", "0")) > 0
            condition = {name: value for name, value in headers.items() if name.startswith("Nats-Expected")}
            try:
                seq, time, event = int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"], json.loads(message.data)
            except (KeyError, ValueError):
                return records, True
            records.append(Record(seq, headers["Nats-Subject"], time, event, condition))
    finally:
        await subscription.unsubscribe()
