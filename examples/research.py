"""An agent in Python: researches a question in a folder of documents, reports its progress, and keeps what it found.

In millrace.toml, beside `make up ARGS="--config millrace.toml"`:

    [agents.research]
    run = "examples.research:research"
    tools = ["demo.note"]

It may be killed at any point and goes on where it was: each document is read once, nothing is said or noted twice.
Send a message with the policy `steer` while it reads, and it looks for those words, too.
"""

import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from agent_runner.turn import Turn

DOCUMENTS = Path("docs")
FOUND = 5


async def research(turn: Turn) -> None:
    """Answer a question from the documents."""
    words = _words(turn.message.content)
    # What is read from outside belongs into a step: another attempt sees the same list, whatever was added since.
    names = await turn.step("list", lambda: sorted(path.name for path in DOCUMENTS.glob("*.md")))
    found: list[tuple[str, str]] = []
    for done, name in enumerate(names, 1):
        found += [(name, line) for line in await turn.step(f"read {name}", partial(_read, name, set(words)))]
        await turn.progress(f"read {name}", done / len(names), completed=done, total=len(names))
        for steer in await turn.steers():
            words |= _words(steer.content)
    await turn.say(_report(words, found))
    if found:
        saved = await turn.call("demo.note", {"text": f"{turn.message.content}: {len(found)} lines"})
        if saved.status != "completed":
            await turn.say(f"Not noted: {saved.error or saved.status}.")


async def _report(words: set[str], found: list[tuple[str, str]]) -> AsyncIterator[str]:
    """Streamed as it is written."""
    yield f"{len(found)} lines hold {' or '.join(sorted(words)) or 'nothing'}.\n"
    for name, line in found[:FOUND]:
        yield f"- {name}: {line}\n"


def _words(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"\w{4,}", text)}


def _read(name: str, words: set[str]) -> list[str]:
    """The lines that hold one of the words; a plain function, so a step runs it in a thread."""
    lines = (DOCUMENTS / name).read_text(encoding="utf-8").splitlines()
    return [line.strip()[:200] for line in lines if words & _words(line)]
