"""Fold mutants: what the log amounts to, with one rule broken."""

from contracts import events
from contracts.events import AnyEvent
from contracts.session import Call, Session

_apply, _over = Session.apply, Session.over


def cancel_is_no_end(session: Session, call: Call) -> bool:
    """A call whose turn is to be stopped may be started."""
    return call.call.reply_to not in session.turns


def cancels_the_first_call(session: Session, call: Call) -> bool:
    """Of the calls of a turn that is to be stopped only the first is stopped."""
    turn = session.turns.get(call.call.reply_to)
    return _over(session, call) and (turn is None or call.call.tool_call_id == next(iter(turn.calls)))


def forgets_the_receipt(session: Session, seq: int, event: AnyEvent) -> None:
    """A steer that was told that it came too late is not known to have been told."""
    if not isinstance(event, events.SteerMissed):
        _apply(session, seq, event)


def aims_at_nothing(session: Session, seq: int, event: AnyEvent) -> None:
    """A steer that comes while no turn is open is one that comes too late."""
    alone = not session.turns
    _apply(session, seq, event)
    if alone and isinstance(event, events.Message) and event.policy == "steer":
        session.turns[event.message_id].aim = event.message_id


def counts_the_handover(session: Session, seq: int, event: AnyEvent) -> None:
    """An attempt that was handed over is one that has failed."""
    if not isinstance(event, events.TurnRelease):
        _apply(session, seq, event)


def counts_who_waits(session: Session, seq: int, event: AnyEvent) -> None:
    """An attempt that died while it only waited is one that has failed."""
    if not isinstance(event, events.AgentStatus):
        _apply(session, seq, event)


def counts_until_it_waits(session: Session, seq: int, event: AnyEvent) -> None:
    """An attempt that died before it came to wait again is one that has failed."""
    waiting = [turn for turn in session.turns.values() if turn.waiting]
    _apply(session, seq, event)
    if isinstance(event, events.TurnStart):
        for turn in waiting:
            turn.failures += 1


def excuses_who_goes_on(session: Session, seq: int, event: AnyEvent) -> None:
    """A turn that has waited may die as often as it likes."""
    rested = [m for m, turn in session.turns.items() if turn.waiting]
    _apply(session, seq, event)
    for m in rested:
        if m in session.turns:
            session.turns[m].waiting = True


def interrupts_only_the_first(session: Session, seq: int, event: AnyEvent) -> None:
    """An interrupt stops the turn that runs and not what waits behind it."""
    first, before = session.first, {m for m, turn in session.turns.items() if turn.stopping}
    _apply(session, seq, event)
    if isinstance(event, events.Message) and event.policy == "interrupt":
        for m, turn in session.turns.items():
            turn.stopping = m == first or m in before


def interrupts_itself(session: Session, seq: int, event: AnyEvent) -> None:
    """An interrupt stops every open turn, its own too."""
    _apply(session, seq, event)
    if isinstance(event, events.Message) and event.policy == "interrupt":
        session.turns[event.message_id].stopping = True


def one_result_for_all(session: Session, seq: int, event: AnyEvent) -> None:
    """The first result of a turn's calls is that of all of them."""
    _apply(session, seq, event)
    if isinstance(event, events.ToolResult):
        for turn in session.turns.values():
            turn.calls.update(dict.fromkeys(turn.calls, event))


def one_start_for_all(session: Session, seq: int, event: AnyEvent) -> None:
    """A call counts as started where another one of its turn is."""
    _apply(session, seq, event)
    if isinstance(event, events.ToolStarted):
        for call in session.calls.values():
            call.started = seq


def knows_the_last_call(session: Session, seq: int, event: AnyEvent) -> None:
    """Of the calls of a turn only the last is found again."""
    _apply(session, seq, event)
    if isinstance(event, events.ToolCall):
        for turn in session.turns.values():
            turn.calls = {name: turn.calls[name] for name in [*turn.calls][-1:]}


def forgets_open_calls(session: Session, seq: int, event: AnyEvent) -> None:
    """When a turn ends, its calls are gone, also those without a result."""
    _apply(session, seq, event)
    if isinstance(event, events.TurnEnd):
        session.calls.clear()
