"""Tests of event_ingest, against a real nats-server."""
