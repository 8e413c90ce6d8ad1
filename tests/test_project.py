"""The project's frame: what the documents say is what is there."""

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from broker.settings import PREFIX, Settings
from contracts import events, frames
from contracts.errors import CATALOGUE
from contracts.events import EVENT_TYPES, INTERNAL, Event
from contracts.frames import CLIENT_FRAMES, SERVER_FRAMES

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
WIRE = (ROOT / "docs/wire.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|farm|root|home|Users)/\w")
INDEX = re.compile(r"--(?:extra-)?index-url|pythonhosted|pypi\.(?:org|python)|/simple\b")
ADDED = {"id": "e1", "timestamp": "2026-11-20T12:00:00Z", "session_id": "s1"}
"""What the document leaves out of its examples of events; `cursor` is the edge's."""


def tracked() -> list[Path]:
    """Every file that is, or would be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def tag(struct: type[msgspec.Struct]) -> str:
    """The `type` of a frame or an event."""
    return str(struct.__struct_config__.tag)


def examples() -> dict[str, list[bytes]]:
    """The JSON examples of the wire document, by the title of their section."""
    sections = re.split(r"^##+ ", WIRE, flags=re.MULTILINE)[1:]
    found: dict[str, list[bytes]] = {}
    for section in sections:
        for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL):
            found.setdefault(section.partition("\n")[0], []).extend(block.encode().splitlines())
    return found


@pytest.mark.parametrize("document", DOCUMENTS[:2], ids=lambda path: path.name)
def test_every_make_command_of_the_documents_is_a_target(document: Path) -> None:
    """A newcomer's first command works."""
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", document.read_text(), re.MULTILINE))
    assert named >= {"up", "test"}
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_ci_runs_what_the_readme_says() -> None:
    """Our choice: CI is the developer's commands and nothing else."""
    script = (ROOT / ".ci/run").read_text()
    assert re.search(r"^make check$", script, re.MULTILINE)
    assert re.search(r"^make test\b", script, re.MULTILINE)
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_between_documents_leads_somewhere(document: Path) -> None:
    """Files, and headings of documents."""
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), f"{document.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in headings}, target


def test_every_file_that_the_readme_names_is_there() -> None:
    """The table "to change X, look in Y" is true."""
    table = (ROOT / "README.md").read_text().partition("look in Y")[2].partition("## Words")[0]
    named = set(re.findall(r"`([\w.]+/[\w./]*)`", table))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_no_tracked_file_names_a_machine_or_a_package_index() -> None:
    """A clean clone works anywhere."""
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
        if path.name not in ("Makefile", "LICENSE"):
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in INDEX.finditer(text)]
    assert not found


def test_the_lock_pins_everything_by_hash_and_names_no_address() -> None:
    """What is installed is what was tested, from whatever index pip is set up with."""
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|--index|--find-links| @ ", lock)
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE).strip())
    assert len(entries) > 50
    assert not [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]


def test_the_lock_has_every_dependency() -> None:
    """Nothing is in pyproject.toml that `make` does not install."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values()), *groups["dev"]]
    names = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in wanted}  # type: ignore[index]
    locked = set(
        re.findall(r"^([a-z0-9.-]+)(?:\[[\w,-]+\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    )
    assert names <= locked


def test_the_changelog_tells_of_this_version() -> None:
    """And has a heading for who depends on the wire."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    section = changelog.partition(f"## [{PROJECT['version']}]")[2].partition("\n## [")[0]
    assert "### Wire" in section


@pytest.mark.parametrize("field", Settings.__struct_fields__)
def test_every_setting_is_documented(field: str) -> None:
    """A row in the table of docs/operations.md."""
    assert f"| `{PREFIX}{field.upper()}` |" in (ROOT / "docs/operations.md").read_text()


def test_no_document_names_a_setting_that_is_none() -> None:
    """A misspelt one would be refused."""
    known = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    for document in DOCUMENTS:
        assert set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", document.read_text())) <= known


def test_the_table_of_error_codes_is_the_catalogue() -> None:
    """In both directions."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d*)[^|]*\| (yes|no) \|", WIRE, re.MULTILINE)
    assert rows == [
        (code, str(entry.status), str(entry.close or ""), "yes" if entry.retryable else "no")
        for code, entry in CATALOGUE.items()
    ]


def test_every_type_has_a_row_and_an_example_in_the_wire_document() -> None:
    """Internal events have none: clients never see them."""
    shown = {tag(kind) for kind in (*CLIENT_FRAMES, *SERVER_FRAMES, *EVENT_TYPES)} - INTERNAL
    shown.add("cancel")  # a client's frame; the event of that name is internal
    rows = {
        name
        for cell in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", WIRE, re.MULTILINE)
        for name in re.findall(r"\w+", cell)
    }
    given = {msgspec.json.decode(line)["type"] for lines in examples().values() for line in lines}
    assert shown <= rows
    assert shown == given


def test_the_examples_of_the_wire_document_are_valid() -> None:
    """And name no field that does not exist."""
    by_section = examples()
    sent = by_section.pop("Client to server")
    answered = by_section.pop("Server to client, not from the log")
    for line in sent:
        assert_known(line, frames.client_decoder.decode(line))
    for line in answered:
        assert_known(line, msgspec.json.decode(line, type=frames.AnyServerFrame))
    for lines in by_section.values():
        for line in lines:
            whole = msgspec.json.encode(msgspec.json.decode(line, type=dict[str, object]) | ADDED)
            event = events.decode(whole)
            assert isinstance(event, Event)
            assert_known(whole, event)


def assert_known(line: bytes, decoded: msgspec.Struct) -> None:
    """Every field of the JSON is one of the struct's."""
    assert set(msgspec.json.decode(line)) - {"type"} <= set(decoded.__struct_fields__), line
