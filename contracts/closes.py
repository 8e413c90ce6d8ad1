"""Close codes: one table. What a closed socket means, and whether to come back.

A client branches on the number; the reason in the close frame is for people.
"""

from types import MappingProxyType
from typing import Literal

from msgspec import Struct

Reconnect = Literal["yes", "later", "no"]
"""`yes`: with the cursor, after a jittered second or two. `later`: after `retry_after`, or with a growing pause. `no`:
the same handshake is refused again until somebody has changed something."""


class Close(Struct, frozen=True):
    """What a close code means, what a client does, and whether it comes back by itself."""

    meaning: str
    remedy: str
    reconnect: Reconnect


CLOSES = MappingProxyType(
    {
        1000: Close("The client closed the connection.", "Connect again when the session is wanted.", "no"),
        1002: Close("What came was no WebSocket protocol.", "Mend the client, or the proxy between.", "later"),
        1006: Close("The connection broke; no side sent this code.", "Reconnect with your cursor.", "yes"),
        1007: Close("A text frame was not UTF-8.", "Send JSON in UTF-8.", "later"),
        1009: Close("A frame was larger than allowed.", "Send less at once; attachments by reference.", "later"),
        1012: Close(
            "The edge restarts, has lost the broker, or failed.",
            "Reconnect with your cursor, after the `reconnect_after` of a `reconnect` frame if one came.",
            "yes",
        ),
        4000: Close("A newer connection took this one's place.", "Come back only when a person asks for it.", "no"),
        4001: Close("The credentials are wrong, revoked or expired.", "Reconnect with a new token.", "no"),
        4003: Close(
            "The session is another user's, or the credentials do not allow it.",
            "Ask for the session's owner or for the scope.",
            "no",
        ),
        4004: Close(
            "There is no such session, or it is another tenant's, or it was deleted.", "Create a session.", "no"
        ),
        4008: Close("The client gave no sign of life for too long.", "Reconnect with your cursor.", "yes"),
        4009: Close("The client was too slow for too long.", "Reconnect with your cursor; read faster.", "yes"),
        4029: Close(
            "The session has too many connections, or the user asks too often.",
            "Wait `retry_after` seconds, which the reason names where it is known; or join with `takeover=true`.",
            "later",
        ),
    }
)
