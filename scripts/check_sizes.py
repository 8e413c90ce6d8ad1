"""Python files over 500 lines fail, over 300 are named: one of them may hold two nouns."""

import subprocess
import sys
from pathlib import Path

LIMIT, LOOK = 500, 300

if __name__ == "__main__":
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],  # noqa: S607 - so is the PATH
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = [Path(name) for name in listed.stdout.splitlines()]
    sizes = sorted((len(file.read_bytes().splitlines()), str(file)) for file in files if file.exists())
    for lines, name in sizes:
        if lines > LOOK:
            print(f"{name}: {lines} lines{' (at most 500)' if lines > LIMIT else ', two nouns?'}")
    sys.exit(sizes[-1][0] > LIMIT)
