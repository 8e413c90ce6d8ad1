"""An MCP server over stdio that answers a call with what the tool's name says, in bytes of its own."""

import json
import os
import sys
import time
from pathlib import Path

ANSWERS = {
    "surrogate": '"result":{"content":[{"type":"text","text":"\\ud800"}]}',
    "deep": '"result":{"content":[],"structuredContent":{"n":' + "[" * 300 + "]" * 300 + "}}",
    "null": '"result":null',
    "error": '"error":{"code":-32000,"message":"bad \\ud800"}',
    "well": '"result":{"content":[{"type":"text","text":"well"}]}',
}
PROGRESS = ("NaN", "1e999", "-1e999", "0.5")
READ_ONLY = {"readOnlyHint": True, "destructiveHint": False}
TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}, "annotations": READ_ONLY}
    for name in (*ANSWERS, "crash", "logs", "odd")
]


def tell(line: str) -> None:
    """Say it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def answer(request: dict[str, dict[str, object]]) -> str:
    """What becomes of a request, but its id."""
    method, params = str(request.get("method")), request.get("params", {})
    if method == "initialize":
        about = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
        return '"result":' + json.dumps(about | {"serverInfo": {"name": "raw", "version": "1"}})
    if method == "tools/list":
        return '"result":' + json.dumps({"tools": TOOLS})
    if method != "tools/call":
        return '"error":{"code":-32601,"message":"no"}'
    name = str(params["name"])
    with Path(os.environ["RAW_LOG"]).open("a") as log:
        log.write(f"{name}\n")
    if name == "crash":
        os._exit(1)
    if name == "logs":
        for mark in (request["id"], True):
            tell(json.dumps({"level": "info", "id": mark, "message": "a row"}))
            tell(json.dumps({"jsonrpc": "2.0", "method": "x", "params": json.dumps({"id": mark, "result": 1})}))
            tell(json.dumps({"jsonrpc": "2.0", "id": mark, "result": None} if mark is True else {"jsonrpc": "2.0"}))
        name = "well"
    if name == "odd":
        meta = params.get("_meta")
        token = json.dumps(meta.get("progressToken") if isinstance(meta, dict) else None)
        for progress in PROGRESS:
            told = f'{{"progressToken":{token},"progress":{progress},"total":Infinity}}'
            tell(f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{told}}}')
            time.sleep(0.05)  # or only the newest would be told
        name = "well"
    return ANSWERS[name]


def main() -> None:
    """Answer until there is nothing more to read."""
    tell("a line of a log")
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            tell(f'{{"jsonrpc":"2.0","id":{json.dumps(request["id"])},{answer(request)}}}')


if __name__ == "__main__":
    main()
