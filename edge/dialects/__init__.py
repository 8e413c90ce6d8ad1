"""Other spellings of the same log (WIRE 4): functions from events to frames. None knows where its frames go."""
