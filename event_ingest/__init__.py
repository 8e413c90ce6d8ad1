"""Takes in what external systems publish: it reaches its topic once, or the dead letters."""
