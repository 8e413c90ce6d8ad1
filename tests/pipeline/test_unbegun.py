"""A stream that is asked for while it cannot begin."""

from pathlib import Path

import pytest

from tests.harness.client import http
from tests.harness.system import system

pytestmark = pytest.mark.anyio


async def test_a_stream_that_cannot_begin_holds_nothing(tmp_path: Path) -> None:
    """Clients try again for as long as the broker is away: each try would leave a connection on the edge."""
    async with system(tmp_path, services=("edge",)) as running:
        token, api = running.token(), f"{running.edge}/api/v1"
        assert (await http("GET", f"{api}/sessions", token=token)).status == 200
        await running.nats.kill()
        for path in ("/sse", "/sse/llm"):
            answer = await http("GET", api + path, token=token, accept="text/event-stream")
            assert (answer.status, answer.json["code"]) == (503, "broker_unavailable")
        metrics = (await http("GET", f"{running.edge}/metrics")).body.decode()
        assert 'millrace_active_connections{transport="sse"} 0.0' in metrics
