"""How it travels: the only package that imports nats."""
