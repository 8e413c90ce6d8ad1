"""What the log's leader says of the log."""

import msgspec

from contracts.events import unix_time


class LogInfo(msgspec.Struct, frozen=True):
    """How far the log reaches, at `time` on the broker's clock (Unix seconds)."""

    epoch: str
    first_seq: int
    last_seq: int
    bytes: int
    max_bytes: int
    replicas: int
    time: float


class _StreamInfo(msgspec.Struct):
    class _Config(msgspec.Struct):
        max_bytes: int
        num_replicas: int = 1
        metadata: dict[str, str] = {}

    class _State(msgspec.Struct):
        bytes: int
        first_seq: int
        last_seq: int

    config: _Config
    state: _State
    ts: str


_stream_info = msgspec.json.Decoder(_StreamInfo)


def decode(answer: bytes) -> LogInfo:
    """The answer to STREAM.INFO. Raises msgspec.DecodeError where it is something else."""
    info = _stream_info.decode(answer)
    return LogInfo(
        info.config.metadata.get("epoch", "0"),
        info.state.first_seq,
        info.state.last_seq,
        info.state.bytes,
        info.config.max_bytes,
        info.config.num_replicas,
        unix_time(info.ts),
    )
