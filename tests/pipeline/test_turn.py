"""P1 and P3: an accepted message is answered, and everybody sees the same events in the same order."""

import json

import pytest

from tests.harness.client import http, joined, new_session, open_socket
from tests.harness.system import System

pytestmark = pytest.mark.anyio

DELTAS = [{"stream": {"deltas": 20, "interval_ms": 20, "size": 40}}]


async def test_a_message_is_accepted_answered_and_ended_once(shared: System) -> None:
    """Promise P1, and the order of frames that WIRE 1 describes."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say("hello big world", request_id="r1", client_message_id="c1")
        end = await client.until("turn_end")
        accepted = client.of("message_accepted")[0]
        assert accepted["request_id"] == "r1"
        assert accepted["client_message_id"] == "c1"
        types = [frame["type"] for frame in client.events if frame["type"] != "stream_delta"]
        assert types == ["message", "turn_start", "stream_start", "stream_end", "turn_end"]
        assert end["status"] == "completed"
        assert end["reply_to"] == accepted["message_id"] == client.of("message")[0]["message_id"]
        answer = client.of("stream_end")[0]
        assert answer["content"] == "hello big world"
        assert "".join(delta["delta"] for delta in client.of("stream_delta")) == "hello big world"
        assert answer["message_id"] == client.of("stream_start")[0]["message_id"]


async def test_every_log_event_names_its_session_id_cursor_and_time(shared: System) -> None:
    """WIRE 1: what every frame from the log carries."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"say": "hi"}, {"workflow": {"id": "w", "steps": ["a", "b"]}}])
        await client.until("turn_end")
        events = client.events
        assert len({event["id"] for event in events}) == len(events)
        for event in events:
            assert event["session_id"] == session_id
            assert event["cursor"]
            assert event["timestamp"].endswith("Z")
        steps = [(event["step"], event["progress"]) for event in client.of("workflow_progress")]
        assert steps == [("a", 0.5), ("b", 1.0)]


async def test_at_low_load_every_delta_is_a_frame_of_its_own(shared: System) -> None:
    """Deltas coalesce by having one append in flight; there is no timer that would gather them."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say(DELTAS)
        await client.until("turn_end")
        deltas = [delta["delta"] for delta in client.of("stream_delta")]
        assert [int(delta.split()[0]) for delta in deltas] == list(range(20))
        assert all(len(delta) == 40 and delta.endswith("\n") for delta in deltas)


async def test_a_flood_of_deltas_travels_in_fewer_frames_and_loses_none(shared: System) -> None:
    """What is produced while an append is in flight goes into the next one."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"stream": {"deltas": 5000, "size": 20}}])
        end = await client.until("stream_end")
        deltas = client.of("stream_delta")
        assert len(deltas) < 1000
        text = "".join(delta["delta"] for delta in deltas)
        assert text == end["content"]
        assert [int(line.split()[0]) for line in text.splitlines()] == list(range(5000))
        offsets = [delta["offset"] for delta in deltas]
        assert offsets == [sum(len(d["delta"]) for d in deltas[:i]) for i in range(len(deltas))]
        await client.until("turn_end")


async def test_clients_on_two_edges_see_the_same_events_in_the_same_order(shared: System) -> None:
    """Promise P3."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    second = shared.services[-1].url
    async with joined(shared.edge, session_id, token) as one, joined(second, session_id, token) as other:
        await one.say(DELTAS)
        await other.say("from the other side")
        for client in (one, other):
            await client.until("turn_end")
            await client.until("turn_end")
        assert [event["id"] for event in one.events] == [event["id"] for event in other.events]


async def test_the_same_client_message_id_gives_the_same_message_and_one_turn(shared: System) -> None:
    """Promise P1 for a client that retries: WIRE 1, `client_message_id`."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say("once", client_message_id="again")
        await client.until("turn_end")
        await client.say("once", client_message_id="again")
        await client.until("message_accepted")
        await client.say("then this", client_message_id="other")
        await client.until("turn_end")
        first, second, _ = client.of("message_accepted")
        assert first["message_id"] == second["message_id"]
        assert len(client.of("turn_start")) == 2


