"""A web server in a process of its own that takes notices and beats, and writes down what came.

Arguments: a file for its requests. Its port is the first line it prints. What it answers is the first part of the path:
`/200/...` a status, `/slow/...` nothing for a minute, `/away/...` a redirect to `/200/elsewhere`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web


def serve(log: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = await request.text()
        entry = {
            "method": request.method,
            "path": request.path,
            "query": request.query_string,
            "headers": dict(request.headers),
            "body": body,
        }
        with log.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        what = request.path.split("/")[1]
        if what == "slow":
            await asyncio.sleep(60)
        if what == "away":
            return web.Response(status=302, headers={"Location": "/200/elsewhere"})
        if request.path.endswith("/fail") and what == "nofail":
            return web.Response(status=404)
        return web.Response(status=int(what) if what.isdigit() else 200)

    async def main() -> None:
        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(main())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
