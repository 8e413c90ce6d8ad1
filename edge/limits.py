"""Limits: what one user may ask of this edge in a second. Pure but for the clock.

A bucket is one number, the time at which it is full again (the "theoretical arrival time" of the generic cell rate
algorithm): a full bucket says nothing and is forgotten. Each edge counts for itself.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from contracts.config import Limits
from contracts.errors import Code, MillraceError
from edge.principal import Principal

Clock = Callable[[], float]

MOST_KEYS = 100_000
"""Buckets that are kept (about 20 MB). Beyond it, the one that was longest left alone is forgotten, full or not."""

TYPING_RATE, TYPING_BURST = 2.0, 5.0
"""`typing` frames of a user in one session, a second and at once: enough to begin and to stop."""

FAILED_RATE, FAILED_BURST = 20.0, 100.0
"""Refused handshakes from one address, a second and at once: an office behind one address may share it."""

_EXACT = 1e-6  # seconds: what rounding adds up to; nobody is refused for less


class Buckets:
    """Token buckets, one for each key: `burst` at once, `rate` a second in the long run."""

    def __init__(self, rate: float, burst: float, clock: Clock = time.monotonic, most_keys: int = MOST_KEYS) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._most_keys = most_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()  # the longest untouched first

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._full_at)

    def take(self, key: Hashable, amount: float = 1.0) -> float:
        """Take `amount`: 0.0, or the seconds until it would be granted, and nothing is taken.

        More than the burst is granted only when the bucket is full, and then empties it.
        """
        now = self._clock()
        self._forget(now)
        full_at = max(self._full_at.get(key, now), now) + min(amount, self._burst) / self._rate
        wait = full_at - now - self._burst / self._rate
        if wait > _EXACT:
            return wait
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop up to two buckets that are full again, and one more where there are too many."""
        for _ in range(2):  # more than one call can add
            if not self._full_at or next(iter(self._full_at.values())) > now:
                break
            self._full_at.popitem(last=False)
        if len(self._full_at) >= self._most_keys:
            self._full_at.popitem(last=False)


class Limiter:
    """The limits of each user, and of each address that fails to say who it is.

    Every method raises MillraceError `rate_limited` with `retry_after` (seconds) and `limit`, the name of what was
    exceeded; what was refused costs nothing.
    """

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self._messages = Buckets(limits.messages_per_second, limits.messages_burst, clock)
        self._handshakes = Buckets(limits.handshakes_per_second, limits.handshakes_burst, clock)
        self._requests = Buckets(limits.requests_per_second, limits.requests_burst, clock)
        self._bytes = Buckets(limits.bytes_per_second, limits.bytes_burst, clock)
        self._typing = Buckets(TYPING_RATE, TYPING_BURST, clock)
        self._failed = Buckets(FAILED_RATE, FAILED_BURST, clock)

    def message(self, principal: Principal) -> None:
        """The user says something: a message, a cancel, a decision."""
        _take(self._messages, _user(principal), "messages")

    def handshake(self, principal: Principal) -> None:
        """The user opens a connection, or follows a session."""
        _take(self._handshakes, _user(principal), "handshakes")

    def request(self, principal: Principal) -> None:
        """The user asks for something by HTTP that is answered and over."""
        _take(self._requests, _user(principal), "requests")

    def received(self, principal: Principal, size: int) -> None:
        """The user sent that many bytes."""
        _take(self._bytes, _user(principal), "bytes", size)

    def typing(self, principal: Principal, session_id: str) -> None:
        """The user types in that session."""
        _take(self._typing, (*_user(principal), session_id), "typing")

    def failed_handshake(self, address: str) -> None:
        """Somebody at that address did not prove who he is.

        Those who do are let in all the same: addresses are shared, and nobody may lock out his neighbours.
        """
        _take(self._failed, _network(address), "handshakes")


def _user(principal: Principal) -> tuple[str, str]:
    return principal.tenant, principal.user_id


def _network(address: str) -> str:
    """Whom an address stands for: in IPv6, one customer has 2**64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))


def _take(buckets: Buckets, key: Hashable, limit: str, amount: float = 1.0) -> None:
    if wait := buckets.take(key, amount):
        retry_after = round(math.ceil(wait * 1000) / 1000, 3)  # not less than the wait: who obeys is granted
        raise MillraceError(Code.RATE_LIMITED, retry_after=retry_after, limit=limit)
