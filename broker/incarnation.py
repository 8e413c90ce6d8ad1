"""The log's incarnation: whether appends that were acknowledged may have been lost.

With `sync = "os"` the system writes what was acknowledged to the disk later: it survives the death
of nats-server, but not that of the machine. So the epoch is renewed where the server was not
stopped cleanly and the machine has been started since.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from broker.credentials import write_secret
from broker.settings import Sync

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What changes when the machine starts; empty where that is not told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class _Mark(Struct, frozen=True):
    sync: Sync
    boot: str
    renew: bool


class RunningMark(Struct, frozen=True):
    """A file that exists while a server runs, and that an unclean stop leaves behind."""

    path: Path

    def set(self, sync: Sync, boot: str) -> bool:
        """Call before the server starts. Returns whether the epoch has to be renewed.

        It is asked for again at every start until `renewed` was called.
        """
        renew = self._lossy(boot)
        self._write(_Mark(sync, boot, renew))
        return renew

    def renewed(self) -> None:
        """The epoch is renewed, or did not need to be."""
        if mark := self._read():
            self._write(_Mark(mark.sync, mark.boot, renew=False))

    def clear(self) -> None:
        """The server has stopped cleanly: all that it acknowledged is on the disk."""
        mark = self._read()
        if mark and not mark.renew:
            self.path.unlink()

    def _lossy(self, boot: str) -> bool:
        if not self.path.exists():
            return False
        mark = self._read()
        if mark is None or mark.renew:
            return True
        return mark.sync == "os" and (not boot or mark.boot != boot)

    def _read(self) -> _Mark | None:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Mark)
        except (OSError, msgspec.DecodeError):
            return None

    def _write(self, mark: _Mark) -> None:
        write_secret(self.path, msgspec.json.encode(mark))
