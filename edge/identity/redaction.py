"""Redaction: what somebody could come in with is never written down.

uvicorn tells of every WebSocket with its path and query, and at debug level of headers and frames too.
"""

import logging
import re
from urllib.parse import unquote_plus

MASK = "***"
SECRET_NAMES = frozenset({"token", "ticket"})

_PARAMETER = re.compile(r"([\w%+.~-]+)=([^&\s\"'#;]+)")
_HEADER = re.compile(r"(?i)((?:authorization|x-api-key|cookie)[\"']?\s*[:=,]\s*)([^\r\n]+)")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+")
_FIELD = re.compile(r"(\\?\"(?:token|ticket|api_key)\\?\"\s*:\s*\\?\")([^\"\\]*)")
_JWT = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]+){0,2}")
_KEY = re.compile(r"mr_[0-9a-f]{24}_[0-9a-f]+")


def redact(text: str) -> str:
    """`text` without the tokens, API keys and tickets in it: of query strings, headers, frames, or alone."""
    if "=" in text:
        text = _PARAMETER.sub(_parameter, text)
    for pattern in (_HEADER, _BEARER, _FIELD):
        text = pattern.sub(rf"\1{MASK}", text)
    return _KEY.sub(MASK, _JWT.sub(MASK, text))


def _parameter(found: re.Match[str]) -> str:
    # a server decodes the names of parameters too: %74oken is one of ours
    return f"{found[1]}={MASK}" if unquote_plus(found[1]).lower() in SECRET_NAMES else found[0]


class Redaction(logging.Filter):
    """Redacts what is logged: the message and every text beside it. For handlers: loggers do not filter for others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through, redacted."""
        message = record.getMessage()
        if (clean := redact(message)) != message:
            record.msg, record.args = clean, ()
        for name, value in vars(record).items():
            if isinstance(value, str) and name != "msg":
                setattr(record, name, redact(value))
        return True

    @classmethod
    def install(cls) -> None:
        """Have everything that this process logs redacted. To be called once its handlers are there."""
        for handler in logging.getLogger().handlers:
            if not any(isinstance(known, cls) for known in handler.filters):
                handler.addFilter(cls())
