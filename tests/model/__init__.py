"""An explicit-state model of one session, driven by the decisions of the code."""
