"""Depth: how deeply JSON may be nested before somebody who reads it later runs out of stack."""

MOST = 64
"""Far from what a reader of the log can decode, wherever it stands, and from what anybody means."""


def is_too_deep(value: object) -> bool:
    """Whether lists and objects stand in one another more than `MOST` deep."""
    level = [value]
    for _ in range(MOST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)
