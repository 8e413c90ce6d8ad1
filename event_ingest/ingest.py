"""Ingest: each delivery becomes one event of the log, or a dead letter, and is then acked.

One (source, id) is delivered once to its topic. An event's id is derived from it, and the append
names the last event of the topic that was folded; the check subject is the lane `event`, which only
this service writes, so nobody else's facts make it wait. Of two processes that hold the same event,
however long one of them slept, the second is refused, reads on and finds it. It is looked for in
what was stored during the last `HORIZON`, and since the message itself was: a redelivery is
recognised whatever happened in between, a publisher's repetition for `HORIZON`.

The deliveries of a tenant are taken one after another, in the order of its stream; a delivery that
cannot be settled while the broker is away, or the log full, is kept alive and tried again.
"""

import asyncio
import logging
from collections import defaultdict

from msgspec import Struct
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, get_current_span

from broker import dead, metrics, telemetry
from broker.append import Append, LogFull, OutcomeUnknown, append
from broker.connect import Broker, Rejected, Unavailable
from broker.delivery import Delivery
from contracts import cloudevents, events, subjects
from contracts.cloudevents import InvalidEvent
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from event_ingest import route
from event_ingest.target import Target, Targets

logger = logging.getLogger(__name__)

HORIZON = 24 * 3600.0
SKEW = 60.0
"""How far the clocks of two brokers of a cluster may differ."""

APPEND_DEADLINE = 5.0
RETRY = 0.5
TEMPORARY = (Unavailable, TimeoutError, OutcomeUnknown, LogFull)
LAST_DELIVERY = 5
"""A message that fails for an unknown reason is refused when it comes that often."""


class Routed(Struct, frozen=True):
    """What a message asks for: this event in that topic."""

    topic: Topic
    event: route.Routed
    trace: dict[str, str]


class Ingest:
    """Takes the deliveries of all tenants; those of one tenant never at the same time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._targets = Targets(broker)
        self._turn: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def hold(self, delivery: Delivery) -> None:
        """Settle a delivery, or hand it to somebody else where the process was told to stop."""
        tenant = subjects.tenant_of_ingest(delivery.subject)
        async with self._turn[tenant]:
            outcome = await self._settled(tenant, delivery)
        if outcome is None:
            return await delivery.nak()
        await delivery.ack()
        metrics.EXTERNAL_EVENTS.labels(tenant, outcome).inc()

    async def _settled(self, tenant: str, delivery: Delivery) -> str | None:
        """What became of the message; None where nothing is decided yet."""
        wanted: Routed | MillraceError | None = None
        while not delivery.stopping:
            try:
                wanted = wanted or understand(tenant, delivery)
                return await self._settle(tenant, delivery, wanted)
            except Exception as error:
                temporary = isinstance(error, TEMPORARY) and not isinstance(error, Rejected)
                if not temporary and delivery.delivered < LAST_DELIVERY:
                    raise
                if not temporary:
                    wanted = MillraceError(Code.INTERNAL_ERROR)
                extra = {"reason": str(error) or type(error).__name__}
                logger.warning("an event waits", extra=_place(tenant, delivery) | extra)
                await asyncio.sleep(RETRY)
        return None

    async def _settle(self, tenant: str, delivery: Delivery, wanted: Routed | MillraceError) -> str:
        """Deliver or refuse, inside a span."""
        extension = wanted.trace if isinstance(wanted, Routed) else {}
        parent, links = parents(delivery.headers, extension)
        with telemetry.tracer.start_as_current_span(
            "process ingest",
            context=parent,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": "nats",
                "messaging.operation.type": "process",
                "messaging.destination.name": subjects.ingest_stream(tenant),
            },
        ) as span:
            if isinstance(wanted, Routed):
                outcome = await self._deliver(delivery, wanted)
            else:
                outcome = await self._bury(tenant, delivery, wanted)
            span.set_attribute("millrace.outcome", outcome)
        return outcome

    async def _deliver(self, delivery: Delivery, wanted: Routed) -> str:
        target = self._targets.of(wanted.topic)
        await target.know(min(self._broker.now() - HORIZON, delivery.stored_at) - SKEW)
        if wanted.event.id in target.ids:
            return "duplicate"
        if not await target.exists():
            missing = MillraceError(Code.SESSION_NOT_FOUND)
            return await self._bury(wanted.topic.tenant, delivery, missing)
        return await self._append(target, wanted.event)

    async def _append(self, target: Target, event: route.Routed) -> str:
        """Append unless the topic has the event; whoever is refused reads on and looks again."""
        payload, context = events.encode(event), telemetry.inject()
        while event.id not in target.ids:
            what = Append(target.lane, payload, event.id, target.lane, target.seq, context=context)
            stored = await append(self._broker, what, deadline=APPEND_DEADLINE)
            if stored and not stored.duplicate:
                target.add(event.id, stored.seq)
                return "accepted"
            await target.read_on()
            if stored:
                return "accepted" if event.id in target.ids else "duplicate"
        return "duplicate"

    async def _bury(self, tenant: str, delivery: Delivery, why: MillraceError) -> str:
        letter = dead.letter(tenant, delivery, why.code, str(why), ingest_sequence=delivery.seq)
        await dead.send(self._broker, letter, deadline=APPEND_DEADLINE)
        extra = {"reason": letter.reason, "dead_letter": letter.id}
        logger.warning("an event was refused", extra=_place(tenant, delivery) | extra)
        return letter.reason


def understand(tenant: str, delivery: Delivery) -> Routed | InvalidEvent:
    """What the message asks for, or why it is refused. Pure."""
    try:
        event = cloudevents.decode(delivery.headers, delivery.data)
        topic = route.topic_of(tenant, event)
        becomes = route.routed(topic, event, events.timestamp(delivery.stored_at))
    except InvalidEvent as refusal:
        return refusal
    carried = ("traceparent", "tracestate")
    trace = {name: event.attributes[name] for name in carried if name in event.attributes}
    return Routed(topic, becomes, trace)


def parents(headers: bytes, extension: dict[str, str]) -> tuple[Context, list[Link]]:
    """The parent of a message's span: the hop that it came by (header `traceparent`), else its origin.

    The origin (the extension `traceparent`) is linked where it is not the parent.
    """
    hop, origin = telemetry.extract(headers), telemetry.extract(extension)
    if not get_current_span(hop).get_span_context().is_valid:
        return origin, []
    began = get_current_span(origin).get_span_context()
    return hop, [Link(began)] if began.is_valid else []


def _place(tenant: str, delivery: Delivery) -> dict[str, object]:
    return {"tenant": tenant, "sequence": delivery.seq}
