"""Desk: what every connection and request of this edge shares."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from broker import metrics
from broker.feed import Feeds
from broker.process import Process
from edge.auth import Verifier


class Desk:
    """The edge's broker connection, its feeds, and who may come in."""

    def __init__(self, process: Process, verifier: Verifier) -> None:
        self.broker = process.broker
        self.config = process.config
        self.settings = process.settings
        self.stop = process.stop
        self.verifier = verifier
        self.feeds = Feeds(process.broker)
        self._sessions: Counter[str] = Counter()

    @property
    def epoch(self) -> str:
        """The incarnation of the log, as it stands in cursors."""
        assert self.broker.log_info
        return self.broker.log_info.epoch.replace("-", "")

    @contextmanager
    def connected(self, session_id: str) -> Iterator[None]:
        """Count a session's connection while it lasts."""
        self._sessions[session_id] += 1
        metrics.ACTIVE_SESSIONS.set(len(self._sessions))
        try:
            yield
        finally:
            self._sessions[session_id] -= 1
            if not self._sessions[session_id]:
                del self._sessions[session_id]
            metrics.ACTIVE_SESSIONS.set(len(self._sessions))

    def state_of(self, session_id: str, state: str) -> str:
        """The state that is told of a session: `suspended` while nobody is connected."""
        return "suspended" if state == "active" and not self._sessions[session_id] else state
