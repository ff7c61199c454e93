"""Server: serves runs made by hand as TensorBoard serves the tab - same routes, same Content-Security-Policy.

`python -m tests.board.server PORT [SECONDS]` serves the runs of `documents.py` at /data/plugin_entry.html for a look.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util
from werkzeug import Request, Response
from werkzeug.serving import make_server

import deadrelu

from .documents import Run

STATIC = Path(deadrelu.__file__).parent / "board" / "static"
ENTRY = 'import("./static/index.js").then((m) => void m.render());'
PAGE = f"""
<!DOCTYPE html>
<head><base href="plugin/deadrelu/" /></head>
<body><script type="module">{ENTRY}</script></body>
"""
TYPES = {".js": "text/javascript", ".css": "text/css"}


class Tab:
    """The routes of the plugin over a mapping of runs; `asked` lists every path that was asked for."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self.runs = dict(runs)
        self.asked: list[str] = []
        self.broken: tuple[str, ...] = ()  # ends of paths that are answered with 500

    @Request.application
    def __call__(self, request: Request) -> Response:
        self.asked.append(request.path)
        if request.path.endswith(self.broken):
            return http_util.Respond(request, "broken", "text/plain", code=500)
        path = request.path.removeprefix("/data/")
        if path == "/favicon.ico":  # a browser asks for it whatever the page says
            return Response(status=204)
        if path == "plugin_entry.html":
            digest = base64.b64encode(hashlib.sha256(ENTRY.encode()).digest()).decode()
            return http_util.Respond(request, PAGE, "text/html", csp_scripts_sha256s=[digest])
        path = path.removeprefix("plugin/deadrelu/")
        if path.startswith("static/"):
            file = STATIC / Path(path).name
            return http_util.Respond(request, file.read_bytes(), TYPES[file.suffix])
        return self._answer(request, path)

    def _answer(self, request: Request, path: str) -> Response:
        if path == "runs":
            return http_util.Respond(request, {"runs": list(self.runs)}, "application/json")
        run = self.runs.get(request.args.get("run", ""))
        if run is None:
            return http_util.Respond(request, "no such run", "text/plain", code=404)
        if path == "run":
            return http_util.Respond(request, run.document, "application/json")
        site = request.args["site"]
        if path == "site":
            return http_util.Respond(request, run.sites[site], "application/json")
        return http_util.Respond(request, run.cells(site, request.args["channel"]), "application/octet-stream")


@contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:
    """Serve a WSGI application on 127.0.0.1 and yield its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


if __name__ == "__main__":
    from .documents import everything

    with serving(Tab(everything()), int(sys.argv[1])):
        time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 600)
