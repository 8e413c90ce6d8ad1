"""Provisioning: makes the broker's streams and consumers match the topology.

What is missing is created; what may change is changed, and what nobody asked for is left as it is.
What would need a stream to be made anew is refused with a sentence, and nothing is ever deleted.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from broker.connect import Rejected, Unavailable
from broker.oneshot import RETRY, oneshot
from contracts import streams
from contracts.streams import Consumer, Stream

logger = logging.getLogger(__name__)

NANOSECONDS = 1_000_000_000
STREAM_NOT_FOUND, CONSUMER_NOT_FOUND = 10059, 10014
NOT_YET = (10005, 10008)
"""The server's codes for a cluster that forms: no peers for the replicas, JetStream temporarily unavailable.

The first is also what a cluster answers for good that has too few servers, or too little storage for the streams'
limits: that cannot be told apart, so it too is said only after the wait.
"""

ANSWER_WITHIN = 2.0
"""Of a question. A cluster without a leader does not answer."""

DONE_WITHIN = 10.0

Config = dict[str, Any]

FIXED = ("subjects", "storage", "retention", "mirror", "sources", "subject_transform", "sealed")
"""What makes a stream another one: a difference is somebody's mistake, not a change to make."""


class ProvisionFailed(Exception):
    """The broker does not match the topology and cannot be made to; the text says in what."""


class Topology(Struct, frozen=True, kw_only=True):
    """What there is to be. `ack_waits`: of groups of agents that have their own.

    `renew_epoch`: no cursor given so far is honoured (after a restore).
    """

    tenants: tuple[str, ...]
    log_bytes: int
    ack_wait: float = streams.ACK_WAIT
    replicas: int = 1
    groups: tuple[str, ...] = streams.GROUPS
    ack_waits: dict[str, float] = {}
    renew_epoch: bool = False


async def provision(url: str, seed_file: str, topology: Topology, *, within: float = 0) -> None:
    """Make the broker match, with the provisioner's credentials; waits `within` seconds for it.

    Raises Unavailable where there is no broker, or a cluster that has not formed yet, and at once Rejected where these
    credentials are not permitted to, and ProvisionFailed where it cannot match. May be repeated at any time, also while
    services run.
    """
    ends = time.monotonic() + within
    while True:
        try:
            return await _provision(url, seed_file, topology, within=ends - time.monotonic())
        except Unavailable as error:
            if isinstance(error, Rejected) or time.monotonic() >= ends:
                raise
            await asyncio.sleep(RETRY)


async def _provision(url: str, seed_file: str, topology: Topology, *, within: float) -> None:
    inbox = streams.inbox(streams.PROVISIONER)
    async with oneshot(url, seed_file, inbox=inbox, within=within) as client:
        for stream in streams.streams(topology.tenants, topology.log_bytes):
            await _make_stream(client, stream, topology)
        wanted = streams.consumers(topology.tenants, topology.ack_wait, topology.groups, topology.ack_waits)
        for consumer in wanted:
            await _make_consumer(client, consumer)
        await _tell_left_over(client, topology.groups)


async def _make_stream(client: Client, stream: Stream, topology: Topology) -> None:
    wanted = stream_config(stream, topology.replicas)
    answer = await _ask(client, f"STREAM.INFO.{stream.name}")
    if _code(answer) == STREAM_NOT_FOUND:
        if stream.epoch:
            wanted["metadata"] = {"epoch": _new_epoch()}
        await _do(client, f"STREAM.CREATE.{stream.name}", wanted, f"stream {stream.name}")
        return
    found: Config = _checked(answer, f"stream {stream.name}")["config"]
    for key in _differences(found, wanted):
        if key in FIXED:
            raise ProvisionFailed(
                f"stream {stream.name}: {key} is {found.get(key)!r}, not {wanted[key]!r}; "
                "this is another stream, or one to be migrated by hand"
            )
    metadata = found.get("metadata") or {}
    if stream.epoch and (topology.renew_epoch or "epoch" not in metadata):
        wanted["metadata"] = {**metadata, "epoch": _new_epoch()}
    if _differences(found, wanted):
        await _do(client, f"STREAM.UPDATE.{stream.name}", found | wanted, f"stream {stream.name}")


