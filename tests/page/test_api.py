"""The page of the REST interface in a real browser: it shows every operation of an OpenAPI document, by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
import pytest
import uvicorn
from litestar import Litestar, MediaType, Response, delete, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.static_files import create_static_files_router
from playwright.async_api import Browser, Page, expect

from edge.app import PAGE, SECURITY
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


class Part(msgspec.Struct):
    """A part of an order."""

    name: Annotated[str, msgspec.Meta(max_length=64, pattern="^[a-z]+$")]
    parent: "Part | None" = None


class Order(msgspec.Struct):
    """What somebody wants."""

    parts: list[Part]
    state: Literal["open", "closed"]
    note: str | None = None
    extra: dict[str, Any] = {}


@get("/docs", include_in_schema=False)
async def page() -> Response[bytes]:
    """As the edge serves it."""
    return Response((PAGE / "api.html").read_bytes(), media_type=MediaType.HTML)


@get("/orders", tags=["orders"], summary="List orders")
async def list_orders(limit: Annotated[int, QueryParameter(ge=1, le=200, description="At most.")] = 50) -> list[Order]:
    """Newest first."""
    return []


@post("/orders", tags=["orders"])
async def create_order(data: JSONBody[Order]) -> Order:
    """Create an <b>order</b>."""
    return data


@get("/orders/{order_id:str}", tags=["orders"])
async def get_order(order_id: FromPath[str]) -> Order | None:
    """Look at one."""
    return None


@delete("/parts/{part_id:int}")
async def delete_part(part_id: FromPath[int]) -> None:
    """Forget one."""


SHOWN = ["GET /orders", "POST /orders", "GET /orders/{order_id}", "DELETE /parts/{part_id}"]


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """A small application with the edge's page and its security headers; the address."""
    app = Litestar(
        [
            page,
            list_orders,
            create_order,
            get_order,
            delete_part,
            create_static_files_router("/page", directories=[PAGE]),
        ],
        response_headers=[ResponseHeader(name=name, value=value) for name, value in SECURITY.items()],
        openapi_config=OpenAPIConfig(
            title="Orders",
            version="7",
            use_handler_docstrings=True,
            path="/api/v1",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        ),
        logging_config=None,
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def opened(browser: Browser, at: str = "/docs") -> AsyncIterator[tuple[Page, str, list[str], list[str]]]:
    """The page; the address of its server, what it requested, and what it complained about."""
    async with served() as address:
        tab = await browser.new_page()
        requested: list[str] = []
        complaints: list[str] = []
        tab.on("request", lambda request: requested.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        await tab.goto(address + at)
        yield tab, address, requested, complaints
        await tab.close()


async def test_the_page_shows_every_operation(browser: Browser) -> None:
    """With its parameters, bodies and answers, errors among them."""
    async with opened(browser) as (tab, _, _, complaints):
        operations = tab.get_by_test_id("operation")
        await expect(operations).to_have_count(len(SHOWN))
        assert sorted(await operations.locator("h3").all_inner_texts()) == sorted(SHOWN)
        await expect(operations.first).to_contain_text("at least 1; at most 200; default 50")
        created = tab.locator("#post-orders")
        await expect(created.get_by_role("link", name="Order").first).to_be_visible()
        assert await created.locator("[data-status]").evaluate_all("all => all.map(one => one.dataset.status)") == [
            "201",
            "400",
        ]
        await expect(tab.locator("h1")).to_have_text("Orders 7")
        assert complaints == ["Failed to load resource: the server responded with a status of 404 (Not Found)"]  # icon


async def test_the_page_requests_nothing_from_elsewhere(browser: Browser) -> None:
    """Our choice: it works in a closed network, and under the edge's own content security policy."""
    async with opened(browser) as (tab, address, requested, _):
        await expect(tab.get_by_test_id("operation").first).to_be_visible()
        assert {url for url in requested if not url.startswith(f"{address}/")} == set()
        assert f"{address}/api/v1/openapi.json" in requested


async def test_every_link_leads_to_its_place(browser: Browser) -> None:
    """Operations and schemas have anchors, and what has a name is named by a link."""
    async with opened(browser) as (tab, _, _, _):
        await expect(tab.get_by_test_id("schema")).to_have_count(2)
        astray = await tab.locator('a[href^="#"]').evaluate_all(
            "all => all.map(one => one.getAttribute('href').slice(1)).filter(id => !document.getElementById(id))"
        )
        assert astray == []
        await tab.get_by_test_id("contents").get_by_role("link", name="DELETE /parts/{part_id}").click()
        await expect(tab.locator("section:target h3")).to_have_text("DELETE /parts/{part_id}")


async def test_an_address_with_an_anchor_shows_that_place(browser: Browser) -> None:
    """Though the page is empty until the document is there."""
    async with opened(browser, "/docs#schema-Part") as (tab, _, _, _):
        await expect(tab.locator("#schema-Part")).to_be_in_viewport()


async def test_nothing_of_the_document_is_taken_for_markup(browser: Browser) -> None:
    """A description is text."""
    async with opened(browser) as (tab, _, _, _):
        await expect(tab.locator("#post-orders")).to_contain_text("Create an <b>order</b>.")


async def test_a_document_that_cannot_be_read_is_told(browser: Browser) -> None:
    """By an alert, not by an empty page."""
    async with served() as address:
        tab = await browser.new_page()
        await tab.route("**/openapi.json", lambda route: route.fulfill(status=503))
        await tab.goto(f"{address}/docs")
        await expect(tab.get_by_role("alert")).to_contain_text("503")
        await tab.close()
