"""Metrics: every Prometheus metric of the services. No label ever names a session or a user."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call] # or each has a second time series

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TOKENS = (16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576)

MESSAGES = Counter("millrace_messages_total", "Messages accepted.", ["tenant"])
TOOL_CALLS = Counter("millrace_tool_calls_total", "Tool calls ended.", ["tool", "status"])
ERRORS = Counter("millrace_errors_total", "Errors told to clients or recorded in turns.", ["code"])
APPROVALS = Counter("millrace_approvals_total", "Approvals decided: approved, rejected, expired.", ["decision"])
EXTERNAL_EVENTS = Counter(
    "millrace_external_events_total",
    "External events settled: accepted, duplicate, or the code they were refused with.",
    ["tenant", "outcome"],
)
RESPONSE_TIME = Histogram(
    "millrace_response_time_seconds",
    "From the storing of a message to its turn_end.",
    ["agent", "status"],
    buckets=_SECONDS,
)
TOKEN_USAGE = Histogram(
    "millrace_token_usage",
    "Tokens of one turn; kind is input or output.",
    ["agent", "kind"],
    buckets=_TOKENS,
)
TOOL_EXECUTION_TIME = Histogram(
    "millrace_tool_execution_time_seconds",
    "From the start of a tool's execution to its result.",
    ["tool", "status"],
    buckets=_SECONDS,
)
ACTIVE_SESSIONS = Gauge("millrace_active_sessions", "Sessions with at least one connection to this process.")
ACTIVE_CONNECTIONS = Gauge("millrace_active_connections", "Open connections of this process.", ["transport"])
PENDING_APPROVALS = Gauge("millrace_pending_approvals", "Tool calls that this process holds until a person decides.")
