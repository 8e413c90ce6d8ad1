"""Names: what tools are called where only [A-Za-z0-9_-]{1,64} is allowed. Pure."""

import hashlib
import re
from collections.abc import Iterable

LONGEST = 64


class Names:
    """Both names of each tool of one request. Where two would be called the same, the later gets a suffix."""

    def __init__(self, tools: Iterable[str]) -> None:
        self._theirs: dict[str, str] = {}
        self._ours: dict[str, str] = {}
        for tool in tools:
            if tool not in self._theirs:
                name = self._free(tool)
                self._theirs[tool] = name
                self._ours[name] = tool

    def theirs(self, tool: str) -> str:
        """What the provider calls that tool."""
        return self._theirs[tool]

    def ours(self, name: str) -> str:
        """The tool that the provider calls so; a name that nobody gave stays as it is."""
        return self._ours.get(name, name)

    def _free(self, tool: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", tool.replace(".", "__", 1)) or "_"
        if len(name) > LONGEST or name in self._ours:
            suffix = hashlib.sha256(tool.encode(errors="replace")).hexdigest()[:8]
            name = f"{name[: LONGEST - 9]}_{suffix}"
        return name
