"""`make docs`: what is generated of the documentation, from `contracts`.

docs/asyncapi.json is all generated; of docs/wire.md what stands between two markers. A test fails when either differs
from what is generated.
"""

import json
from pathlib import Path

from contracts.closes import CLOSES
from contracts.errors import CATALOGUE
from scripts.asyncapi import document

DOCS = Path(__file__).parents[1] / "docs"


def errors() -> str:
    """The table of error codes."""
    head = "| code | HTTP | close | retryable | means | what to do |\n| --- | --- | --- | --- | --- | --- |\n"
    rows = (
        f"| `{code}` | {entry.status} | {entry.close or '-'} | {'yes' if entry.retryable else 'no'} "
        f"| {entry.meaning} | {entry.remedy} |\n"
        for code, entry in CATALOGUE.items()
    )
    return head + "".join(rows)


def closes() -> str:
    """The table of close codes."""
    head = "| code | means | what to do | reconnect |\n| --- | --- | --- | --- |\n"
    rows = (f"| {code} | {close.meaning} | {close.remedy} | {close.reconnect} |\n" for code, close in CLOSES.items())
    return head + "".join(rows)


def filled(text: str) -> str:
    """A document with everything between its markers generated anew. Raises ValueError where a marker is missing."""
    for name, table in (("errors", errors()), ("closes", closes())):
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"docs/wire.md needs one {begin.strip()} and one {end}")
        before, _, rest = text.partition(begin)
        text = before + begin + table + end + rest.partition(end)[2]
    return text


def generated() -> dict[Path, str]:
    """Every file that is generated, or is in part, and its whole text."""
    wire = DOCS / "wire.md"
    return {
        wire: filled(wire.read_text()),
        DOCS / "asyncapi.json": json.dumps(document(), indent=1, ensure_ascii=False) + "\n",
    }


if __name__ == "__main__":
    for path, text in generated().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"docs/{path.name} was written anew")
