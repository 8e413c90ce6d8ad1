"""Kept: folds in the stream STATE, one a subject, of which the oldest gives way. Nothing rests on what is kept."""

import asyncio
import logging

import msgspec

from broker.client import status
from broker.connect import Broker, Unavailable
from contracts.streams import STATE

logger = logging.getLogger(__name__)

_keeping: set[asyncio.Task[None]] = set()


def epoch(broker: Broker) -> str:
    """The log that a fold is of."""
    return broker.log_info.epoch if broker.log_info else ""


async def load(broker: Broker, subject: str) -> bytes | None:
    """What was kept there, if anything is."""
    request = msgspec.json.encode({"last_by_subj": subject})
    try:
        reply = await broker.request(f"$JS.API.DIRECT.GET.{STATE}", request)
    except (Unavailable, TimeoutError) as error:
        logger.debug("nothing kept", extra={"subject": subject, "reason": str(error)})
        return None
    return None if status(reply.headers) else reply.data


def keep(broker: Broker, subject: str, payload: bytes) -> None:
    """Keep it, in the background; if that fails, the next one may succeed."""
    task = asyncio.create_task(_keep(broker, subject, payload), name=f"keep {subject}")
    _keeping.add(task)
    task.add_done_callback(_keeping.discard)


async def _keep(broker: Broker, subject: str, payload: bytes) -> None:
    try:
        await broker.request(subject, payload)
    except (Unavailable, TimeoutError) as error:
        logger.debug("not kept", extra={"subject": subject, "reason": str(error)})
