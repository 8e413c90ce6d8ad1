"""State: what an agent runner folds of a session: its open turns, and the conversation that a model is shown. Pure."""

from msgspec import Struct, field

from agent_runner.conversation import Conversation
from contracts.events import AnyEvent
from contracts.session import Session


class State(Struct):
    """The fold."""

    session: Session = field(default_factory=Session)
    conversation: Conversation = field(default_factory=Conversation)

    def apply(self, seq: int, event: AnyEvent) -> None:
        """Take in the fact at `seq`."""
        self.session.apply(seq, event)
        self.conversation.apply(seq, event)
