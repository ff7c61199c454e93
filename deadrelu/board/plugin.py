"""Plugin: the back end of the tab. It answers with the documents of the view and with static files, nothing else."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
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
_A_YEAR = 365 * 24 * 3600

App = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with; a browser may keep it for so many seconds without asking again."""

    content: bytes
    kind: str
    keep: int = 0


@dataclass
class Held:
    """The view of a run, and the state of its record that it shows."""

    state: tuple[Any, ...]
    view: View

    @cached_property
    def document(self) -> Answer:
        """The document of the run: a page that is opened again does not wait for it to be written again."""
        return _json(self.view.document)


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
        self._views: OrderedDict[tuple[str, str], Held] = OrderedDict()
        self._lock = threading.Lock()

    def get_plugin_apps(self) -> dict[str, App]:
        """Return the routes."""
        return {
            "/runs": _app(self._runs),
            "/run": _app(self._run),
            "/site": _app(self._site),
            "/cells": _app(self._cells),
            "/static/*": _app(_static),
        }

    def is_active(self) -> bool:
        """Return False: TensorBoard itself looks whether a run has data of this plugin."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """Return where the front end begins: in a folder that is named after what it holds.

        So a browser keeps the modules, thirty files, until one of them changes.
        """
        return FrontendMetadata(es_module_path=f"/static/{_edition()}/index.js", tab_name="Dead ReLU")

    def _runs(self, request: Request) -> Answer:
        return _json({"runs": self._experiment(request).runs()})

    def _run(self, request: Request) -> Answer:
        with self._lock:
            return self._held(request, fresh=True).document

    def _site(self, request: Request) -> Answer:
        with self._lock:
            view = self._held(request).view
            return _json(view.site(_known("site", _asked(request, "site"), view.sites)))

    def _cells(self, request: Request) -> Answer:
        with self._lock:
            view = self._held(request).view
            site = _known("site", _asked(request, "site"), view.sites)
            channel = _known("channel", _asked(request, "channel"), CHANNELS)
            return Answer(view.cells(site, channel), "application/octet-stream")

    def _experiment(self, request: Request) -> Experiment:
        environ = request.environ
        return Experiment(self._provider, plugin_util.context(environ), plugin_util.experiment_id(environ))

    def _held(self, request: Request, *, fresh: bool = False) -> Held:
        """Return the view of the run that is asked for; `fresh`: made anew if its record has grown.

        Sites and cells are those of the document that was asked for last, so that their steps agree with its steps.
        """
        experiment, run = self._experiment(request), _asked(request, "run")
        key = (experiment.experiment_id, run)
        held = self._views.pop(key, None)
        state = experiment.state(run) if fresh or held is None else held.state
        if state is None:
            raise RefusedError(404, f"no record of a run {run!r}")
        if held is None or held.state != state:
            held = Held(state, View(assemble(run, experiment.source(run), f"run {run!r}")))
        self._views[key] = held
        while len(self._views) > _RUNS_HELD:
            self._views.popitem(last=False)
        return held


def _app(answer: Callable[[Request], Answer]) -> App:
    """Return the WSGI application of a route: what cannot be answered becomes JSON that says why."""

    @Request.application
    def app(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _refused(request, 405, "only GET is answered")
        try:
            found = answer(request)
        except RefusedError as error:
            return _refused(request, error.code, str(error))
        except InputError as error:
            return _refused(request, 400, str(error))
        tag = f'"{_digest(found.content)}"'
        if tag in request.headers.get("If-None-Match", "").replace("W/", "").split(", "):
            return Response(status=304, headers=[("ETag", tag), ("Cache-Control", "no-cache, must-revalidate")])
        return _respond(request, found, headers=[("ETag", tag)])

    return app


def _static(request: Request) -> Answer:
    """Answer with a file of the folder `static`. Only names that the folder lists are ever opened."""
    edition, _, name = request.path.rpartition("/static/")[2].rpartition("/")
    found = next((path for path in _files() if path.name == name), None)
    if found is None or edition not in ("", _edition()):
        raise RefusedError(404, f"no file {name!r}")
    return Answer(found.read_bytes(), TYPES[found.suffix], _A_YEAR if edition else 0)


def _files() -> list[Path]:
    return sorted(path for path in STATIC.iterdir() if path.suffix in TYPES and path.is_file())


def _edition() -> str:
    """Return what the files of the page hold, in a few letters."""
    return _digest(b"\0".join(path.name.encode() + b"\0" + path.read_bytes() for path in _files()))[:12]


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _refused(request: Request, code: int, message: str) -> Response:
    return _respond(request, _json({"error": message}), code=code)


def _respond(request: Request, answer: Answer, **how: Any) -> Response:
    found: Response = http_util.Respond(request, answer.content, answer.kind, expires=answer.keep, **how)
    return found


def _json(told: Any) -> Answer:
    return Answer(json.dumps(told, allow_nan=False, separators=(",", ":")).encode(), "application/json")


def _asked(request: Request, name: str) -> str:
    found = request.args.get(name)
    if found is None:
        raise RefusedError(400, f"expected the parameter {name!r}")
    return str(found)


def _known(what: str, name: str, known: Iterable[str]) -> str:
    """Return the one that is asked for. No URL can say half of a character: a browser sends U+FFFD for it."""
    for one in known:
        if name in (one, one.encode("utf-16", "surrogatepass").decode("utf-16", "replace")):
            return one
    raise RefusedError(404, f"no {what} {name!r}")
