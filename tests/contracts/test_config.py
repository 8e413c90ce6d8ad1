"""The configuration: what a file may say, and how plainly a mistake is named."""

import sys
from pathlib import Path

import pytest

from contracts.config import Agent, ConfigError, Group, Limits, Rule, Tenant, ToolServer, load

FULL = """
[tenants.acme]
[tenants.globex]

[agents.writer]
model = "openai:gpt-5"
base_url = "https://llm.example/v1"
api_key_env = "LLM_KEY"
instructions = "Be brief."
tools = ["files.*", "web.search"]

[agents.porter]
run = "agents.porter:run"

[tools.servers.files]
command = ["files-server", "--root", "/srv"]
env = { TOKEN = "secret" }
trusted = true

[tools.servers.web]
url = "https://user:secret@tools.example/mcp"

[[tools.rules]]
tool = "files.delete"
decision = "ask"
expires = 60

[[tools.rules]]
tool = "web.*"
tenant = "acme"
user = "ann"
decision = "allow"

[limits]
connections_per_session = 0
messages_per_second = 100
frame_bytes = 4096
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "millrace.toml"


def test_a_file_can_say_everything_that_the_reference_lists(file: Path) -> None:
    file.write_text(FULL)
    config = load(file)
    assert config.tenants == {"acme": Tenant(), "globex": Tenant()}
    assert config.agents["writer"] == Agent(
        model="openai:gpt-5",
        base_url="https://llm.example/v1",
        api_key_env="LLM_KEY",
        instructions="Be brief.",
        tools=("files.*", "web.search"),
    )
    assert config.agents["porter"] == Agent(run="agents.porter:run")
    assert config.servers["files"] == ToolServer(
        command=("files-server", "--root", "/srv"), env={"TOKEN": "secret"}, trusted=True
    )
    assert config.servers["web"] == ToolServer(url="https://user:secret@tools.example/mcp")
    assert config.rules == (
        Rule("files.delete", "ask", expires=60),
        Rule("web.*", "allow", tenant="acme", user="ann", expires=300),
    )
    assert config.limits == Limits(0, messages_per_second=100, frame_bytes=4096)
    assert config.default_agent == "writer"


def test_without_a_file_everything_has_its_default() -> None:
    config = load(None, env={"MILLRACE_DEMO_NOTES": "/tmp/notes", "OPENAI_API_KEY": "secret"})
    assert config.tenants == {"dev": Tenant()}
    assert config.agents == {"script": Agent(model="script", tools=("*",))}
    assert config.default_agent == "script"
    assert config.servers["demo"] == ToolServer(
        command=(sys.executable, "-m", "tool_runner.demo"),
        env={"MILLRACE_DEMO_NOTES": "/tmp/notes"},
        trusted=True,
    )
    assert config.rules == ()
    limits = config.limits
    assert limits.connections_per_session == 5
    assert (limits.messages_per_second, limits.messages_burst) == (20, 100)
    assert (limits.handshakes_per_second, limits.handshakes_burst) == (50, 200)
    assert (limits.requests_per_second, limits.requests_burst) == (100, 500)
    assert limits.frame_bytes == 64 * 1024


def test_script_and_demo_exist_unless_the_file_says_otherwise(file: Path) -> None:
    file.write_text('[agents.writer]\nmodel = "openai:gpt-5"')
    config = load(file)
    assert list(config.agents) == ["writer", "script"]
    assert list(config.servers) == ["demo"]
    file.write_text("demo = false")
    config = load(file)
    assert (config.agents, config.servers) == ({}, {})


def test_what_a_file_says_of_script_and_demo_is_kept(file: Path) -> None:
    file.write_text(
        '[agents.script]\nmodel = "script"\ninstructions = "mine"\n[tools.servers.demo]\nurl = "http://localhost:1/mcp"'
    )
    config = load(file)
    assert config.agents == {"script": Agent(model="script", instructions="mine")}
    assert config.servers == {"demo": ToolServer(url="http://localhost:1/mcp")}


def test_groups_are_those_of_the_agents_and_the_default_one(file: Path) -> None:
    file.write_text('[agents.a]\nrun = "a:b"\ngroup = "cpu"\n[agents.b]\nrun = "a:c"\ngroup = "gpu"\npolicy = "steer"')
    config = load(file)
    assert config.groups == {"default": Group(), "cpu": Group(), "gpu": Group()}
    assert load(None).groups == {"default": Group()}
    assert [config.agent(name).group for name in ("b", None, "script", "unknown")] == [
        "gpu",
        "cpu",
        "default",
        "default",
    ]
    assert [config.agent(name).policy for name in ("b", "a", "unknown")] == ["steer", "enqueue", "enqueue"]


def test_a_group_may_limit_its_turns_and_keep_them_for_longer(file: Path) -> None:
    file.write_text(AGENT + 'group = "cpu"\n[groups.cpu]\nturns = 1\nack_wait = 60\n[groups.default]\nturns = 500')
    config = load(file)
    assert config.groups == {"default": Group(turns=500), "cpu": Group(turns=1, ack_wait=60)}
    assert config.ack_waits == {"cpu": 60}


def test_a_server_hides_what_may_be_secret(file: Path) -> None:
    file.write_text(FULL)
    assert "secret" not in repr(load(file))


AGENT = '[agents.bob]\nmodel = "script"\n'
SERVER = '[tools.servers.web]\nurl = "http://localhost/"\n'
RULE = '[[tools.rules]]\ntool = "*"\ndecision = "ask"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("demo = maybe\n", "line 1", id="TOML syntax"),
        pytest.param("[agent.bob]", "agent", id="unknown section"),
        pytest.param(AGENT + "modle = 1", "agents.bob.modle", id="unknown key"),
        pytest.param(AGENT + "instructions = 1", "agents.bob.instructions", id="wrong type"),
        pytest.param(AGENT + 'tools = ["a", 1]', "agents.bob.tools[1]", id="wrong type in a list"),
        pytest.param(AGENT + 'run = "a:b"', "agents.bob", id="model and run"),
        pytest.param("[agents.bob]", "agents.bob", id="neither model nor run"),
        pytest.param('[agents.bob]\nmodel = "gpt"', "agents.bob", id="model without provider"),
        pytest.param('[agents.bob]\nrun = "a.b"', "agents.bob", id="run without function"),
        pytest.param("agents = 1", "agents", id="not a table"),
        pytest.param("[agents]\nbob = 1", "agents.bob", id="not a table below"),
        pytest.param('[agents."a.b"]\nmodel = "script"', "agents.'a.b'", id="agent's name"),
        pytest.param('[tenants."a*"]', "tenants.'a*'", id="tenant's name"),
        pytest.param('[tenants."a\\nb"]', "tenants.'a\\nb'", id="line break in a name"),
        pytest.param("[tenants.acme]\nplan = 1", "tenants.acme.plan", id="tenant's key"),
        pytest.param('[tools.servers."a.b"]', "tools.servers.'a.b'", id="server's name"),
        pytest.param(SERVER + 'command = ["x"]', "tools.servers.web", id="command and url"),
        pytest.param("[tools.servers.web]", "tools.servers.web", id="neither command nor url"),
        pytest.param(SERVER + "env = { A = 'b' }", "tools.servers.web", id="env of a url"),
        pytest.param("[tools.servers.a]\ncommand = []", "tools.servers.a", id="empty command"),
        pytest.param("[tools.servers.a]\nurl = 'ftp://x'", "tools.servers.a", id="not http"),
        pytest.param("[tools.server.a]", "tools.server", id="unknown table of tools"),
        pytest.param(RULE + "expires = 0", "tools.rules[0].expires", id="expires at once"),
        pytest.param(RULE + "expires = inf", "tools.rules[0].expires", id="never expires"),
        pytest.param(RULE + RULE.replace("ask", "maybe"), "tools.rules[1].decision", id="decision"),
        pytest.param("[[tools.rules]]\ntool = '*'", "tools.rules[0]", id="rule without decision"),
        pytest.param("[limits]\nframe_bytes = -1", "limits.frame_bytes", id="negative limit"),
        pytest.param("[limits]\nframes = 1", "limits.frames", id="unknown limit"),
        pytest.param(AGENT + 'group = "a.b"', "agents.bob", id="group's name"),
        pytest.param("[groups.cpu]", "groups.cpu", id="group without an agent"),
        pytest.param("[groups.default]\nturns = 0", "groups.default.turns", id="group without a turn"),
        pytest.param("[groups.default]\nack_wait = 0.01", "groups.default.ack_wait", id="group in a hurry"),
        pytest.param("[groups.default]\nturn = 1", "groups.default.turn", id="group's key"),
        pytest.param(AGENT + 'policy = "queue"', "agents.bob.policy", id="policy"),
        pytest.param("demo = 1", "demo", id="demo is no boolean"),
    ],
)
def test_a_mistake_is_named_in_one_line_with_file_and_place(file: Path, text: str, place: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert place in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"millrace\.toml"):
        load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"millrace\.toml"):
        load(str(file))
    with pytest.raises(ConfigError, match=str(file.parent)):
        load(file.parent)
