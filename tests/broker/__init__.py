"""Tests of broker, against a real nats-server."""
