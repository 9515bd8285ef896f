"""A headless Chromium, driven over its own debugging pipe: one process for all pages."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from support.project import NET

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking --disable-component-update"


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, folder: Path) -> None:
        mine, theirs = os.pipe(), os.pipe()  # what Chromium reads as its descriptor 3, and writes as its 4
        own = [f"--user-data-dir={folder}", "--no-first-run", "--window-size=1900,1200", "--remote-debugging-pipe", "about:blank"]
        shell = f'exec "$@" 3<&{mine[0]} 4>&{theirs[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "-", str(CHROMIUM), *FLAGS.split(), *own],
            pass_fds=(mine[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(mine[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(mine[1], "wb", 0), os.fdopen(theirs[0], "rb")
        self._sent, self._session = 0, {}
        self.events: list[dict[str, Any]] = []
        (page, *_) = [t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]}

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        self._to.write(json.dumps({"id": self._sent, "method": method, "params": params, **self._session}).encode() + b"\0")
        while True:
            told = bytearray()
            while (byte := self._from.read(1)) != b"\0":
                assert byte, "Chromium is gone"
                told += byte
            answer = json.loads(told)
            if "method" in answer:
                self.events.append(answer)
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]  # type: ignore[no-any-return]

    def evaluate(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def open(self, address: str) -> None:
        self.ask("Page.navigate", url="about:blank")  # else another #fragment is no navigation
        self.ask("Page.navigate", url=address)

    def text(self) -> str:
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def until(self, expression: str, seconds: float = NET) -> Any:
        """The first true value of a JavaScript expression."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}\non a page that says\n{self.text()}"
            time.sleep(0.2)
        return value

    def until_said(self, *words: str) -> None:
        self.until(f"{json.dumps(words)}.every(word => document.body && document.body.innerText.includes(word))")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._to.close()
        self._from.close()