async def test_messages_of_a_session_are_answered_one_after_another(shared: System) -> None:
    """Turns of one session never overlap; the default policy is to wait."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        for number in range(4):
            await client.say([{"stream": {"deltas": 5, "interval_ms": 5}}], client_message_id=f"c{number}")
        for _ in range(4):
            await client.until("turn_end")
        turns = [frame["type"] for frame in client.of("turn_start", "turn_end")]
        assert turns == ["turn_start", "turn_end"] * 4
        assert [end["reply_to"] for end in client.of("turn_end")] == [
            accepted["message_id"] for accepted in client.of("message_accepted")
        ]


async def test_an_agent_that_fails_ends_its_turn_and_the_session_goes_on(shared: System) -> None:
    """An agent's error never closes the socket."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"say": "half "}, {"fail": "broken"}])
        end = await client.until("turn_end")
        assert end["status"] == "failed"
        assert end["error"]["code"] == "agent_failed"
        assert client.of("error")[0]["code"] == "agent_failed"
        closed = client.of("stream_end")[0]
        assert (closed["content"], closed["finish_reason"]) == ("half ", "error")
        await client.say([{"nonsense": 1}])
        assert (await client.until("turn_end"))["status"] == "failed"
        await client.say("still here")
        assert (await client.until("turn_end"))["status"] == "completed"


async def test_a_session_is_created_once_and_found_again(shared: System) -> None:
    """WIRE 3: 201 for a new session, 200 for one's own, and the list has the newest first."""
    token = shared.token(user="lister")
    body = {"session_id": "mine", "title": "first", "metadata": {"a": 1}}
    created = await http("POST", f"{shared.edge}/api/v1/sessions", body, token=token)
    assert created.status == 201
    again = await http("POST", f"{shared.edge}/api/v1/sessions", {"session_id": "mine"}, token=token)
    assert again.status == 200
    assert again.json["title"] == "first"
    await new_session(shared.edge, token, session_id="newer")
    listed = await http("GET", f"{shared.edge}/api/v1/sessions", token=token)
    assert [item["session_id"] for item in listed.json["items"]] == ["newer", "mine"]
    shown = await http("GET", f"{shared.edge}/api/v1/sessions/mine", token=token)
    assert shown.json["state"] == "suspended"
    async with joined(shared.edge, "mine", token):
        shown = await http("GET", f"{shared.edge}/api/v1/sessions/mine", token=token)
        assert shown.json["state"] == "active"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param("{", "bad_request", id="no JSON"),
        pytest.param("[1]", "bad_request", id="no object"),
        pytest.param('{"content": "x"}', "bad_request", id="no type"),
        pytest.param('{"type": "dance", "request_id": "r"}', "unknown_type", id="unknown type"),
        pytest.param('{"type": "message", "content": 7, "request_id": "r"}', "bad_request", id="wrong field type"),
        pytest.param('{"type": "message", "content": ""}', "bad_request", id="nothing said"),
        pytest.param('{"type": "message", "content": "x", "client_message_id": "a.b"}', "bad_request", id="no token"),
        pytest.param('{"type": "message", "content": "x", "policy": "dance"}', "bad_request", id="unknown policy"),
        pytest.param(
            '{"type": "tool_approval", "tool_call_id": "x", "approved": true}', "approval_not_found", id="not asked"
        ),
        pytest.param("[" * 30_000, "bad_request", id="deep"),
        pytest.param(
            '{"type": "message", "content": "x", "metadata": ' + '{"a": ' * 900 + "1" + "}" * 902,
            "bad_request",
            id="deep metadata",
        ),
        pytest.param('{"type": "message", "content": "\\ud800"}', "bad_request", id="lone surrogate"),
        pytest.param('{"type": "message", "content": "x", "metadata": {"n": NaN}}', "bad_request", id="not a number"),
    ],
)
async def test_a_bad_frame_gets_an_error_and_the_socket_lives_on(shared: System, data: str, code: str) -> None:
    """Bad input gets its code and leaves everything else untouched."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.connection.send(data)
        error = await client.until("error")
        assert error["code"] == code
        assert error["error"] == error["message"]
        if '"request_id"' in data:
            assert error["request_id"] == json.loads(data)["request_id"]
        await client.say("still here")
        assert (await client.until("turn_end"))["status"] == "completed"


async def test_a_frame_that_is_too_large_closes_with_1009(shared: System) -> None:
    """WIRE 1: 1009, 64 KiB unless configured; the session is untouched."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say("x" * 70_000)
        assert await client.closed() == 1009
    async with joined(shared.edge, session_id, token) as client:
        await client.say("x" * 60_000)
        assert (await client.until("turn_end"))["status"] == "completed"


