"""What the tests of event_ingest may ask for."""

import json
from collections.abc import AsyncIterator

import pytest

from contracts import streams
from tests.event_ingest.outside import LEAST_WINDOW, Outside, outside
from tests.harness.nats_server import NatsServer


@pytest.fixture
async def world(nats: NatsServer) -> AsyncIterator[Outside]:
    """External systems, an edge and an operator, connected; the session `s1` exists."""
    async with outside(nats) as world:
        await world.session("s1")
        yield world


@pytest.fixture
async def least_window(nats: NatsServer) -> None:
    """The log knows message ids by itself as shortly as can be: nothing is owed to that."""
    client = await nats.client(streams.PROVISIONER)
    reply = await client.request(f"$JS.API.STREAM.INFO.{streams.LOG}")
    config = json.loads(reply.data)["config"] | {"duplicate_window": int(LEAST_WINDOW * 1e9)}
    path = f"$JS.API.STREAM.UPDATE.{streams.LOG}"
    reply = await client.request(path, json.dumps(config).encode())
    assert "error" not in json.loads(reply.data)
    await client.close()
