"""Turn: what an agent may do while its turn runs. Everything it says is a fact; what is recorded is not done again.

An agent in Python is a function:

    async def agent(turn: Turn) -> None:
        found = await turn.step("search", lambda: search(turn.message.content))
        await turn.say(f"{len(found)} pages")

It may be run again from its beginning: after a crash, a deployment, a pause. Then `say`, `call` and `step` return at
once what an earlier attempt recorded, so nothing is said, called or done twice. Between them the code must come to
the same calls in the same order again; what it reads from elsewhere (clock, network, chance) belongs into a step.

Once the turn is to end (cancelled, interrupted, overdue, taken over by another process, the process stops), whatever
is awaited raises `asyncio.CancelledError`. Clean up and let it through; nothing more can be said then.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from agent_runner import decide, step
from agent_runner.answer import Answer, json_bytes
from agent_runner.journal import ROOM, Journal, Mismatch
from agent_runner.model import Piece, Said
from agent_runner.prompt import RESPONSE, Entry, Use
from broker import telemetry
from contracts import events
from contracts.depth import is_too_deep
from contracts.errors import Code, MillraceError
from contracts.session import Steer

Text = str | AsyncIterable[str] | AsyncIterator[Piece | Said]


class Turn:
    """One attempt at one turn."""

    def __init__(self, journal: Journal) -> None:
        self.message = copy.deepcopy(journal.turn.message)
        """What is to be answered. Its `message_id` is a good prefix for idempotency keys: it stays the same."""
        self._journal = journal
        self._answering = asyncio.Lock()
        self._speaking: set[asyncio.Task[Any] | None] = set()
        self._steers: set[str] = set()

    @property
    def cancelled(self) -> bool:
        """Whether the turn is to end: for code that computes for long without awaiting anything."""
        journal = self._journal
        if journal.ending is None and not journal.wanted:
            journal.interrupt()  # the agent knows: what it leaves out now is for a later attempt
        return journal.ending is not None or journal.interrupted

    def conversation(self) -> Sequence[Entry]:
        """What was said in the session up to now, as far as the agent's `context_tokens` go."""
        agent, state = self._journal.agent, self._journal.hold.state
        return state.conversation.prompt(self.message.message_id, "", agent.context_tokens).entries

    async def say(self, text: Text, *, closes: bool = False) -> str:
        """Stream one answer and record it; empty text is none. Returns the whole text.

        An async iterator is streamed as it comes; where an earlier attempt has recorded the answer it is not
        begun. `closes`: a tool call follows. Raises MillraceError `turn_limit`, RuntimeError within what another
        `say` streams.
        """
        if asyncio.current_task() in self._speaking:
            raise RuntimeError("an answer within an answer")
        answer = Answer(self._journal, await self._journal.next("an answer"))
        if recorded := answer.recorded:
            self._journal.spend("bytes", json_bytes(recorded.content, recorded.thinking))
            self._journal.seen += 1
            self._journal.used(recorded.usage)
            return recorded.content
        async with self._answering:
            async with self._journal.working(), self._speaks():
                said = await answer.stream(_pieces(text, Said("tool_call" if closes else "stop")))
            if not answer.is_open:
                return ""
            await answer.end(said)
        self._journal.seen += 1
        self._journal.used(said.usage)
        return answer.text

    @asynccontextmanager
    async def _speaks(self) -> AsyncIterator[None]:
        task = asyncio.current_task()
        self._speaking.add(task)
        try:
            yield
        finally:
            self._speaking.discard(task)

    async def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do `work` and record what it returns: no later attempt does it again.

        What it returns must be what JSON holds, and is returned as JSON gives it back. A plain function is run in a
        thread. What it raises is raised and not recorded. Where the process dies between the work and the record
        it is done once more: give outside effects an idempotency key. Within it nothing is said or called, and no other
        step is done. Raises TypeError or ValueError for what cannot be recorded, MillraceError `turn_limit`.
        """
        await self._journal.check()
        if not isinstance(name, str):
            raise TypeError(f"a step's name is a text, not {name!r}")
        if not name or name == RESPONSE:
            raise ValueError(f"a step needs a name of its own, not {name!r}")
        place = await self._journal.next(f"the step {name!r}")
        self._journal.spend("steps")
        if recorded := self._journal.turn.steps.get(place):
            encoded = msgspec.json.encode(recorded.result)
            self._journal.spend("bytes", len(encoded))
            self._journal.seen += 1
            return msgspec.json.decode(encoded)  # the agent's own: what is recorded stays as it is
        async with self._journal.working():
            result = await step.do(name, work)
        return await self._record(name, place, result)

    async def _record(self, name: str, place: int, result: Any) -> Any:
        try:
            encoded = msgspec.json.encode(result)
            result = msgspec.json.decode(encoded)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"the step {name!r} returned what JSON does not hold: {error}") from None
        most = self._journal.hold.broker.max_event_bytes - ROOM
        if len(encoded) > most or is_too_deep(result):
            raise ValueError(f"the step {name!r} returned {len(encoded)} bytes, or too deep: {most} at most")
        self._journal.spend("bytes", len(encoded))
        await self._journal.put(events.Step(**self._journal.reply, name=name, place=place, result=result))
        self._journal.seen += 1
        return msgspec.json.decode(encoded)

    async def call(self, tool: str, arguments: dict[str, Any]) -> events.ToolResult:
        """Have a tool run, and wait for its result, whatever it is, however long a person takes to decide.

        An earlier attempt's call is found again, not repeated. Raises TypeError for arguments that are no dict of what
        JSON holds, ValueError where they are nested too deeply, MillraceError `tool_denied` for a tool that the agent's
        `tools` do not name, `turn_limit`.
        """
        return await self._result(await self._begin(tool, arguments))

    async def call_all(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[events.ToolResult]:
        """Have tools run side by side, and wait for all their results, in the order of the calls."""
        return await self.results([await self._begin(tool, arguments) for tool, arguments in calls])

    async def results(self, call_ids: Sequence[str]) -> list[events.ToolResult]:
        """Wait for the results of those calls."""
        return [await self._result(call_id) for call_id in call_ids]

    async def _begin(self, tool: str, arguments: dict[str, Any]) -> str:
        journal = self._journal
        await journal.check()
        if is_too_deep(arguments) or is_too_deep(arguments := _plain(arguments)):
            raise ValueError("arguments that are nested too deeply")
        if not self.may_call(tool):
            raise MillraceError(Code.TOOL_DENIED, f"the agent {journal.name} may not call {tool}: see its `tools`")
        call_id = journal.id("c", await journal.next(f"the call of {tool}"))
        journal.spend("calls")
        if call_id in journal.turn.calls:
            recorded = journal.session.calls[call_id].call.arguments
            if msgspec.json.encode(recorded, order="sorted") != msgspec.json.encode(arguments, order="sorted"):
                journal.end(Mismatch(journal.place, f"the call of {tool}", "other arguments"))
        else:
            attributes = {"gen_ai.tool.name": tool, "gen_ai.tool.call.id": call_id}
            with telemetry.tracer.start_as_current_span("tool_call", attributes=attributes):
                call = events.ToolCall(**journal.reply, tool_call_id=call_id, tool=tool, arguments=arguments)
                await journal.put(call, telemetry.inject({}))
        journal.seen += 1
        return call_id

    async def begin(self, use: Use) -> str | None:
        """Make a model's call, unless it was refused: then it only has its place."""
        if use.refused is None:
            return await self._begin(use.tool, use.arguments)
        await self._journal.next(f"the call of {use.tool}")
        return None

    async def _result(self, call_id: str) -> events.ToolResult:
        journal = self._journal
        await journal.check()
        call = journal.session.calls.get(call_id)
        if journal.turn.calls[call_id] is None and call:
            await journal.status("waiting_tool", tool=call.call.tool)
        asked = False
        while (result := journal.turn.calls[call_id]) is None:
            call = journal.session.calls[call_id]
            if call.request and not call.decision and not asked:
                asked = True
                await journal.status("waiting_approval", tool=call.call.tool)
                continue
            with journal.waiting():
                await journal.hold.folded()
            await journal.check()
        await journal.go_on()
        return msgspec.structs.replace(result, result=copy.deepcopy(result.result))

    def may_call(self, tool: str) -> bool:
        """Whether the agent's `tools` name that tool."""
        agent = self._journal.agent
        globs = agent.tools or (("*",) if agent.model == "script" else ())
        return any(fnmatchcase(tool, glob) for glob in globs)

    async def progress(
        self,
        step: str,
        progress: float,
        *,
        workflow_id: str | None = None,
        completed: int | None = None,
        total: int | None = None,
    ) -> None:
        """Report how far a workflow is, from 0 to 1; what is not further than what was reported is left out.

        `workflow_id` is the message's id by default. Raises ValueError for a `progress` that is not from 0 to 1,
        MillraceError `turn_limit`.
        """
        await self._journal.check()
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is from 0 to 1, not {progress}")
        self._journal.spend("steps")
        workflow_id = workflow_id or self.message.message_id
        last = self._journal.turn.workflows.get(workflow_id)
        if last and last.progress >= progress:
            return
        event = events.WorkflowProgress(
            **self._journal.base,
            workflow_id=workflow_id,
            step=step,
            progress=progress,
            completed=completed,
            total=total,
        )
        await self._journal.put(event, lane="agent")

    async def steers(self) -> list[events.Message]:
        """The messages that steer this turn and came since the last look, which ends their own turns.

        One that no look finds is answered as a turn of its own.
        """
        return [copy.deepcopy(steer.message) for steer in await self._taken_in()]

    async def boundary(self) -> bool:
        """As `steers`: whether there is one."""
        return bool(await self._taken_in())

    async def _taken_in(self) -> list[Steer]:
        journal = self._journal
        await journal.check()
        replaying = journal.seen < journal.turn.recorded
        while not replaying and (put := decide.steer(journal.session, journal.holding)):
            await journal.hold.append(put.event)
            await journal.check()
        steered = journal.turn.steered
        new = [name for name, steer in steered.items() if steer.after <= journal.seen and name not in self._steers]
        self._steers.update(new)
        return [steered[name] for name in new]


async def _pieces(text: Text, said: Said) -> AsyncGenerator[Piece | Said]:
    yield said
    if isinstance(text, str):
        yield Piece(text)
        return
    try:
        async for piece in text:
            yield Piece(piece) if isinstance(piece, str) else piece
    finally:
        if close := getattr(text, "aclose", None):
            await close()


def _plain(arguments: object) -> dict[str, Any]:
    """A copy as the log gives it back, in the same order in every process. Raises TypeError."""
    try:
        plain = msgspec.json.decode(msgspec.json.encode(arguments))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"arguments that JSON does not hold: {error}") from None
    in_order = msgspec.to_builtins(arguments, str_keys=True, order="deterministic")
    in_order = msgspec.json.decode(msgspec.json.encode(in_order))
    if not isinstance(plain, dict):
        raise TypeError(f"the arguments of a call are a dict, not {arguments!r:.80}")
    return plain if plain == in_order else in_order  # there is a set in it
