"""Which functions are agents, and what is told of one that cannot be loaded."""

import sys
from pathlib import Path

import pytest

from agent_runner.agents import Agents
from agent_runner.load import load
from agent_runner.prompt import Tool
from contracts.config import Agent, Config, ConfigError

MODULE = """
async def good(turn): ...
async def more(turn, *, also=1): ...
def plain(turn): ...
async def nothing(): ...
async def two(turn, other): ...
value = 3
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that hold agents, good and bad."""
    (tmp_path / "some_agents.py").write_text(MODULE)
    (tmp_path / "broken_agents.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "failing_agents.py").write_text("\n\nraise OSError('no disk\\nhere')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("some_agents", "broken_agents", "failing_agents"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("run", ["some_agents:good", "some_agents:more"])
def test_an_async_function_of_one_argument_is_an_agent(run: str) -> None:
    """Our choice: the turn is all it gets."""
    assert load("a", Agent(run=run)).__name__ == run.partition(":")[2]


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ("some_agents:absent", "has no absent"),
        ("some_agents:plain", "is no `async def`"),
        ("some_agents:value", "is no `async def`"),
        ("some_agents:nothing", "does not take one argument"),
        ("some_agents:two", "does not take one argument"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("broken_agents:f", "broken_agents.py:1"),
        ("failing_agents:f", "OSError: no disk here"),
    ],
)
def test_what_is_no_agent_is_told_in_one_line_that_says_where(run: str, problem: str) -> None:
    """Our choice: a process does not start with an agent that it cannot run."""
    with pytest.raises(ConfigError) as refused:
        load("helper", Agent(run=run))
    text = str(refused.value)
    assert text.startswith(f"agents.helper.run: '{run}'")
    assert problem in text
    assert "\n" not in text


async def nothing(_globs: tuple[str, ...]) -> tuple[Tool, ...]:
    """No tools."""
    return ()


def test_a_process_loads_the_agents_of_its_groups_only() -> None:
    """Our choice: what another process runs may need what is not installed here."""
    table = {"here": Agent(run="some_agents:good"), "there": Agent(run="no_such_module:f", group="cpu")}
    agents = Agents(Config(tenants={}, agents=table, servers={}), nothing)
    agents.load(["default"])
    with pytest.raises(ConfigError):
        agents.load(["default", "cpu"])


def test_a_process_does_not_start_with_a_model_that_it_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our choice: who deploys hears of it, and not whoever asks first. Another group's key need not be here."""
    monkeypatch.delenv("MY_KEY", raising=False)
    model = Agent(model="openai:gpt", api_key_env="MY_KEY", group="paid")
    agents = Agents(Config(tenants={}, agents={"script": Agent(model="script"), "a": model}, servers={}), nothing)
    agents.load(["default"])
    with pytest.raises(
        ConfigError, match=r"^agents\.a: model 'openai:gpt': the environment variable MY_KEY is not set"
    ):
        agents.load(["default", "paid"])
    monkeypatch.setenv("MY_KEY", "sk-1")
    agents.load(["default", "paid"])
