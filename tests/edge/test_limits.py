"""Rates: a bucket never grants more than its burst and its rate, and keeps the promise of `retry_after`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.config import Limits
from contracts.errors import Code, MillraceError
from edge.limits import FAILED_BURST, TYPING_BURST, Buckets, Limiter
from edge.principal import Principal

ANN = Principal("acme", "ann", None)


class Clock:
    """Time that passes when told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


RATES = st.floats(0.01, 1e6)
BURSTS = st.floats(1, 1e6)
ATTEMPTS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 1.0)), min_size=1, max_size=60)


@given(RATES, BURSTS, ATTEMPTS, st.floats(0, 1e7))
def test_no_window_grants_more_than_the_burst_and_the_rate(
    rate: float, burst: float, attempts: list[tuple[float, float]], start: float
) -> None:
    """Our choice: `burst + rate * t` in any window of t seconds, whatever is asked when (amounts: shares of it)."""
    clock = Clock(start)
    buckets = Buckets(rate, burst, clock)
    granted: list[tuple[float, float]] = []
    for pause, share in attempts:
        clock.now += pause / rate
        amount = share * burst
        if not buckets.take("key", amount):
            granted.append((clock.now, amount))
    for first, (began, _) in enumerate(granted):
        total = 0.0
        for at, amount in granted[first:]:
            total += amount
            assert total <= (burst + rate * (at - began)) * (1 + 1e-9) + rate * 2e-6


@given(RATES, BURSTS, ATTEMPTS, st.floats(0, 1e7))
def test_who_waits_as_long_as_he_is_told_is_granted(
    rate: float, burst: float, attempts: list[tuple[float, float]], start: float
) -> None:
    """Our choice: `retry_after` is a promise, and a refusal takes nothing."""
    clock = Clock(start)
    buckets = Buckets(rate, burst, clock)
    for pause, share in attempts:
        clock.now += pause / rate
        if wait := buckets.take("key", share * burst):
            assert buckets.take("key", share * burst) == wait
            clock.now += wait
            assert buckets.take("key", share * burst) == 0.0


def test_more_than_the_burst_is_granted_to_a_full_bucket_and_empties_it() -> None:
    """Our choice: an amount that could never be granted would be refused for ever."""
    clock = Clock()
    buckets = Buckets(1.0, 10.0, clock)
    assert buckets.take("key", 1000) == 0.0
    assert buckets.take("key") == pytest.approx(1.0)


def test_full_buckets_are_forgotten() -> None:
    """Our choice: memory holds those who were busy a moment ago, not everybody who ever came."""
    clock = Clock()
    buckets = Buckets(10.0, 10.0, clock)
    for key in range(10_000):
        clock.now += 0.05
        buckets.take(key)
    assert len(buckets) < 10


def test_there_are_never_more_buckets_than_allowed() -> None:
    """P9: whoever makes up keys does not fill the memory."""
    buckets = Buckets(1.0, 3.0, Clock(), most_keys=50)
    for key in range(1000):
        buckets.take(key)
    assert len(buckets) == 50


def test_a_bucket_in_use_is_not_pushed_out_by_new_keys() -> None:
    """Our choice: the one that was longest left alone goes first."""
    clock = Clock()
    buckets = Buckets(1.0, 1000.0, clock, most_keys=50)
    assert buckets.take("busy", 900) == 0.0
    for key in range(1000):
        buckets.take(key)
        if key % 20 == 0:
            buckets.take("busy", 1)
    assert buckets.take("busy", 100) > 0


def _refused(limiter: Limiter, what: str, *args: object) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        getattr(limiter, what)(*args)
    return caught.value


@pytest.mark.parametrize(
    ("what", "args", "burst", "limit"),
    [
        ("message", (ANN,), 10, "messages"),
        ("handshake", (ANN,), 12, "handshakes"),
        ("request", (ANN,), 5, "requests"),
        ("typing", (ANN, "s"), int(TYPING_BURST), "typing"),
        ("failed_handshake", ("192.0.2.1",), int(FAILED_BURST), "handshakes"),
    ],
)
def test_each_limit_has_its_burst_its_name_and_a_time_to_come_back(
    what: str, args: tuple[object, ...], burst: int, limit: str
) -> None:
    """Limits: `rate_limited` with `retry_after` in seconds, to the millisecond, and `limit`."""
    clock = Clock(1e6)
    limiter = Limiter(Limits(messages_per_second=2, handshakes_per_second=3, requests_per_second=1), clock)
    for _ in range(burst):
        getattr(limiter, what)(*args)
    error = _refused(limiter, what, *args)
    assert error.code == Code.RATE_LIMITED
    assert error.details
    assert error.details["limit"] == limit
    retry_after = error.details["retry_after"]
    assert isinstance(retry_after, float)
    assert retry_after == round(retry_after, 3) > 0
    clock.now += retry_after
    getattr(limiter, what)(*args)


def test_bytes_are_counted_and_any_one_frame_fits() -> None:
    """Limits: a frame of the largest size is granted at once, however small the rate."""
    limiter = Limiter(Limits(bytes_per_second=1, frame_bytes=1000), Clock())
    limiter.received(ANN, 1000)
    limiter.received(ANN, 1000)
    error = _refused(limiter, "received", ANN, 500)
    assert error.details == {"retry_after": 500.0, "limit": "bytes"}


def test_one_users_limits_are_nobody_elses() -> None:
    """P9: neither another user's, nor one of the same name in another tenant, nor in another session."""
    limiter = Limiter(Limits(messages_per_second=1), Clock())
    for _ in range(5):
        limiter.message(ANN)
        limiter.typing(ANN, "s")
    _refused(limiter, "message", ANN)
    _refused(limiter, "typing", ANN, "s")
    limiter.typing(ANN, "another")
    for other in (Principal("acme", "bob", None), Principal("globex", "ann", None)):
        limiter.message(other)
        limiter.typing(other, "s")


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("", "", True),
    ],
)
def test_a_customers_addresses_count_as_one(first: str, second: str, shared: bool) -> None:
    """Our choice: in IPv6 the /64, else guessing would be free."""
    limiter = Limiter(Limits(), Clock())
    for _ in range(int(FAILED_BURST)):
        limiter.failed_handshake(first)
    if shared:
        _refused(limiter, "failed_handshake", second)
    else:
        limiter.failed_handshake(second)
