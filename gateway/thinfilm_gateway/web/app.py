"""The ASGI application: which page is where."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinfilm_gateway.web import health
from thinfilm_gateway.web.health import Report

LOOKS = 4  # at a time; who asks meanwhile waits for its turn

NOT_KEPT = {"Cache-Control": "no-store"}


def create_app(examine: Callable[[], Report]) -> Starlette:
    """Return the application. examine: gives the health; may take its time, and is called in threads."""
    threads = ThreadPoolExecutor(LOOKS, thread_name_prefix="health")

    def page(render: Callable[[Report], str], media_type: str) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            del request
            report = await asyncio.get_running_loop().run_in_executor(threads, examine)
            return Response(render(report), report.code, NOT_KEPT, media_type)

        return answer

    return Starlette(
        routes=[
            Route("/health", page(health.as_json, "application/json")),
            Route("/", page(health.as_html, "text/html")),
        ]
    )
