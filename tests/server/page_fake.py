"""A server that says always the same, for what the page shows: the last message chooses the answer. Streams are cut into
pieces of seven bytes, in the middle of lines and characters."""
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PARTS = ["page.html", "page_markdown.js", "page.js"]  # as page.c puts them together

HOSTILE = """<img src=x onerror="window.hurt=1"> <script>window.hurt=2</script></script> </textarea></article><svg onload="window.hurt=3">

[click](javascript:window.hurt=4) [data](data:text/html,<script>window.hurt=5</script>) ![picture](https://example.invalid/a.png)
[tab](java\tscript:window.hurt=6) [file](file:///etc/passwd) <a href="javascript:window.hurt=7">link</a> javascript:window.hurt=8
[quote](https://example.invalid/"onmouseover="window.hurt=9)

| <b onclick="window.hurt=10">a</b> | `</code><script>window.hurt=11</script>` |
|---|---|
| <iframe src="javascript:window.hurt=12"></iframe> | <style>*{display:none}</style> |

```html" onload="window.hurt=13
</code></pre><script>window.hurt=14</script>
```
"""

MARKDOWN = """# Pressure at depth

Water is *nearly* incompressible, so pressure grows **linearly** with depth: about one atmosphere every 10 m. In code that is `p = rho * g * h`.

1. Find the density, for sea water about 1025 kg/m³.
2. Multiply by depth:
   - 200 m: the end of the *sunlit* zone
   - 6,000 m: where the [hadal zone](https://en.wikipedia.org/wiki/Hadal_zone) begins
3. Add the air above.

| Place | Depth (m) | Pressure (bar) |
|:---|---:|---:|
| Continental shelf | 200 | 21 |
| Abyssal plain | 4,500 | 454 |
| Challenger Deep | 10,935 | 1,103 |

```python
def pressure(depth, density=1025.0, g=9.81):
    return 1.013 + density * g * depth / 1e5   # bar
```

> The deepest part is called *hadal*, after Hades.

At \\(h = 10935\\) that gives \\[p_{max} = 1.013 + 1025 \\cdot 9.81 \\cdot 10935 / 10^5 \\] snake_case_name, 3 * 4 * 5 and ~~wrong~~ https://example.org/a_b_c. stay as they are.
"""

STATUS = {
    "model": "deep-sea-7b", "version": "0.4.0", "uptime_seconds": 93784, "status": "ok", "connections": 7,
    "requests": [{"id": "5d1f0c9a2b7c4e6f80a1b2c3", "path": "/chat/completions", "prompt_tokens": 1204, "cached_tokens": 1088, "tokens": 96, "seconds": 3.4},
                 {"id": "5d1f0c9b2b7c4e6f80a1b2c3", "path": "/messages", "prompt_tokens": 38411, "cached_tokens": 38208, "tokens": 512, "seconds": 21.9},
                 {"id": "5d1f0c9c2b7c4e6f80a1b2c3", "path": "/completions", "prompt_tokens": 12, "cached_tokens": 0, "tokens": 7, "seconds": 0.3}],
    "engine": {"running": 3, "waiting": 2, "sequences": 64, "queue": 256, "context": 131072, "pages_total": 4096, "pages_running": 820,
               "pages_kept": 1530, "page_tokens": 64, "page_bytes": 589824, "cache_folder_bytes": 0, "steps": 81234, "preemptions": 2,
               "draft_proposed": 1200, "draft_accepted": 960, "prompt_tokens": 1850412, "cached_tokens": 1402876, "generated_tokens": 412380},
}


def words(text):
    """Pieces of about a token."""
    out = [""]
    for c in text:
        out[-1] += c
        if len(out[-1]) >= 4 or c in " \n":
            out.append("")
    return [w for w in out if w]


