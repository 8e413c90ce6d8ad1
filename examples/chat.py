"""A chat in the terminal: `.venv/bin/python examples/chat.py [SESSION]`, beside `make up`.

It resumes from its cursor and sends again what was not confirmed, so whatever is killed or restarted
meanwhile, each word is shown once.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import uuid
from typing import Any
from urllib.request import Request, urlopen

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

EDGE = os.environ.get("EDGE", "http://127.0.0.1:8000")
GET_TOKEN = [sys.executable, "-m", "millrace", "token", "--tenant", "dev", "--user", "dev"]
REFUSED = (4000, 4001, 4003, 4004)  # replaced, or the token or the session is wrong: trying again would not help
SHOWN = {
    "stream_delta": "{delta}",
    "stream_end": "\n",
    "stream_reset": "\n[attempt {attempt}: what was streamed is void]\n",
    "tool_approval_request": "[{tool} {arguments}: may it run? y/n]\n",
    "tool_result": "[tool {status}: {result}]\n",
    "workflow_progress": "[{step} {progress:.0%}]\n",
    "external_event": "[{event_type} {event_data}]\n",
    "error": "[{code}: {error}]\n",
}

cursor = ""
unconfirmed: dict[str, dict[str, Any]] = {}
asked: list[str] = []


def take(frame: dict[str, Any]) -> None:
    """Show a frame; its cursor counts from then on, except that of `message_accepted`."""
    global cursor
    print(SHOWN.get(frame["type"], "").format(**frame), end="", flush=True)
    if frame["type"] == "snapshot":
        print("".join(f"{message['role']}: {message['content']}\n" for message in frame["messages"]), end="")
        print(frame["active"]["content"] if frame["active"] else "", end="", flush=True)
        for request in frame["approvals"]:
            take(request)
    elif frame["type"] == "tool_approval_request":
        asked.append(frame["tool_call_id"])
    elif frame["type"] in ("tool_approval", "tool_result") and frame["tool_call_id"] in asked:
        asked.remove(frame["tool_call_id"])
    unconfirmed.pop(frame.get("client_message_id", ""), None)
    if frame["type"] != "message_accepted":
        cursor = frame.get("cursor", cursor)


def say(line: str) -> dict[str, Any]:
    """The frame for a typed line: a decision where one is asked for, else a message."""
    if asked and line in ("y", "n"):
        return {"type": "tool_approval", "tool_call_id": asked[0], "approved": line == "y"}
    key = uuid.uuid4().hex  # the same key again is the same message, however often it is sent
    unconfirmed[key] = {"type": "message", "content": line, "client_message_id": key}
    return unconfirmed[key]


async def talk(url: str, headers: dict[str, str], lines: asyncio.Queue[str]) -> None:
    """One connection, until it breaks."""
    async with connect(f"{url}?after={cursor}" if cursor else url, additional_headers=headers, max_size=None) as socket:

        async def speak() -> None:
            for frame in list(unconfirmed.values()):
                await socket.send(json.dumps(frame))
            while True:
                await socket.send(json.dumps(say(await lines.get())))

        speaking = asyncio.create_task(speak())
        try:
            while True:
                take(json.loads(await socket.recv()))
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])


async def main(session_id: str) -> None:
    """Create the session, or find it again; then talk until Ctrl-C."""
    token = os.environ.get("TOKEN") or subprocess.check_output(GET_TOKEN, text=True).strip()
    headers = {"Authorization": f"Bearer {token}"}
    body = json.dumps({"session_id": session_id}).encode()
    await asyncio.to_thread(urlopen, Request(f"{EDGE}/api/v1/sessions", body, headers))
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            await talk(f"{EDGE.replace('http', 'ws', 1)}/api/v1/sessions/{session_id}/ws", headers, lines)
        except (OSError, ConnectionClosed) as error:
            if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code in REFUSED:
                sys.exit(f"refused: {error.rcvd.reason}")
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "terminal"))
    except KeyboardInterrupt:
        print()
