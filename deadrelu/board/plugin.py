"""Plugin: the back end of the tab. It answers with the documents of the view and with static files, nothing else."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins.base_plugin import FrontendMetadata, TBPlugin
from werkzeug.wrappers import Request, Response

from ..errors import InputError
from ..record.assembly import assemble
from ..record.names import CHANNELS, PLUGIN
from ..render.view import View
from .provided import Experiment

STATIC = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}

_RUNS_HELD = 2

App = Callable[..., Any]
Answer = tuple[bytes, str]


class RefusedError(Exception):
    """A request that cannot be answered; `code` is the status of HTTP."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class DeadReluPlugin(TBPlugin):  # type: ignore[misc]
    """The "Dead ReLU" tab of one TensorBoard."""

    plugin_name = PLUGIN

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._provider = context.data_provider
        self._views: OrderedDict[tuple[str, str], tuple[Any, View]] = OrderedDict()
        self._lock = threading.Lock()

    def get_plugin_apps(self) -> dict[str, App]:
        """Return the routes."""
        return {
            "/runs": _app(self._runs),
            "/run": _app(self._run),
            "/site": _app(self._site),
            "/cells": _app(self._cells),
            "/static/*": _app(_static),
            "/static/index.js": _app(_static),
        }

    def is_active(self) -> bool:
        """Return False: TensorBoard itself looks whether a run has data of this plugin."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """Return where the front end begins."""
        return FrontendMetadata(es_module_path="/static/index.js", tab_name="Dead ReLU")

    def _runs(self, request: Request) -> Answer:
        return _json({"runs": self._experiment(request).runs()})

    def _run(self, request: Request) -> Answer:
        with self._lock:
            return _json(self._view(request, fresh=True).document)

    def _site(self, request: Request) -> Answer:
        with self._lock:
            view = self._view(request)
            return _json(view.site(_known("site", _asked(request, "site"), view.sites)))

    def _cells(self, request: Request) -> Answer:
        with self._lock:
            view = self._view(request)
            site = _known("site", _asked(request, "site"), view.sites)
            channel = _known("channel", _asked(request, "channel"), CHANNELS)
            return view.cells(site, channel), "application/octet-stream"

    def _experiment(self, request: Request) -> Experiment:
        environ = request.environ
        return Experiment(self._provider, plugin_util.context(environ), plugin_util.experiment_id(environ))

    def _view(self, request: Request, *, fresh: bool = False) -> View:
        """Return the view of the run that is asked for; `fresh`: made anew if its record has grown.

        Sites and cells are those of the document that was asked for last, so that their steps agree with its steps.
        """
        experiment, run = self._experiment(request), _asked(request, "run")
        key = (experiment.experiment_id, run)
        held = self._views.pop(key, None)
        state = experiment.state(run) if fresh or held is None else held[0]
        if state is None:
            raise RefusedError(404, f"no record of a run {run!r}")
        if held is None or held[0] != state:
            held = (state, View(assemble(run, experiment.source(run), f"run {run!r}")))
        self._views[key] = held
        while len(self._views) > _RUNS_HELD:
            self._views.popitem(last=False)
        return held[1]


def _app(answer: Callable[[Request], Answer]) -> App:
    """Return the WSGI application of a route: what cannot be answered becomes JSON that says why."""

    @Request.application
    def app(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _refused(request, 405, "only GET is answered")
        try:
            content, kind = answer(request)
        except RefusedError as error:
            return _refused(request, error.code, str(error))
        except InputError as error:
            return _refused(request, 400, str(error))
        tag = f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'
        if tag in request.headers.get("If-None-Match", "").replace("W/", "").split(", "):
            return Response(status=304, headers=[("ETag", tag), ("Cache-Control", "no-cache, must-revalidate")])
        found: Response = http_util.Respond(request, content, kind, headers=[("ETag", tag)])
        return found

    return app


def _static(request: Request) -> Answer:
    """Answer with a file of the folder `static`. Only names that the folder lists are ever opened."""
    name = request.path.rpartition("/static/")[2]
    found = next((path for path in STATIC.iterdir() if path.name == name), None)
    if found is None or found.suffix not in TYPES or not found.is_file():
        raise RefusedError(404, f"no file {name!r}")
    return found.read_bytes(), TYPES[found.suffix]


def _refused(request: Request, code: int, message: str) -> Response:
    found: Response = http_util.Respond(request, *_json({"error": message}), code=code)
    return found


def _json(told: Any) -> Answer:
    return json.dumps(told, allow_nan=False, separators=(",", ":")).encode(), "application/json"


def _asked(request: Request, name: str) -> str:
    found = request.args.get(name)
    if found is None:
        raise RefusedError(400, f"expected the parameter {name!r}")
    return str(found)


def _known(what: str, name: str, known: Any) -> str:
    if name not in known:
        raise RefusedError(404, f"no {what} {name!r}")
    return name