class Fake:
    """port; requests: bodies of chat completions so far; gone: how many answers ended because the client left. pause:
    seconds between tokens; asked: how often for the status; key: the API key that is asked for; loading: 503 to everything but the page."""

    def __init__(self, source="src/server", pause=0.0, key=None):
        self.page = b"".join(open(source + "/" + p, "rb").read() for p in PARTS) + b"</script>\n"
        self.pause, self.key, self.loading, self.closed = pause, key, False, False
        self.requests, self.gone, self.asked, self.failures, self.started = [], 0, 0, {}, time.monotonic()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.get(self)

            def do_POST(self):
                outer.post(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.closed = True
        self.http.shutdown()
        self.http.server_close()

    def reply(self, h, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        h.send_response(status)
        h.send_header("Content-Type", kind)
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)

    def error(self, h, status, message):
        self.reply(h, status, {"error": {"message": message, "type": "error", "param": None, "code": None}})

    def allowed(self, h):
        if self.loading:
            self.error(h, 503, "The model is being loaded.")
        elif self.key and h.headers.get("Authorization") != "Bearer " + self.key:
            self.error(h, 401, "This server needs an API key.")
        else:
            return True
        return False

    def get(self, h):
        if h.path == "/":
            self.reply(h, 200, self.page, "text/html; charset=utf-8")
        elif not self.allowed(h):
            pass
        elif h.path == "/v1/models":
            self.reply(h, 200, {"object": "list", "data": [{"id": "deep-sea-7b", "object": "model"}]})
        elif h.path == "/status":
            self.reply(h, 200, self.status())
        else:
            self.error(h, 404, "There is no " + h.path)

    def status(self):
        self.asked += 1
        s = json.loads(json.dumps(STATUS))
        seconds = time.monotonic() - self.started
        s["engine"]["generated_tokens"] += int(seconds * 96)
        s["engine"]["prompt_tokens"] += int(seconds * 410)
        return s

    def post(self, h):
        body = json.loads(h.rfile.read(int(h.headers["Content-Length"])))
        if self.closed:  # the end of a connection that was kept
            h.close_connection = True
            return
        if not self.allowed(h):
            return
        self.requests.append(body)
        last = body["messages"][-1]["content"]
        if last in ("busy", "bad") and not self.failures.get(last):
            self.failures[last] = 1
            return self.error(h, *{"busy": (429, "The queue is full: 256 requests wait."), "bad": (422, "temperature is 9, but has to be 0 to 2.")}[last])
        reasoning, content, finish = self.answer(last, body)
        h.send_response(200)
        h.send_header("Content-Type", "text/event-stream")
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        try:
            self.stream(h, body, reasoning, content, finish)
        except OSError:
            self.gone += 1

    def answer(self, last, body):
        if last.startswith("think"):
            return "First I look at it. " * 40 + "Größe ≤ 10 °C 🐟.", "The answer is **42** 🐟.", "stop"
        if last == "only thinking":
            return "It goes on and on. " * 10, "", "length"
        if last == "hostile":
            return HOSTILE, HOSTILE, "stop"
        if last == "long":
            return "", "".join("line %d\n\n" % i for i in range(4000)), "stop"
        if last == "settings":
            return "", "```json\n%s\n```" % json.dumps(body), "stop"
        if last == "ends":
            return "", "This answer ends", None
        if last.startswith("How "):
            return "The user wants the hydrostatic formula, examples, and code. Sea water is about 1025 kg/m³; keep it short.", MARKDOWN, "stop"
        return "", "You said: " + last, "stop"

    def stream(self, h, body, reasoning, content, finish):
        def send(data):
            data = data.encode()
            for i in range(0, len(data), 7):
                piece = data[i:i + 7]
                h.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if data[i + 7:i + 8] and data[i + 7] & 0xC0 == 0x80:  # in a character: let the first half arrive alone
                    time.sleep(0.1)
            h.wfile.flush()

        def chunk(delta, finish=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            send("data: %s\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}, ensure_ascii=False))

        chunk({"role": "assistant", "content": ""})
        n = 0
        for name, text in (("reasoning_content", reasoning), ("content", content)):
            for w in words(text):
                chunk({name: w})
                n += 1
                time.sleep(self.pause)
            send(": ping\r\n\r\n")
        if finish:
            chunk({}, finish)
            if body.get("stream_options", {}).get("include_usage"):
                prompt = sum(len(m["content"]) for m in body["messages"])
                send("data: %s\n\n" % json.dumps({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": n,
                     "total_tokens": prompt + n, "prompt_tokens_details": {"cached_tokens": prompt // 2}}}))
            send("data: [DONE]\n\n")
        h.wfile.write(b"0\r\n\r\n")
