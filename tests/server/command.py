"""hadal serve as a command: options, environment, what it prints, signals, systemd's socket.

usage: command.py HADAL
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time

from kit import Folder, Server, check, finish

PROGRAM = sys.argv[1]
TINY = "models/tiny"
LONG_MODEL = "tests/data/models/qwen2/checkpoint"
LONG = {"prompt": "a", "max_tokens": 4000, "ignore_eos": True, "n": 8, "stream": True}


def fails(name, arguments, text, env=None, code=2):
    r = subprocess.run([PROGRAM, "serve", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=60, env=dict(os.environ, **(env or {})))
    check("command: " + name, r.returncode == code and text in r.stderr, r.returncode, r.stdout, r.stderr)


def wrong_arguments():
    fails("no model", [], "MODEL is missing")
    fails("no such folder", ["/nowhere"], "/nowhere: No such file")
    fails("a size is no number", [TINY, "--cache-memory", "4X"], "--cache-memory is '4X'")
    fails("a negative size", [TINY, "--max-body", "-1M"], "--max-body is '-1M'")
    fails("a size without a unit", [TINY, "--max-body", "8"], "--max-body is '8'")
    fails("a port that there is not", [TINY, "--port", "65536"], "--port is 65536")
    fails("a port from the environment", [TINY], "--port is 'x'", {"HADAL_PORT": "x"})
    fails("a host that there is not", [TINY, "--port", "0", "--host", "no.such.host.invalid"], "no address to listen on")
    fails("no file of keys", [TINY, "--port", "0", "--api-keys", "/nowhere"], "/nowhere")
    fails("drafts without an MTP layer", [TINY, "--port", "0", "--drafts", "1"], "MTP layer")


def what_it_prints():
    with Server(PROGRAM, TINY, "--cache-memory", "8M", "--context", "100") as s:
        text = "\n".join(s.lines)
        check("command: prints the memory plan", "memory   weights 1.44 MiB" in text and " tokens in all" in text, text)
        check("command: prints what was limited", "100 tokens of prompt and answer (the model: 256; --context)" in text, text)
        taken = subprocess.run([PROGRAM, "serve", TINY, "--port", str(s.port)], capture_output=True, text=True,
                               timeout=60)
        check("command: a port that is taken", taken.returncode == 1 and "another port" in taken.stderr, taken)
        check("command: SIGTERM ends it with 0", s.stop() == 0)
        check("command: says that it stops", s.lines[-1] == "stopping", s.lines[-3:])
    with Server(PROGRAM, TINY, "--json") as s:
        s.get("/nowhere")
        s.stop()
        lines = [json.loads(line) for line in s.lines]
        check("command: --json prints JSON alone", [x.get("event") for x in lines if "event" in x] ==
              ["listening", "ready", "stopping"] and lines[-2]["status"] == 404, s.lines)
    with Server(PROGRAM, TINY, "--quiet", env={"HADAL_NAME": "other", "HADAL_HOST": "0.0.0.0", "HADAL_JSON": "0"}) as s:
        names = [m["id"] for m in s.get("/v1/models").json["data"]]
        check("command: options from the environment", names == ["other"], names)
        check("command: warns when everybody may ask", any("no API keys" in x for x in s.lines), s.lines)
        check("command: --quiet prints no requests", not any("/v1/models" in x for x in s.lines), s.lines)
    with Server(PROGRAM, TINY, "--name", "given", env={"HADAL_NAME": "other"}) as s:
        check("command: an option beats the environment", s.get("/v1/models").json["data"][0]["id"] == "given")
    with Folder() as f, Server(PROGRAM, TINY, "--host", "0.0.0.0", "--api-keys", f.file("keys", "one\n")) as s:
        check("command: keys are asked for", s.get("/v1/models").status == 401)
        check("command: a key opens", s.get("/v1/models", {"Authorization": "Bearer one"}).status == 200)
        check("command: no warning with keys", not any("no API keys" in x for x in s.lines), s.lines)


def signals():
    with Server(PROGRAM, LONG_MODEL, "--cache-memory", "200M", "--drain-seconds", "60") as s:
        stream = s.stream("/v1/completions", dict(LONG, max_tokens=200, n=1))
        events = iter(stream)
        next(events)
        s.process.send_signal(signal.SIGTERM)
        rest = list(events)
        check("signals: a running answer is finished", rest[-1].data == "[DONE]", rest[-1])
        check("signals: then it ends with 0", s.process.wait(30) == 0)
    for which in signal.SIGTERM, signal.SIGINT:
        with Server(PROGRAM, LONG_MODEL, "--cache-memory", "200M", "--drain-seconds", "60") as s:
            stream = s.stream("/v1/completions", LONG)
            next(iter(stream))
            s.process.send_signal(which)
            end = time.monotonic() + 20
            while s.get("/health").status != 503 and time.monotonic() < end:
                pass
            health, refused = s.get("/health"), s.post("/v1/completions", LONG)
            s.process.send_signal(which)
            code = s.process.wait(30)
            check("signals: %s drains" % which.name, health.json == {"status": "draining"} and refused.status == 503 and
                  "retry-after" in refused.headers, health, refused)
            check("signals: a second %s ends it at once" % which.name, code == 0, code)
            stream.close()
    with Server(PROGRAM, LONG_MODEL, "--cache-memory", "200M", "--drain-seconds", "0") as s:
        stream = s.stream("/v1/completions", LONG)
        next(iter(stream))
        check("signals: --drain-seconds 0 waits for nothing", s.stop() == 0)
        stream.close()


def systemd():
    for abstract in False, True:
        with Folder() as f:
            path = os.path.join(f.path, "notify")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as n:
                n.bind("\0" + path if abstract else path)
                n.settimeout(30)
                with Server(PROGRAM, TINY, env={"NOTIFY_SOCKET": "@" + path if abstract else path}) as s:
                    ready = n.recv(100)
                    s.stop()
                    check("systemd: %s socket" % ("abstract" if abstract else "named"),
                          (ready, n.recv(100)) == (b"READY=1", b"STOPPING=1"), ready)


wrong_arguments()
what_it_prints()
signals()
systemd()
finish()
