"""Health: what a supervisor and a scraper are told."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker import metrics
from broker.health import answer


def test_alive_does_not_depend_on_the_broker() -> None:
    """Our choice: a process is not restarted because its broker is away."""
    assert answer("/healthz", lambda: {"broker": False}).status == 200


@pytest.mark.parametrize(("broker", "status"), [(True, 200), (False, 503)])
def test_ready_means_that_every_check_holds(broker: bool, status: int) -> None:
    """WIRE 3: `/readyz` on every service."""
    said = answer("/readyz", lambda: {"tools": True, "broker": broker})
    assert said.status == status
    assert json.loads(said.body) == {
        "ready": broker,
        "checks": {"tools": True, "broker": broker},
    }


def test_metrics_have_the_names_of_the_wire() -> None:
    """WIRE 6: the names of metrics are promised."""
    metrics.MESSAGES.labels("acme").inc()
    body = answer("/metrics", lambda: {}).body.decode()
    families = {family.name: family.type for family in text_string_to_metric_families(body)}
    assert {name: kind for name, kind in families.items() if name.startswith("millrace_")} == {
        "millrace_messages": "counter",
        "millrace_external_events": "counter",
        "millrace_tool_calls": "counter",
        "millrace_errors": "counter",
        "millrace_approvals": "counter",
        "millrace_response_time_seconds": "histogram",
        "millrace_token_usage": "histogram",
        "millrace_tool_execution_time_seconds": "histogram",
        "millrace_active_sessions": "gauge",
        "millrace_active_connections": "gauge",
        "millrace_pending_approvals": "gauge",
    }
    assert 'millrace_messages_total{tenant="acme"}' in body


def test_any_other_path_is_not_found() -> None:
    """Standard: HTTP."""
    assert answer("/", lambda: {}).status == 404
