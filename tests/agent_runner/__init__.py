"""Tests of agent_runner."""
