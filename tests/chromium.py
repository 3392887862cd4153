"""Headless Chromium for tests, controlled over a pipe: pages of any width, real keys, bounding boxes, screenshots."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--allow-file-access-from-files",
    "--remote-debugging-pipe",
)
# Code of the key events: windowsVirtualKeyCode of keys that are not characters.
_KEY_CODES = {
    "Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip

# `window.innerWidth` grows on a phone if the page is too wide, so the width of the window is that of its visible part.
_FIND_WIDE = """
(() => {
  const width = visualViewport.width * visualViewport.scale;
  const box = document.documentElement.clientWidth < width ? document.documentElement.clientWidth : width;
  const clipped = ".scroll, pre, nav, .compare, .thumb, svg, .skip, .frame";
  const found = [...document.querySelectorAll("body *")].filter((node) => {
    if (!node.checkVisibility() || node.closest(clipped)) return false;
    return node.getBoundingClientRect().right > box + 0.5;
  });
  return found.map((node) => `${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 30)}`);
})()
"""
_FIND_OVERLAPS = """
(() => {
  const name = (node) => {
    return `${node.tagName}.${node.getAttribute("class") ?? ""} "${node.textContent.trim().slice(0, 24)}"`;
  };
  const isText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  // Over images on purpose: frames, pins and badges; above everything: the menu.
  const meant = "nav, .compare, .spot, .here, .pin, .area, .skip, .defs, .scroll, [hidden]";
  const controls = "button, select, input, canvas, .thumb, .compare, .frame > img, svg.plot";
  const nodes = [...document.querySelectorAll("body *")].filter((node) => {
    if (!node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return false;
    if (node.matches(".compare") || (node.matches(controls) && !node.closest(meant))) return true;
    if (node.closest(meant) || !node.namespaceURI.endsWith("xhtml")) return false;
    return isText(node) && !/SCRIPT|STYLE|OPTION/.test(node.tagName);
  });
  const boxes = nodes.map((node) => node.getBoundingClientRect());
  const found = [];
  const overlap = (a, b) => {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    return Math.min(width, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  };
  for (let i = 0; i < nodes.length; i++) {
    for (let j = i + 1; j < nodes.length; j++) {
      if (overlap(boxes[i], boxes[j]) <= 1.5 || nodes[i].contains(nodes[j]) || nodes[j].contains(nodes[i])) continue;
      found.push(`${name(nodes[i])} and ${name(nodes[j])}`);
    }
  }
  for (const plot of document.querySelectorAll("svg.plot")) {
    const texts = [...plot.querySelectorAll("text")];
    const places = texts.map((text) => text.getBoundingClientRect());
    const origin = plot.getBoundingClientRect();
    texts.forEach((text, i) => {
      for (let j = 0; j < i; j++) {
        if (overlap(places[i], places[j]) > 0.5) found.push(`${name(text)} and ${name(texts[j])}`);
      }
    });
    const clip = plot.querySelector("clipPath rect")?.getBBox();
    for (const line of plot.querySelectorAll("path.line")) {
      for (let k = 0; k <= 60; k++) {
        const point = line.getPointAtLength((k / 60) * line.getTotalLength());
        if (clip && point.y > clip.y + clip.height) continue;
        const [x, y] = [origin.left + point.x, origin.top + point.y];
        const hit = places.findIndex((place) => x > place.left && x < place.right && y > place.top && y < place.bottom);
        if (hit >= 0) found.push(`a line and ${name(texts[hit])}`);
      }
    }
  }
  return [...new Set(found)];
})()
"""
_COUNT_TAB_STOPS = """
[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter(
  (node) => node.tabIndex >= 0 && !node.disabled && node.checkVisibility({ visibilityProperty: true })
).length
"""


class Chromium:
    """One browser process with one tab.

    Args:
        profile: an empty folder for the profile.

    Raises:
        OSError: the browser does not start.
    """

    def __init__(self, profile: Path) -> None:
        if CHROMIUM is None:
            raise FileNotFoundError("Chromium or Chrome is not on the PATH")
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()

        def connect() -> None:
            # The browser reads commands from descriptor 3 and writes answers to 4.
            high = os.dup(commands), os.dup(answers)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect,
            pass_fds=(3, 4, commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._pending = b""
        self._session: str | None = None
        self._id = 0
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End the process."""
        os.close(self._commands)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def open(
        self, page: Path, width: int = 1280, height: int = 900, *, touch: bool = False, dark: bool = False
    ) -> None:
        """Open a file in a window of this size, in CSS px, and wait until its scripts have run."""
        self.resize(width, height, touch=touch)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call(
            "Emulation.setEmulatedMedia", features=[*scheme, {"name": "prefers-reduced-motion", "value": "reduce"}]
        )
        self._call("Page.navigate", url=page.absolute().as_uri())
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")

    def resize(self, width: int, height: int = 900, *, touch: bool = False) -> None:
        """Set the size of the window."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch
        )  # fmt: skip
        self._call("Emulation.setTouchEmulationEnabled", enabled=touch)

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript; a promise is awaited."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.run(condition):
                    return
            except AssertionError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"still false after {seconds} s: {condition}")

    def press(self, key: str, *, hold: bool = False) -> None:
        """Press a key, as a keyboard does; with `hold`, it stays down until `release`."""
        event = _describe_key(key)
        kind = "keyDown" if len(key) == 1 or key == "Enter" else "rawKeyDown"
        text = {"text": "\r" if key == "Enter" else key} if kind == "keyDown" else {}
        self._call("Input.dispatchKeyEvent", type=kind, **event, **text)
        if not hold:
            self.release(key)

    def release(self, key: str) -> None:
        """Release a key."""
        self._call("Input.dispatchKeyEvent", type="keyUp", **_describe_key(key))

    def find_wide_elements(self) -> list[str]:
        """Return the elements that reach beyond the right side of the window, except inside of boxes that scroll."""
        return self.run(_FIND_WIDE)

    def find_overlaps(self) -> list[str]:
        """Return the pairs of texts and controls that are drawn over each other, and labels of axes on lines."""
        return self.run(_FIND_OVERLAPS)

    def count_tab_stops(self) -> int:
        """Return the number of elements that the Tab key reaches."""
        return self.run(_COUNT_TAB_STOPS)

    def save_screenshot(self, path: Path, *, full: bool = True) -> None:
        """Write the complete page, or the window, as PNG."""
        answer = self._call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=full, **(self._clip() if full else {})
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def _clip(self) -> dict[str, Any]:
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}}

    def _call(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._answers], [], [], max(0, deadline - time.monotonic()))
            content = os.read(self._answers, 1 << 20) if ready else b""
            if not content:
                raise OSError("the browser does not answer")
            self._pending += content
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)


def _describe_key(key: str) -> dict[str, Any]:
    code = _KEY_CODES.get(key) or ord(key.upper())
    return {"key": key, "windowsVirtualKeyCode": code, "code": key if len(key) > 1 else f"Key{key.upper()}"}
