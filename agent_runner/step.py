"""Step: the work of one, done so that it can neither hang its turn nor end the process."""

import asyncio
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from msgspec import Struct

from broker import telemetry


class _Within(Struct):
    """A step. It may be over, and what was begun in it still run."""

    is_open: bool = True


_within: ContextVar[_Within | None] = ContextVar("within_step", default=None)


def is_within() -> bool:
    """Whether the caller is the work of a step that is not over."""
    within = _within.get()
    return within is not None and within.is_open


async def do(name: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; a plain function is run in a thread. Raises what it raises.

    What is no Exception, and what no future takes, is raised as a RuntimeError.
    """
    with telemetry.tracer.start_as_current_span("step", attributes={"agent.step": name}):
        before = _within.set(within := _Within())
        try:
            result = await work() if inspect.iscoroutinefunction(work) else await asyncio.to_thread(_in_thread, work)
            return await result if inspect.isawaitable(result) else result
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # in a task of the agent's own it would end the process
            raise RuntimeError(f"the step {name!r} raised {type(error).__name__}") from error
        finally:
            within.is_open = False
            _within.reset(before)


def _in_thread(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except StopIteration as error:  # which no future takes: whoever waits for it would wait for ever
        raise RuntimeError("the step raised StopIteration") from error
