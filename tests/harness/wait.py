"""The only wait of the tests: until a condition holds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar, overload

T = TypeVar("T")

EVERY = 0.005


@overload
async def until(condition: Callable[[], Awaitable[T]], within: float = 5.0) -> T: ...
@overload
async def until(condition: Callable[[], T], within: float = 5.0) -> T: ...
async def until(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """The condition's first true value. Fails where there is none `within` seconds."""
    ends = time.monotonic() + within
    while True:
        value = condition()
        if isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < ends, f"not within {within} s: {condition}"
        await asyncio.sleep(EVERY)
