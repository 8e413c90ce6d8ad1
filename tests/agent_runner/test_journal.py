"""What an attempt finds of earlier ones, and when it only waits."""

import asyncio

import pytest

from tests.harness.attempts import Log, attempt
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


async def test_a_turn_rests_again_when_what_it_did_beside_a_call_has_ended() -> None:
    """DESIGN: one that waits for a person is not counted among those that compute."""
    log = Log()
    turn = attempt(log, tools=("demo.*",))
    waiting = asyncio.create_task(turn.call("demo.note", {}))
    await until(lambda: log.delivery.resting)

    async def work() -> None:
        assert not log.delivery.resting
        raise LookupError

    with pytest.raises(LookupError):
        await turn.step("beside", work)
    assert log.delivery.resting
    waiting.cancel()
