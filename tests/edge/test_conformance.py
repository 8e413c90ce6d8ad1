"""Standard: RFC 6455 and RFC 7692, by the cases of the Autobahn suite, against the protocol class and an edge."""

from pathlib import Path
from types import MappingProxyType

import pytest
from kosoku import FailureError, run_fuzzingclient
from kosoku._kosoku import CaseResult

from tests.edge.serving import echo, served
from tests.harness.client import http, new_session, socket_url
from tests.harness.system import system

pytestmark = pytest.mark.anyio

LATE = MappingProxyType(
    dict.fromkeys(
        ("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"),
        "the frames before the fault came in one packet with it, and the connection ends without an answer to them",
    )
)
"""What is not strict as long as the client's packets are that large."""

OPEN = MappingProxyType(
    {
        **dict.fromkeys(
            ("6.4.3", "6.4.4"), "text that is no UTF-8 is refused with its fragment, not its first wrong byte"
        ),
        "7.1.6": "the standard leaves open whether what came before a close frame is still answered",
        **dict.fromkeys(("7.13.1", "7.13.2"), "the standard leaves open what a close code above 4999 is answered with"),
    }
)
"""What never ends as the strictest reading wants, and why."""

LARGE = [f"9.{group}.{case}" for group in (1, 2, 5, 6) for case in (1, 2, 3)]
"""Messages of 64 KiB, 256 KiB and 1 MiB; those of group 9 go up to 16 MiB."""

FAST = [f"{group}.{case}" for group in ("12.1", "12.2", "12.3", "12.4", "12.5") for case in range(1, 4)] + [
    f"13.{group}.{case}" for group in range(1, 8) for case in range(1, 4)
]
"""Of the cases of compression, whose later ones send up to 128 MB each. They take minutes and pass, run one by one."""

ENDING = [f"5.{case}" for case in (1, 2, *range(9, 19))] + [f"7.1.{case}" for case in range(2, 6)]
ENDING += ["2.*", "3.*", "4.*", "6.3.*", "6.4.*", "6.6.1", "6.6.3", "7.3.*", "7.5.*", "7.7.*", "7.9.*"]
"""The cases that an edge can be put to, which echoes nothing: how a connection ends, by whoever ends it."""


async def _differing(port: int, cases: list[str], without: list[str] | None = None) -> tuple[int, dict[str, str]]:
    """How many cases there were, and what those came to that did not simply pass."""
    results = await _results(f"ws://127.0.0.1:{port}", cases, without)
    verdicts = {result.case_id: f"{result.behavior.value}, {result.behavior_close.value}" for result in results}
    return len(results), {case: verdict for case, verdict in verdicts.items() if verdict != "OK, OK"}


async def _results(url: str, cases: list[str], without: list[str] | None = None) -> list[CaseResult]:
    try:
        return await run_fuzzingclient(url, cases, without, concurrency=8)
    except FailureError as failure:
        return list(failure.results)


@pytest.mark.parametrize("compression", [False, True], ids=["plain", "compression offered"])
async def test_the_protocol_is_spoken_as_the_standard_says(compression: bool) -> None:
    """Issue: run the cases, explain what fails. Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing."""
    async with served(echo, compression=compression) as port:
        number, differing = await _differing(port, ["*"], ["9.*", "12.*", "13.*"])
    assert number > 240
    assert OPEN.keys() <= differing.keys() <= OPEN.keys() | LATE.keys()
    assert set(differing.values()) == {"NON-STRICT, OK", "INFORMATIONAL, INFORMATIONAL"}


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


async def test_the_socket_of_a_session_ends_as_the_standard_says(tmp_path: Path) -> None:
    """Each case that needs no echo has its close code; nothing comes of it in the session, or in what is logged."""
    async with system(tmp_path, services=("edge",), config="[limits]\nconnections_per_session = 0\n") as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        results = await _results(socket_url(running.edge, session_id, token), ENDING)
        history = await http("GET", f"{running.edge}/api/v1/sessions/{session_id}/messages", token=token)
        assert len(results) > 75
        assert {result.case_id for result in results if result.behavior_close.value != "OK"} == set()
        assert history.json["messages"] == []
        assert "Traceback" not in running.logs()
