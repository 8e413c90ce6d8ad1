"""Publishing a CloudEvent as a tenant's external system does: the NATS binding in binary mode.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

import string
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from broker.oneshot import oneshot
from contracts import subjects

_PLAIN = "".join(set(string.punctuation) - set('"%'))


class Refused(Exception):
    """The broker did not store the event; the text is its reason."""


class CloudEvent(Struct, frozen=True, kw_only=True):
    """An event. `target` is one of sessionid, userid, projectid; without, it is for the tenant."""

    id: str
    source: str
    type: str
    data: bytes
    target: dict[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """The attributes as headers. (source, id) is what the broker recognises it by."""
        attributes = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
            **self.target,
        }
        headers = {f"ce-{name}": quote(value, safe=_PLAIN) for name, value in attributes.items()}
        return headers | {"Nats-Msg-Id": quote(f"{self.source}/{self.id}", safe=_PLAIN)}


class _Ack(Struct):
    class _Error(Struct):
        description: str = ""

    seq: int = 0
    error: _Error | None = None


async def publish(url: str, seed_file: str, tenant: str, event: CloudEvent) -> int:
    """Store `event` and return its sequence; one that was stored before is not stored again.

    Raises Unavailable where the broker is away, and Refused.
    """
    subject = subjects.ingest(tenant, event.source, event.type)
    async with oneshot(url, seed_file) as client:
        reply = await client.request(subject, event.data, timeout=5.0, headers=event.headers)
        ack = msgspec.json.decode(reply.data, type=_Ack)
    if ack.error:
        raise Refused(ack.error.description)
    return ack.seq
