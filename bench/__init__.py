"""The measurements behind docs/bench.md: `python -m bench`."""
