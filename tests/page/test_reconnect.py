"""When the chat page comes back after its edge has told it to, by the browser's own clock."""

import pytest
from playwright.async_api import Browser, Page, WebSocketRoute, expect

from tests.harness.system import System
from tests.harness.wait import until
from tests.page.test_page import online

pytestmark = pytest.mark.anyio


class Counted:
    """Passes the page's sockets on to the edge, counts them, and can end the newest as a stopping edge does."""

    def __init__(self) -> None:
        self.opened: list[WebSocketRoute] = []

    def __call__(self, route: WebSocketRoute) -> None:
        self.opened.append(route)
        route.connect_to_server()

    async def stop(self, reconnect_after: float) -> None:
        """The last frame, and the close."""
        self.opened[-1].send(f'{{"type":"reconnect","reconnect_after":{reconnect_after},"reason":"restarting"}}')
        await self.opened[-1].close(code=1012, reason="restarting")


async def _offline(page: Page) -> None:
    await expect(page.get_by_test_id("status")).not_to_have_attribute("data-state", "online")


async def test_the_page_comes_back_when_the_edge_asked_for_it(browser: Browser, running: System) -> None:
    """WIRE: `reconnect_after` spreads the clients of an edge that stops; once, and then its own pauses hold again."""
    page, counted = await browser.new_page(), Counted()
    await page.clock.install()
    await page.route_web_socket("**/ws?*", counted)
    await page.goto(f"{running.edge}/#token={running.token()}")
    await page.get_by_test_id("new-session").click()
    await online(page)
    number = len(counted.opened)
    await counted.stop(45.0)
    await _offline(page)
    await page.clock.run_for(44_000)
    assert len(counted.opened) == number
    await page.clock.run_for(1_500)
    await until(lambda: len(counted.opened) == number + 1)
    await online(page)
    await counted.opened[-1].close(code=1012)
    await _offline(page)
    await page.clock.run_for(1_500)
    await until(lambda: len(counted.opened) == number + 2)
    await page.close()
