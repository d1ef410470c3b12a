"""What the checks of the server share: starting it, requests, streams of events, checks with names.

    with Server(program, model, "--api-key-file", keys) as s:
        r = s.post("/v1/chat/completions", {"messages": [...]})
        check("chat: answers", r.status == 200, r)

Python's standard library only. A check prints `ok NAME` or `FAIL NAME why`; finish() ends the program accordingly.
"""
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

MODEL = "tests/data/models/v3_mtp/checkpoint"  # random weights, DeepSeek-V3's tokens
MODEL_V32 = "tests/data/models/v32/checkpoint"

failures = []


def check(name, good, *why):
    """Prints what came of a check. `good` may be a function: what it raises is a failure, too."""
    if callable(good):
        try:
            good = good()
        except Exception as x:  # a check that breaks off has failed
            good, why = False, why + (repr(x),)
    if good:
        print("ok " + name, flush=True)
    else:
        failures.append(name)
        print("FAIL %s %s" % (name, " ".join(str(w)[:600] for w in why)), flush=True)
    return bool(good)


def finish():
    sys.exit(1 if failures else 0)


class Reply:
    """A whole answer: status, headers (small letters), body; json and text of it."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The error's members, {} when there is none."""
        try:
            return self.json.get("error") or {}
        except ValueError:
            return {}

    def __repr__(self):
        return "%d %s" % (self.status, self.body[:500])


class Event:
    """Of a stream: event (None when only data came), data as text, json of it; [DONE] has json None."""

    def __init__(self, event, data):
        self.event, self.data = event, data
        self.json = None if data == "[DONE]" else json.loads(data)

    def __repr__(self):
        return "%s: %s" % (self.event, self.data)


class Stream:
    """An answer read event by event: for e in stream. comments: the comment lines so far. close() leaves early."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.comments = []

    def __iter__(self):
        event, data = None, []
        for line in iter(self.response.readline, b""):
            line = line.decode("utf-8").rstrip("\r\n")  # an event that splits a character is an error here
            if line.startswith(":"):
                self.comments.append(line)
            elif line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield Event(event, "\n".join(data))
                event, data = None, []
        self.close()

    def events(self):
        return list(self)

    def close(self):
        self.response.close()
        self.connection.close()


class Server:
    """hadal serve MODEL --port 0 ARGUMENTS..., ready for requests. lines: what it has printed so far."""

    def __init__(self, program, model=MODEL, *arguments, env=None, wait=60):
        self.lines, self.port = [], None
        self.process = subprocess.Popen(
            [program, "serve", model, "--port", "0", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", env=dict(os.environ, **(env or {})))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self._wait(wait)
        except BaseException:
            self.kill()
            raise

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _wait(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if not self.port:
                found = re.search(r"http://[^ /]*:(\d+)", "\n".join(self.lines))
                self.port = int(found.group(1)) if found else None
            if self.port:
                try:
                    if self.get("/health").status == 200:
                        return
                except OSError:
                    pass
            time.sleep(0.02)
        raise RuntimeError("the server did not start: " + "\n".join(self.lines))

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def open(self, method, path, body=None, headers=None, timeout=60):
        """A connection with a request sent, and its response, not read yet."""
        c = self.connect(timeout)
        h = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        if body is not None:
            h.setdefault("Content-Type", "application/json")
        c.request(method, path, body, h)
        return c, c.getresponse()

    def request(self, method, path, body=None, headers=None, timeout=60):
        c, r = self.open(method, path, body, headers, timeout)
        try:
            return Reply(r)
        finally:
            c.close()

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def post(self, path, body=None, headers=None, timeout=60):
        """body: bytes or text as they are, anything else as JSON."""
        return self.request("POST", path, body, headers, timeout)

    def stream(self, path, body, headers=None, timeout=60):
        return Stream(*self.open("POST", path, body, headers, timeout))

    def alive(self):
        return self.process.poll() is None

    def stop(self, seconds=30):
        """SIGTERM; gives the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.alive():
            self.stop()


class Folder:
    """A temporary folder; model(FROM) copies a checkpoint there, with changed members of its JSON files."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="hadal-serve-")
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def file(self, name, text):
        path = os.path.join(self.path, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def model(self, name, model=MODEL, **changes):
        """changes: tokenizer=function, tokenizer_config=function, generation_config=function ...: each changes the
        JSON of NAME.json in place."""
        to = shutil.copytree(model, os.path.join(self.path, name))
        for member, change in changes.items():
            path = os.path.join(to, member + ".json")
            with open(path, encoding="utf-8") as f:
                j = json.load(f)
            change(j)
            with open(path, "w", encoding="utf-8") as f:
                json.dump(j, f)
        return to


def together(*calls):
    """Runs functions at once; their results in order. What one raises is its result."""
    results = [None] * len(calls)

    def one(i):
        try:
            results[i] = calls[i]()
        except Exception as x:
            results[i] = x

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(calls))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results
