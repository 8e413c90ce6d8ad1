"""Retry: how long to wait before a model request is made again. Pure but for chance."""

import random

FIRST = 0.5
LONGEST = 30.0
"""Seconds; a server that asks for more (`Retry-After`) gets it, up to PATIENCE."""

PATIENCE = 120.0
"""A server that asks to wait longer than this is not asked again: a person had better know."""


def pause(failures: int, retry_after: float | None = None) -> float | None:
    """Seconds to wait after that many failures in a row, None where it is not worth waiting.

    Doubles from FIRST up to LONGEST, and takes a random half of it ("equal jitter",
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that turns that failed together do
    not come back together. Never less than what the server asks for.
    """
    if retry_after is not None and retry_after > PATIENCE:
        return None
    most = min(LONGEST, FIRST * 2 ** min(failures - 1, 16))
    return max(retry_after or 0.0, 0.0) + random.uniform(most / 2, most)  # noqa: S311 - jitter
