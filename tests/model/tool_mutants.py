"""Tool mutants: what a tool call's holder decides, with one rule broken."""

from msgspec.structs import replace as changed

from broker.acts import Act
from contracts.session import Session
from tool_runner import decide as tool

MANY = 10**9

_tool = tool.decide


def newcomer_claims(session: Session, holding: tool.Holding, now: float) -> Act:
    """A start that is newer than the first look is taken for an older one."""
    joined = holding.joined if holding.claim else MANY
    return _tool(session, changed(holding, joined=joined), now)


def ended_first(session: Session, holding: tool.Holding, now: float) -> Act:
    """Whether the turn has ended is asked before whether the call was started."""
    call = session.calls.get(holding.call_id)
    if call and session.over(call) and not holding.claim:
        session = changed(session, calls={holding.call_id: changed(call, started=0)})
    return _tool(session, holding, now)


def restart_cancels(session: Session, holding: tool.Holding, now: float) -> Act:
    """Who starts a call again forgets that it was started before."""
    return _tool(session, changed(holding, joined=0) if holding.claim else holding, now)


def runs_again(session: Session, holding: tool.Holding, now: float) -> Act:
    """A tool is taken for one that may run twice."""
    permit = changed(holding.permit, repeatable=True)
    return _tool(session, changed(holding, permit=permit), now)


def asks_nobody(session: Session, holding: tool.Holding, now: float) -> Act:
    """A tool that a person is to be asked about is started."""
    permit = changed(holding.permit, decision="allow")
    return _tool(session, changed(holding, permit=permit), now)


def late_executes(session: Session, holding: tool.Holding, now: float) -> Act:
    """Who comes too late executes all the same."""
    return _tool(session, changed(holding, late=False), now)


def starts_without_end(session: Session, holding: tool.Holding, now: float) -> Act:
    """There is no limit of executions."""
    return _tool(session, changed(holding, limit=MANY), now)
