"""Project: `/ws/projects/{project_id}/status`: how far a project's workflows are."""

from contracts.frames import AnyClientFrame
from contracts.subjects import Kind
from edge.dialects.dialect import PASSED_ON, Frame, listens_only, progress


class Project:
    """Needs the project's topic. It remembers nothing."""

    name = "project"
    topics: tuple[Kind, ...] = ("project",)
    shared = True

    def frames(self, event: Frame) -> list[Frame]:
        """One `progress_update`, or nothing."""
        return [progress(event)] if event["type"] == "workflow_progress" else []

    def own(self, frame: Frame) -> list[Frame]:
        """What every dialect passes on."""
        return [frame] if frame["type"] in PASSED_ON else []

    def command(self, data: str | bytes) -> AnyClientFrame:
        """Nothing may be sent. Raises MillraceError `unknown_type`."""
        return listens_only(data)

    def heartbeat(self, timestamp: str) -> Frame | None:
        """The WebSocket's own pings have to do."""
        return None
