"""Standard: RFC 6455 and RFC 7692, by the cases of the Autobahn suite, against the edge's protocol class."""

from types import MappingProxyType

import pytest
from kosoku import FailureError, run_fuzzingclient

from tests.edge.serving import echo, served

pytestmark = pytest.mark.anyio

LATE = "the frames before the fault came in one packet with it, and the connection ends without an answer to them"
TEXT = "text that is no UTF-8 is refused when the message is whole, not at its first wrong byte"
EXPECTED = MappingProxyType(
    {
        **dict.fromkeys(("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"), LATE),
        **dict.fromkeys(("6.4.1", "6.4.2", "6.4.3", "6.4.4"), TEXT),
        "7.1.5": "a close frame in mid-message is answered with 1002 instead of 1000: the message is broken off",
        "7.1.6": "the standard leaves open whether what came before a close frame is still answered",
        "7.13.1": "the standard leaves open what close codes of 5000 and above are answered with",
        "7.13.2": "likewise",
    }
)
"""What does not end as the strictest reading wants, and why; only 7.1.5 is a failure, and the library's choice."""

LARGE = [f"9.{group}.{case}" for group in (1, 2, 5, 6) for case in (1, 2, 3)]
"""Messages of 64 KiB, 256 KiB and 1 MiB; those of group 9 go up to 16 MiB."""

FAST = [f"{group}.{case}" for group in ("12.1", "12.2", "12.3", "12.4", "12.5") for case in range(1, 4)] + [
    f"13.{group}.{case}" for group in range(1, 8) for case in range(1, 4)
]
"""Of the cases of compression, whose later ones send up to 128 MB each. They take minutes and pass, run one by one."""


async def _differing(port: int, cases: list[str], without: list[str] | None = None) -> tuple[int, dict[str, str]]:
    """How many cases there were, and what those came to that did not simply pass."""
    try:
        results = await run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, without, concurrency=8)
    except FailureError as failure:
        results = failure.results
    verdicts = {result.case_id: f"{result.behavior.value}, {result.behavior_close.value}" for result in results}
    return len(results), {case: verdict for case, verdict in verdicts.items() if verdict != "OK, OK"}


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compression offered"])
async def test_the_protocol_is_spoken_as_the_standard_says(compression: bool) -> None:
    """Issue: run the cases, explain what fails. Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing."""
    async with served(echo, compression=compression) as port:
        number, differing = await _differing(port, ["*"], ["9.*", "12.*", "13.*"])
    assert number > 240
    assert differing.keys() <= EXPECTED.keys()  # some depend on what comes in one packet
    assert [case for case, verdict in differing.items() if "FAILED" in verdict] == ["7.1.5"]


async def test_large_messages_are_taken_as_far_as_the_limit_goes() -> None:
    """An edge takes frames of 64 KiB, unless it is configured to take more."""
    async with served(echo, frame_bytes=1 << 20) as port:
        number, differing = await _differing(port, LARGE)
    assert number == len(LARGE)
    assert differing == {}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of the cases' own test data
async def test_messages_are_compressed_as_the_standard_says() -> None:
    """RFC 7692, whatever window and context the client asks for."""
    async with served(echo, compression=True, frame_bytes=256 * 1024) as port:
        number, differing = await _differing(port, FAST)
    assert number == len(FAST)
    assert differing == {}