async def _make_consumer(client: Client, consumer: Consumer) -> None:
    name, path = f"consumer {consumer.durable}", f"{consumer.stream}.{consumer.durable}"
    wanted = consumer_config(consumer)
    answer = await _ask(client, f"CONSUMER.INFO.{path}")
    request = {"stream_name": consumer.stream, "config": wanted, "action": "create"}
    if _code(answer) != CONSUMER_NOT_FOUND:
        found: Config = _checked(answer, name)["config"]
        if not _differences(found, wanted):
            return
        request |= {"config": found | wanted, "action": "update"}
    await _do(client, f"CONSUMER.CREATE.{path}.{consumer.filter_subject}", request, name)


async def _tell_left_over(client: Client, groups: tuple[str, ...]) -> None:
    """Name the consumers of groups that are configured no longer: they stay, and so does what waits in them."""
    wanted = {streams.agent_runner(group=group).durable for group in groups}
    answer = _checked(await _ask(client, f"CONSUMER.NAMES.{streams.LOG}"), f"stream {streams.LOG}")
    for name in answer["consumers"] or ():
        if name.startswith(f"{streams.AGENT_RUNNER}_") and name not in wanted:
            info = await _ask(client, f"CONSUMER.INFO.{streams.LOG}.{name}")
            waiting = info.get("num_pending", 0) + info.get("num_ack_pending", 0)
            text = f"consumer {name} is of a group that no agent is in; {waiting} messages wait there for a runner"
            logger.warning(text, extra={"consumer": name, "waiting": waiting})


def stream_config(stream: Stream, replicas: int) -> Config:
    """A stream in the server's words. What could erase or reorder history is off, explicitly."""
    source, destination = stream.republish or (None, None)
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "storage": "file",
        "retention": "workqueue" if stream.queue else "limits",
        "discard": stream.discard,
        "max_bytes": stream.max_bytes,
        "max_age": int(stream.max_age * NANOSECONDS),
        "max_msgs": -1,
        "max_msgs_per_subject": stream.max_per_subject,
        "duplicate_window": int(stream.duplicate_window * NANOSECONDS),
        "num_replicas": replicas,
        "allow_direct": stream.allow_direct,
        "allow_msg_ttl": stream.allow_msg_ttl,
        "allow_rollup_hdrs": False,
        "allow_msg_schedules": False,
        "deny_delete": True,
        "republish": {"src": source, "dest": destination} if source else None,
        "mirror": None,
        "sources": None,
        "subject_transform": None,
        "sealed": False,
    }


def consumer_config(consumer: Consumer) -> Config:
    """A consumer in the server's words."""
    return {
        "name": consumer.durable,
        "durable_name": consumer.durable,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(consumer.ack_wait * NANOSECONDS),
        "max_deliver": -1,
        "max_ack_pending": consumer.max_ack_pending,
        "filter_subject": consumer.filter_subject,
    }


def _differences(found: Config, wanted: Config) -> list[str]:
    """The keys that differ. The server leaves out what is off or empty."""
    return [key for key, value in wanted.items() if (found.get(key) or None) != (value or None)]


def _new_epoch() -> str:
    return uuid.uuid4().hex


async def _ask(
    client: Client, call: str, request: Mapping[str, Any] | None = None, within: float = ANSWER_WITHIN
) -> Config:
    payload = msgspec.json.encode(request) if request else b""
    reply = await client.request(f"$JS.API.{call}", payload, timeout=within)
    return msgspec.json.decode(reply.data, type=Config)


def _code(answer: Config) -> int:
    return int((answer.get("error") or {}).get("err_code", 0))


def _checked(answer: Config, name: str) -> Config:
    if error := answer.get("error"):
        text = f"{name}: {error.get('description')} ({error.get('err_code')})"
        raise (Unavailable if _code(answer) in NOT_YET else ProvisionFailed)(text)
    return answer


async def _do(client: Client, call: str, request: Mapping[str, Any], name: str) -> None:
    _checked(await _ask(client, call, request, DONE_WITHIN), name)
    logger.info("provisioned", extra={"subject": name, "call": call.split(".")[1].lower()})
