"""Written: a frame of a dialect on a WebSocket, or as a server-sent event."""

from edge.protocol import text_frame


def websocket(payload: bytes, cursor: bytes | None) -> bytes:
    """One text frame, with the cursor put in."""
    return text_frame(payload if cursor is None else b'%b,"cursor":"%b"}' % (payload[:-1], cursor))


def sse(payload: bytes, cursor: bytes | None) -> bytes:
    """One event without a name; its id is the cursor."""
    return b"data: %b\n\n" % payload if cursor is None else b"id: %b\ndata: %b\n\n" % (cursor, payload)