async def test_a_ping_is_answered_and_unknown_fields_are_ignored(shared: System) -> None:
    """WIRE 1."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.send("ping", new_field=1)
        assert (await client.until("pong"))["timestamp"]


@pytest.mark.parametrize(
    ("token", "session_id", "code"),
    [
        pytest.param(None, "known", 4001, id="no token"),
        pytest.param("nonsense", "known", 4001, id="no JWT"),
        pytest.param("expired", "known", 4001, id="expired"),
        pytest.param("somebody", "known", 4003, id="another user's session"),
        pytest.param("own", "unknown", 4004, id="no such session"),
        pytest.param("stranger", "known", 4004, id="another tenant's session"),
        pytest.param("own", "a.b", 4004, id="an id that is no token"),
    ],
)
async def test_a_refused_handshake_is_closed_with_a_code_that_a_browser_can_read(
    shared: System, token: str | None, session_id: str, code: int
) -> None:
    """WIRE 1: accepted first, then closed."""
    own = shared.token(user="owner")
    await new_session(shared.edge, own, session_id="known")
    tokens = {
        "own": own,
        "expired": shared.token(user="owner", ttl=-60),
        "somebody": shared.token(user="somebody"),
        "stranger": shared.token(tenant="globex", user="owner"),
    }
    async with open_socket(shared.edge, session_id, tokens.get(token or "", token)) as client:
        assert await client.closed() == code


async def test_a_tool_call_that_is_nested_too_deeply_fails_its_turn_and_no_other(shared: System) -> None:
    """What the log holds, every service must be able to read."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        deep = '{"a": ' * 500 + "1" + "}" * 500
        await client.say('[{"tool": "demo.add", "arguments": ' + deep + "}]")
        assert (await client.until("turn_end"))["status"] == "failed"
        await client.say("still here")
        assert (await client.until("turn_end"))["status"] == "completed"


async def test_a_steer_that_comes_too_late_is_answered_as_its_own(shared: System) -> None:
    """No accepted message goes unheard: one that no boundary took in has a turn of its own."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"stream": {"deltas": 10, "interval_ms": 20}}])
        await client.until("stream_delta")
        await client.say("and this", policy="steer")
        for _ in range(2):
            await client.until("turn_end")
        assert [end["status"] for end in client.of("turn_end")] == ["completed", "completed"]
        assert client.of("stream_end")[-1]["content"] == "and this"


async def test_a_message_that_is_to_be_refused_while_a_turn_runs_is(shared: System) -> None:
    """WIRE 1, policy `reject`: `turn_in_progress`, and no effect; once nothing runs it is accepted."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"stream": {"deltas": 100_000, "interval_ms": 10}}])
        await client.until("stream_delta")
        await client.say("not now", policy="reject", client_message_id="picky", request_id="r")
        error = await client.until("error")
        assert (error["code"], error["request_id"]) == ("turn_in_progress", "r")
        await client.send("cancel")
        await client.until("turn_end")
        for _ in range(2):  # the second time it is known already, whatever runs
            await client.say("now", policy="reject", client_message_id="picky")
            await client.until("message_accepted")
        while len(client.of("turn_end")) < 2:  # it may have come before the second `message_accepted`
            await client.receive()
        assert [message["content"] for message in client.of("message")][1:] == ["now"]


@pytest.mark.parametrize(
    ("attachment", "code"),
    [
        pytest.param({"url": "https://example.org/a.png"}, None, id="a reference"),
        pytest.param({"data": "aGk="}, None, id="inline"),
        pytest.param({}, "bad_request", id="neither"),
        pytest.param({"url": "https://example.org", "data": "aGk="}, "bad_request", id="both"),
        pytest.param({"data": "no base64!"}, "bad_request", id="no base64"),
        pytest.param({"data": "QUFB" * 11_000}, "too_large", id="more than 32 KiB"),
    ],
)
async def test_an_attachment_is_a_reference_or_a_little_data(
    shared: System, attachment: dict[str, str], code: str | None
) -> None:
    """WIRE 1: attachments; the edge fetches nothing and stores what it is given."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    attachments = [{"name": "a", "media_type": "image/png", **attachment}]
    async with joined(shared.edge, session_id, token) as client:
        await client.say("look", attachments=attachments)
        if code:
            assert (await client.until("error"))["code"] == code
        else:
            assert (await client.until("message"))["attachments"] == attachments
