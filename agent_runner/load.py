"""Loading: the Python function that an agent's `run = "module:function"` names."""

import importlib
import inspect
import traceback
from collections.abc import Awaitable, Callable

from agent_runner.turn import Turn
from contracts.config import Agent, ConfigError

Function = Callable[[Turn], Awaitable[None]]


def load(name: str, agent: Agent) -> Function:
    """The function. Imports its module, which may do anything. Raises ConfigError: one line that says where."""
    module_name, _, function_name = str(agent.run).partition(":")
    where = f"agents.{name}.run: {agent.run!r}"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        raise ConfigError(f"{where} cannot be imported: {' '.join(text.split())}") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ConfigError(f"{where}: the module has no {function_name}")
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(f"{where} is no `async def`")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise ConfigError(f"{where} does not take one argument, the turn") from None
    return function  # type: ignore[no-any-return]
