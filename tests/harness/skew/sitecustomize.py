"""Python runs this at its start where this folder is in PYTHONPATH: a clock that is wrong by $CLOCK_SKEW seconds."""

import os
import time

_right = time.time
_skew = float(os.environ["CLOCK_SKEW"])

time.time = lambda: _right() + _skew
