"""The chat page in a real browser: it survives a reload and the restart of any service without losing a word."""

import json

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.harness.client import http, joined
from tests.harness.system import System

pytestmark = pytest.mark.anyio

LONG = [{"stream": {"deltas": 150, "interval_ms": 20, "size": 12}}]


async def opened(browser: Browser, system: System, user: str = "ann") -> Page:
    """The page with a new session, connected."""
    page = await browser.new_page()
    await page.goto(f"{system.edge}/#token={system.token(user=user)}")
    await page.get_by_test_id("new-session").click()
    await online(page)
    return page


async def online(page: Page) -> None:
    """Wait until the page is connected."""
    await expect(page.get_by_test_id("status")).to_have_attribute("data-state", "online", timeout=20_000)


async def say(page: Page, content: object) -> None:
    """Type and send."""
    await page.get_by_test_id("input").fill(content if isinstance(content, str) else json.dumps(content))
    await page.get_by_test_id("send").click()


def answers(page: Page) -> Locator:
    """The texts of the agent's answers."""
    return page.locator('[data-testid="message"][data-role="assistant"] .content')


async def whole(page: Page, system: System) -> str:
    """The last answer as the log has it, once its turn has ended."""
    session_id = page.url.partition("session=")[2]
    async with joined(system.edge, session_id, system.token(), after="0") as client:
        while len(client.of("turn_end")) < len(client.of("message")):
            await client.receive()
        content: str = client.of("stream_end")[-1]["content"]
        return content


async def test_a_person_talks_and_is_answered(browser: Browser, running: System) -> None:
    """Streaming, progress, an external event, and no script error or blocked resource."""
    page = await opened(browser, running)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await say(page, "hello big world")
    await expect(answers(page).last).to_have_text("hello big world")
    await say(page, [{"workflow": {"id": "w", "steps": ["a", "b"]}}, {"say": "<b>not markup</b>"}])
    await expect(answers(page).last).to_have_text("<b>not markup</b>")
    await expect(page.get_by_test_id("workflow")).to_have_attribute("data-progress", "1")
    session_id = page.url.partition("session=")[2]
    client = await running.nats.tenant_client("acme")
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "ci", "ce-type": "build.done"}
    headers["ce-sessionid"] = session_id
    await client.jetstream().publish("ingest.acme.ci.build.done", b'{"green":true}', headers=headers)
    await client.close()
    await expect(page.get_by_test_id("event")).to_contain_text("build.done")
    assert problems == []
    assert "token" not in page.url
    await page.close()


async def test_a_person_approves_one_tool_and_rejects_another(browser: Browser, running: System) -> None:
    """The card shows the arguments; the tool runs only after the click."""
    page = await opened(browser, running)
    await say(page, [{"tool": "demo.note", "arguments": {"text": text}} for text in ("approved", "rejected")])
    await expect(page.get_by_test_id("tool").first).to_contain_text("approved")
    assert running.notes == []
    await page.get_by_test_id("approve").click()
    await expect(page.get_by_test_id("tool").first).to_have_attribute("data-status", "completed")
    await page.get_by_test_id("reject").click()
    await expect(page.get_by_test_id("tool").last).to_have_attribute("data-status", "rejected")
    assert running.notes == ["approved"]
    await page.close()


async def test_a_person_cancels(browser: Browser, running: System) -> None:
    """The partial answer stays, and the session goes on."""
    page = await opened(browser, running)
    await say(page, [{"stream": {"deltas": 100_000, "interval_ms": 20, "size": 12}}])
    await expect(answers(page).last).to_contain_text("5 ")
    await page.get_by_test_id("cancel").click()
    await expect(page.get_by_test_id("cancel")).to_be_disabled()
    await say(page, "next")
    await expect(answers(page).last).to_have_text("next")
    assert await answers(page).count() == 2
    await page.close()


async def test_a_reload_in_mid_stream_loses_and_repeats_nothing(browser: Browser, running: System) -> None:
    """The session is in the address; the snapshot has the text so far."""
    page = await opened(browser, running)
    await say(page, LONG)
    await expect(answers(page).last).to_contain_text("9 ")
    await page.reload()
    await online(page)
    await expect(answers(page).last).to_have_text(await whole(page, running), timeout=20_000)
    assert await answers(page).count() == 1
    await page.close()


@pytest.mark.parametrize("name", ["edge", "agent_runner", "nats"])
async def test_the_death_of_a_service_in_mid_stream_loses_and_repeats_nothing(
    browser: Browser, running: System, name: str
) -> None:
    """Whatever dies, the page shows what the log says, once."""
    page = await opened(browser, running)
    await say(page, LONG)
    await expect(answers(page).last).to_contain_text("9 ")
    if name == "nats":
        await running.nats.kill()
        await running.nats.start()
    else:
        await running[name].restart()
        await running[name].ready()
    await online(page)
    await expect(page.get_by_test_id("cancel")).to_be_disabled(timeout=30_000)
    expected = await whole(page, running)
    await expect(answers(page).last).to_have_text(expected, timeout=20_000)
    assert await answers(page).count() == 1
    await say(page, "still here")
    await expect(answers(page).last).to_have_text("still here", timeout=20_000)
    await page.close()


async def test_a_message_sent_while_the_edge_is_away_is_sent_when_it_is_back(browser: Browser, running: System) -> None:
    """The page keeps what is not acknowledged, and the same id never makes a second turn."""
    page = await opened(browser, running)
    await running["edge"].kill()
    await expect(page.get_by_test_id("status")).not_to_have_attribute("data-state", "online")
    await say(page, "from the dark")
    await running["edge"].start()
    await running["edge"].ready()
    await expect(answers(page).last).to_have_text("from the dark", timeout=30_000)
    assert await answers(page).count() == 1
    listed = await http("GET", f"{running.edge}/api/v1/sessions", token=running.token())
    assert len(listed.json["items"]) == 1
    await page.close()
