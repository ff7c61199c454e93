"""Browser: a headless Chromium, driven over its DevTools protocol with a small websocket client of our own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --no-default-browser-check "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions --mute-audio "
    "--hide-scrollbars --remote-debugging-port=0 --remote-allow-origins=*"
).split()
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 30.0


def chromium() -> str | None:
    """Return the path of a Chromium, None where there is none; DEADRELU_CHROMIUM names another."""
    named = os.environ.get("DEADRELU_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


# Where it must be there (in .ci/run), its absence is a failure.
needs_chromium = pytest.mark.skipif(
    chromium() is None and not os.environ.get("DEADRELU_REQUIRE_CHROMIUM"),
    reason="needs chromium: apt-get install chromium",
)


class Socket:
    """A websocket, client side: text messages in both directions (RFC 6455)."""

    def __init__(self, url: str) -> None:
        host, path = url.removeprefix("ws://").split("/", 1)
        name, port = host.split(":")
        self._socket = socket.create_connection((name, int(port)), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass

    def send(self, text: str) -> None:
        data = text.encode()
        length = len(data)
        head = b"\x81" + (
            bytes([0x80 | length]) if length < 126 else
            b"\xfe" + struct.pack("!H", length) if length < 65536 else
            b"\xff" + struct.pack("!Q", length)
        )  # fmt: skip
        self._socket.sendall(head + b"\0\0\0\0" + data)  # masked, as a client must, with zeros

    def receive(self) -> str:
        text = b""
        while True:
            first, second = self._file.read(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self._file.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._file.read(8))
            text += self._file.read(length)
            if first & 0x80:
                return text.decode()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Page:
    """One page: go somewhere, ask, click, press keys, look. Errors and requests are kept in `errors` and `requests`."""

    def __init__(self, url: str) -> None:
        self._socket = Socket(url)
        self._number = 0
        self.root = "document"  # of a frame: frames[0].document
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.call("Page.enable")
        self.call("Page.navigate", url="about:blank")
        for domain in ("Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Log.clear")
        self.errors.clear()  # those of the page before, told again

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        mine = self._number
        self._socket.send(json.dumps({"id": mine, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.receive())
            if message.get("id") == mine:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if "willReadFrequently" in json.dumps(params):  # advice for the tests, which read pixels back
            return
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def size(self, width: int, height: int, *, scale: float = 1, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, calm])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        how = {"awaitPromise": True, "returnByValue": True, "allowUnsafeEvalBlockedByCSP": False}
        result = self.call("Runtime.evaluate", expression=expression, **how)
        if "exceptionDetails" in result:
            raise AssertionError(result["exceptionDetails"]["exception"].get("description"))
        return result["result"].get("value")

    def until(self, expression: str, patience: float = PATIENCE) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + patience
        while True:
            value = self.ask(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {patience:g} s: {expression}; the page says {self.errors}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        found = self.ask(f"{self.root}.querySelector({json.dumps(selector)})?.innerText ?? null")
        assert found is not None, f"nothing on the page is {selector}"
        return str(found)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click into an element; x and y are fractions of its size."""
        self.point(selector, x, y)
        at = self._at
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)
        self.settle()

    def point(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        box = self.ask(
            f"(() => {{ const e = {self.root}.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " const f = e.ownerDocument.defaultView.frameElement?.getBoundingClientRect() ?? {left: 0, top: 0};"
            " return [b.left + f.left, b.top + f.top, b.width, b.height]; })()"
        )
        self._at = (box[0] + x * box[2], box[1] + y * box[3])
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=self._at[0], y=self._at[1])

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag along an element, from one fraction of its width to another."""
        self.point(selector, start)
        x, y = self._at
        width = self.ask(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().width")
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for part in (0.5, 1.0):
            to = x + part * (end - start) * width
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=to, y=y, button="left", buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=to, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, *keys: str) -> None:
        codes = {"ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Escape": 27, "Tab": 9}
        for key in keys:
            about = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0]))}
            if len(key) == 1:
                about["text"] = key
            self.call("Input.dispatchKeyEvent", type="keyDown", **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def close(self) -> None:
        self._socket.close()


class Browser:
    """A Chromium of our own, with a profile of its own. Closing it ends the process that was started, and no other."""

    def __init__(self, profile: Path) -> None:
        program = chromium()
        assert program is not None
        # HOME and XDG folders: nothing of the user's own is read or written
        home = {"HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)}
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            env={**os.environ, **home}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._address = f"http://127.0.0.1:{self._port(profile / 'DevToolsActivePort')}"

    def _port(self, file: Path) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if file.is_file() and len(lines := file.read_text().split()) == 2:
                return lines[0]
            if self._process.poll() is not None:
                raise AssertionError(f"chromium ended with {self._process.returncode}")
            time.sleep(0.05)
        self.close()
        raise AssertionError("chromium opened no port")

    def page(self, width: int = 1280, height: int = 900, *, scale: float = 1, dark: bool = False) -> Page:
        """Return the page that the browser began with."""
        with urlopen(f"{self._address}/json", timeout=PATIENCE) as answer:
            found = next(t for t in json.load(answer) if t["type"] == "page")
        page = Page(found["webSocketDebuggerUrl"])
        page.size(width, height, scale=scale, dark=dark)
        return page

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
