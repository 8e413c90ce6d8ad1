"""The log's incarnation: when acknowledged appends may be lost, the epoch is renewed."""

from pathlib import Path

import pytest

from broker.incarnation import RunningMark, boot_id
from broker.settings import Sync


@pytest.fixture
def mark(tmp_path: Path) -> RunningMark:
    """A mark of a data directory in which nothing has run yet."""
    return RunningMark(tmp_path / "running")


def test_the_first_start_renews_nothing(mark: RunningMark) -> None:
    """DESIGN 2, cursor and epoch."""
    assert not mark.set("os", "boot 1")


def test_a_clean_stop_leaves_no_doubt(mark: RunningMark) -> None:
    """DESIGN 2: whatever the sync setting and the machine."""
    mark.set("os", "boot 1")
    mark.clear()
    assert not mark.set("os", "boot 2")


def test_a_killed_server_on_a_running_machine_loses_nothing(mark: RunningMark) -> None:
    """FACTS 1.8: what was acknowledged is in the system's hands."""
    mark.set("os", "boot 1")
    assert not mark.set("os", "boot 1")


@pytest.mark.parametrize(("sync", "renew"), [("os", True), ("always", False)])
def test_a_machine_that_went_down_with_the_server_may_have_lost_what_was_not_synced(
    mark: RunningMark, sync: Sync, renew: bool
) -> None:
    """DESIGN 2: renewed after an unclean start without `sync_interval: always`."""
    mark.set(sync, "boot 1")
    assert mark.set(sync, "boot 2") is renew


def test_the_setting_of_the_run_that_ended_counts_not_of_the_one_that_begins(
    mark: RunningMark,
) -> None:
    """Our choice: turning sync on does not bring back what was lost without it."""
    mark.set("os", "boot 1")
    assert mark.set("always", "boot 2")


def test_a_machine_that_does_not_tell_its_boots_is_not_trusted(mark: RunningMark) -> None:
    """Our choice: where it is unknown, cursors are given up."""
    mark.set("os", "")
    assert mark.set("os", "")


def test_a_renewal_is_asked_for_until_it_has_happened(mark: RunningMark) -> None:
    """Our choice: a start that fails half-way, or is stopped, does not forget it."""
    mark.set("os", "boot 1")
    assert mark.set("os", "boot 2")
    assert mark.set("os", "boot 2")
    mark.clear()
    assert mark.set("os", "boot 2")
    mark.renewed()
    assert not mark.set("os", "boot 2")


def test_a_mark_that_cannot_be_read_renews(mark: RunningMark) -> None:
    """Our choice: where it is unknown, cursors are given up."""
    mark.path.write_bytes(b"{")
    assert mark.set("always", "boot 1")


def test_this_machine_tells_its_boots() -> None:
    """Linux does."""
    assert boot_id() == boot_id() != ""
