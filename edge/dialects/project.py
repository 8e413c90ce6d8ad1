"""Project: `/ws/projects/{project_id}/status`: how far a project's workflows are."""

from contracts.frames import AnyClientFrame
from contracts.subjects import Kind
from edge.dialects.dialect import PASSED_ON, Frame, progress, sign_of_life


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
        """Only signs of life may be sent. Raises MillraceError."""
        return sign_of_life(data)

    def heartbeat(self, timestamp: str) -> Frame | None:
        """The WebSocket's own pings have to do."""
        return None
