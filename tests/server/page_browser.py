"""Chromium without a window, driven over its DevTools protocol: clicks and keys as a person's, looks at the page, pictures.

    with Browser(program) as browser:
        page = browser.page("http://127.0.0.1:8080/", width=1200, height=800, dark=False)
        page.type("Hello"); page.key("Enter"); page.wait("document.querySelector('.answer')")

Python's standard library only. The protocol: https://chromedevtools.github.io/devtools-protocol/; WebSocket: RFC 6455.
"""
import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time

KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, ""), "Backspace": (8, "")}


def find_chromium():
    return next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


class WebSocket:
    def __init__(self, url):
        host, path = url.removeprefix("ws://").split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout=60)
        self.buffer = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(("GET /%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (path, host, key)).encode())
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError("no WebSocket: %r" % head)

    def _more(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError("the browser has gone")
        self.buffer += data

    def _take(self, n):
        while len(self.buffer) < n:
            self._more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        n = len(data)
        head = struct.pack("!BB", 0x81, 0x80 | n) if n < 126 else \
            struct.pack("!BBH", 0x81, 0xFE, n) if n < 65536 else struct.pack("!BBQ", 0x81, 0xFF, n)
        keys = (mask * (n // 4 + 1))[:n]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(n, "big")
        self.socket.sendall(head + mask + masked)

    def receive(self):
        message = b""
        while True:
            first, n = self._take(2)
            if n == 126:
                n, = struct.unpack("!H", self._take(2))
            elif n == 127:
                n, = struct.unpack("!Q", self._take(8))
            data = self._take(n)
            if first & 15 in (0, 1, 2):  # else a ping, or the end that recv will tell
                message += data
                if first & 128:
                    return message.decode()


class Browser:
    def __init__(self, program):
        self.folder = tempfile.mkdtemp(prefix="hadal-chromium-")
        with open(self.folder + "/log", "w") as log:
            self.process = subprocess.Popen(
                [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--remote-debugging-port=0", "--user-data-dir=" + self.folder + "/profile", "about:blank"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.next, self.pages, self.web = 0, {}, None
        try:
            self.web = WebSocket(self._address())
        except BaseException:
            self.close()
            raise

    def _address(self):
        for _ in range(600):
            for line in open(self.folder + "/log", errors="replace"):
                if line.startswith("DevTools listening on "):
                    return line.split()[-1]
            time.sleep(0.05)
        raise RuntimeError("Chromium did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method, session=None, **params):
        self.next += 1
        mine = self.next
        self._send(mine, method, session, params)
        while True:
            m = json.loads(self.web.receive())
            if m.get("id") == mine:
                if "error" in m:
                    raise RuntimeError("%s: %s" % (method, m["error"]["message"]))
                return m["result"]
            if m.get("sessionId") in self.pages:
                self.pages[m["sessionId"]].event(m.get("method"), m.get("params", {}))

    def _send(self, number, method, session, params):
        self.web.send(json.dumps({"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}))

    def page(self, url, width=1280, height=800, dark=False, phone=False):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        p = Page(self, target, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        self.pages[p.session] = p
        for domain in ("Page", "Runtime", "Log", "DOM"):
            p.call(domain + ".enable")
        p.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        p.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        p.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                                                       {"name": "prefers-reduced-motion", "value": "reduce"}])
        p.call("Emulation.setFocusEmulationEnabled", enabled=True)
        p.go(url)
        return p


class Page:
    """errors: exceptions, messages of console.error, refusals by the policy, loads that failed. asked: texts of confirm()."""

    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.errors, self.asked = [], []

    def event(self, method, p):
        if method == "Runtime.exceptionThrown":
            d = p["exceptionDetails"]
            self.errors.append(d.get("exception", {}).get("description") or d["text"])
        elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
            self.errors.append(str(p["args"]))
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.errors.append(p["entry"]["text"] + " " + p["entry"].get("url", ""))
        elif method == "Page.javascriptDialogOpening":  # nothing else is answered while it is open
            self.asked.append(p["message"])
            self.browser._send(0, "Page.handleJavaScriptDialog", self.session, {"accept": True})

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def reload(self):
        self.js("window.old = 1")
        self.call("Page.reload")
        self.wait("!window.old && document.readyState === 'complete'")

    def js(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r:
            raise RuntimeError("%s: %s" % (expression, r["exceptionDetails"].get("exception", {}).get("description")))
        return r["result"].get("value")

    def wait(self, expression, seconds=30):
        """Until it is true in the page; gives its value, or False when the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                value = self.js("(v => v instanceof Node || v)(%s)" % expression)
            except RuntimeError:  # between two documents, or of something that is not there yet
                value = False
            if value:
                return value
            time.sleep(0.03)
        return False

    def text(self, selector):
        """What a person reads there; of the last that fits. None: there is none."""
        return self.js("[...document.querySelectorAll(%s)].at(-1)?.innerText" % json.dumps(selector))

    def count(self, selector):
        return self.js("document.querySelectorAll(%s).length" % json.dumps(selector))

    def seen(self, selector):
        return self.js("!!document.querySelector(%s)?.checkVisibility({visibilityProperty: true})" % json.dumps(selector))

    def click(self, selector):
        """With the mouse in the middle of the last element that fits, which has to be what is there to click on."""
        spot = self.js("""(() => { const e = [...document.querySelectorAll(%s)].at(-1); e.scrollIntoView({block: 'nearest'});
            const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2, top = document.elementFromPoint(x, y);
            return top && (e.contains(top) || top.contains(e)) ? [x, y] : null })()""" % json.dumps(selector))
        if not spot:
            raise RuntimeError("%s is covered" % selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def key(self, name, ctrl=False, shift=False):
        code, text = KEYS[name] if name in KEYS else (ord(name.upper()), "" if ctrl else name)
        common = {"key": name, "windowsVirtualKeyCode": code, "modifiers": 2 * ctrl + 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def upload(self, selector, path):
        node = self.call("DOM.querySelector", nodeId=self.call("DOM.getDocument")["root"]["nodeId"], selector=selector)
        self.call("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[path])

    def picture(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
        del self.browser.pages[self.session]
