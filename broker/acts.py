"""Acts: what a decision may tell a holder to do. Values only, so that deciding stays pure."""

from msgspec import Struct

from contracts.events import AnyEvent


class Settle(Struct, frozen=True):
    """Nothing is left to do for the trigger: ack."""


class Drop(Struct, frozen=True):
    """Somebody else is responsible: settle nothing."""


class Wait(Struct, frozen=True):
    """Nothing can be done until something new comes, or until broker time `until` (Unix seconds)."""

    until: float | None = None


class Put(Struct, frozen=True):
    """Append this fact. `claim`: it claims the trigger for this holder."""

    event: AnyEvent
    claim: bool = False


class Perform(Struct, frozen=True):
    """Do the work itself: run the turn, execute the tool."""


Act = Settle | Drop | Wait | Put | Perform
