"""Identity of the edge's callers: tokens, API keys, tickets, and keeping all of them out of the logs."""

from edge.identity.credentials import Credentials
from edge.identity.identity import Identity
from edge.identity.redaction import Redaction, redact

__all__ = ["Credentials", "Identity", "Redaction", "redact"]
