"""Load and hard times: load.py PROGRAM [SECONDS [PART...]]; parts: bench, mixed, slow, restart, alike, drain.

600 seconds is the long test of memory and descriptors, a tenth of it its warm-up.
"""
import http.client
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from kit import MODEL, MODEL_V32, Folder, Server, check, finish, together

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
WORDS = "sum count list state table river stone paper light seven after under about point 12 345 6 ü 中 ?".split()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yy", None]}},
          "required": ["a", "b"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "description": "d", "parameters": {
    "type": "object", "properties": {"q": {"type": "string", "maxLength": 8}, "k": {"type": "integer"}},
    "required": ["q"], "additionalProperties": False}}} for name in ("look_up", "add")]


class Wrong(Exception):
    pass


def need(good, *why):
    if not good:
        raise Wrong(" ".join(str(w)[:400] for w in why))


# --- requests and what their answers must be -------------------------------------------------------------------------

def text_of(r, least=1, most=60):
    return " ".join(r.choice(WORDS) for _ in range(r.randint(least, most)))


def messages(r):
    m = [{"role": "system", "content": "Be short."}] if r.random() < 0.5 else []
    for _ in range(r.randint(0, 2)):
        m += [{"role": "user", "content": text_of(r)}, {"role": "assistant", "content": text_of(r, 1, 9)}]
    return m + [{"role": "user", "content": text_of(r)}]


def sampling(r, most=40):
    return {"max_tokens": r.randint(1, most), "temperature": r.choice([0, 0.6, 1]), "seed": r.randint(0, 9),
            "top_p": r.choice([1, 0.9])}


def whole(reply, n=1):
    need(reply.status == 200, reply)
    j = reply.json
    need([c["index"] for c in j["choices"]] == list(range(n)), j)
    need(all(c["finish_reason"] in ("stop", "length", "tool_calls") for c in j["choices"]), j)
    u = j["usage"]
    need(u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] and u["prompt_tokens"] > 0, u)
    return j


def streamed(stream, n=1):
    """The choices of a stream put together: text, calls, finish."""
    need(stream.status == 200, stream.status)
    out = [{"text": "", "calls": {}, "finish": None} for _ in range(n)]
    done = False
    for event in stream:
        need(not done, "behind [DONE]", event)
        done = event.json is None
        for c in [] if done else event.json.get("choices", [event]):
            need(isinstance(c, dict), event)
            o, delta = out[c["index"]], c.get("delta", c)
            need(o["finish"] is None, "behind the finish", event)
            o["text"] += delta.get("content") or delta.get("text") or ""
            for call in delta.get("tool_calls") or []:
                f = o["calls"].setdefault(call["index"], ["", ""])
                f[0] += call["function"].get("name") or ""
                f[1] += call["function"].get("arguments") or ""
            o["finish"] = c["finish_reason"]
    need(done and all(o["finish"] in ("stop", "length", "tool_calls") for o in out), out)
    return out


def chat(s, r):
    whole(s.post(CHAT, {"messages": messages(r), **sampling(r)}))


def chat_stream(s, r):
    n = r.choice([1, 1, 3])
    streamed(s.stream(CHAT, {"messages": messages(r), "stream": True, "n": n, **sampling(r)}), n)


def chat_many(s, r):
    j = whole(s.post(CHAT, {"messages": messages(r), "n": 3, "logprobs": True, "top_logprobs": 2, **sampling(r)}), 3)
    need(j["usage"]["completion_tokens"] >= 3, j["usage"])


def completion(s, r):
    whole(s.post(PLAIN, {"prompt": text_of(r, 1, 200), "stop": ["5", "zz"], **sampling(r)}))


def completion_stream(s, r):
    streamed(s.stream(PLAIN, {"prompt": text_of(r), "n": 2, "stream": True, **sampling(r)}), 2)


def echo(s, r):
    prompts = [[r.randint(16, 255) for _ in range(r.randint(2, 30))] for _ in range(r.randint(1, 4))]
    j = whole(s.post(PLAIN, {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}),
              len(prompts))
    for p, c in zip(prompts, j["choices"]):
        need(len(c["logprobs"]["token_logprobs"]) == len(p) + 1, c)


def tools(s, r):
    j = whole(s.post(CHAT, {"messages": messages(r), "tools": TOOLS, "tool_choice": "required", **sampling(r, 600)}))
    c = j["choices"][0]
    for call in c["message"].get("tool_calls") or [] if c["finish_reason"] == "tool_calls" else []:
        need("q" in json.loads(call["function"]["arguments"]), call)
    return c["finish_reason"]


def tools_stream(s, r):
    out = streamed(s.stream(CHAT, {"messages": messages(r), "tools": TOOLS, "stream": True, **sampling(r, 600),
                                   "tool_choice": {"type": "function", "function": {"name": "add"}}}))[0]
    for name, arguments in out["calls"].values() if out["finish"] == "tool_calls" else []:
        need(name == "add" and "q" in json.loads(arguments), out)
    return out["finish"]


def schema(s, r):
    form = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}
    c = whole(s.post(CHAT, {"messages": messages(r), "response_format": form, **sampling(r, 120)}))["choices"][0]
    if c["finish_reason"] == "stop":
        j = json.loads(c["message"]["content"])
        need(set(j) == {"a", "b"} and isinstance(j["a"], int) and j["b"] in ("x", "yy", None), c)
    return c["finish_reason"]


def anthropic(s, r):
    reply = s.post("/v1/messages", {"model": "m", "messages": [{"role": "user", "content": text_of(r)}],
                                    "max_tokens": r.randint(1, 30)})
    need(reply.status == 200 and reply.json["usage"]["output_tokens"] > 0, reply)


def responses(s, r):
    reply = s.post("/v1/responses", {"input": text_of(r), "max_output_tokens": r.randint(1, 30)})
    need(reply.status == 200 and reply.json["usage"]["output_tokens"] > 0, reply)


def look(s, r):
    for path in r.sample(["/health", "/v1/models", "/metrics", "/version", "/"], 2):
        need(s.get(path).status == 200, path)


def leave(s, r):
    """Aborts: in the stream, or before anything has come."""
    body = {"messages": messages(r), "stream": True, "n": r.choice([1, 4]), "max_tokens": 500, "ignore_eos": True}
    if r.random() < 0.3:
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            text = json.dumps({**body, "stream": r.random() < 0.5}).encode()
            head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(text))
            c.sendall((head + text)[:r.choice([len(head) // 2, len(head) + 9, 1 << 20])])
        return
    stream = s.stream(CHAT, body)
    need(stream.status == 200, stream.status)
    for _ in itertools.islice(stream, r.randint(1, 20)):
        pass
    stream.close()


WRONG = [
    (CHAT, b'{"messages": [', 400), (CHAT, {"messages": []}, 400), (CHAT, b"", 400), (CHAT, b"\xff\xfe", 400),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "temperature": -1}, 422),
    (CHAT, {"messages": [{"role": "user", "content": "x"}], "n": 10 ** 6}, 422),
    (CHAT, {"model": "no-such-model", "messages": [{"role": "user", "content": "x"}]}, 404),
    (CHAT, {"messages": [{"role": "user", "content": "x " * 9000}]}, 400),
    (PLAIN, {"prompt": [1 << 30]}, 422), (PLAIN, {"prompt": "x", "stop": 5}, 400), ("/v1/nothing", {}, 404),
    (PLAIN, b"[" * 5000, 400),
]


def mistake(s, r):
    path, body, status = r.choice(WRONG)
    reply = s.post(path, body)
    need(reply.status == status and reply.error.get("message"), "%d wanted," % status, body, reply)


KINDS = [chat, chat, chat_stream, chat_stream, chat_many, completion, completion_stream, echo, tools, tools_stream,
         schema, anthropic, responses, look, leave, leave, mistake]


class Load:
    """`parallel` clients that ask one random thing after the other until stop(). counts: how often which kind
    ended how; wrong: what should not have come."""

    def __init__(self, server, parallel, kinds=KINDS, seed=0):
        self.server, self.kinds, self.end = server, kinds, threading.Event()
        self.counts, self.wrong, self.lock = {}, [], threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(seed * 1000 + i,)) for i in range(parallel)]
        for t in self.threads:
            t.start()

    def _run(self, seed):
        r = random.Random(seed)
        while not self.end.is_set():
            kind = r.choice(self.kinds)
            try:
                end, why = kind(self.server, r), None
            except Exception as x:  # whatever it is, the check below tells it
                end, why = "wrong", "%s: %r" % (kind.__name__, x)
            with self.lock:
                self.counts[kind.__name__, end] = self.counts.get((kind.__name__, end), 0) + 1
                self.wrong += [why] if why else []
            if not self.server.alive():
                return

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join()
        return sum(self.counts.values())

    def run(self, seconds):
        self.end.wait(seconds)
        return self.stop()


# --- the process ------------------------------------------------------------------------------------------------------

def resident(s):
    with open("/proc/%d/status" % s.process.pid) as f:
        return int(re.search(r"VmRSS:\s*(\d+)", f.read()).group(1)) / 1024


def descriptors(s):
    return len(os.listdir("/proc/%d/fd" % s.process.pid))


def metric(s, part):
    """The sum of all samples whose name has this part."""
    lines = [x for x in s.get("/metrics").text.splitlines() if part in x.split("{")[0] and not x.startswith("#")]
    need(lines, "no metric", part)
    return sum(float(x.rsplit(" ", 1)[1]) for x in lines)


def settled(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def idle(s):
    return metric(s, "requests_running") == 0 and metric(s, "requests_waiting") == 0


# --- the parts --------------------------------------------------------------------------------------------------------

def serve(program, *options, model=MODEL, memory="16M"):
    # a sanitizer shall not keep freed memory: it would look like a leak
    return Server(program, model, "--name", "m", "--quiet", "--cache-memory", memory, *options,
                  env={"ASAN_OPTIONS": "quarantine_size_mb=1"})


def v32(folder):
    """A checkpoint with tools: without a template it has DeepSeek-V3.2's format."""
    return folder.model("v32", MODEL_V32, tokenizer_config=lambda c: c.pop("chat_template"),
                        config=lambda c: c.update(max_position_embeddings=4096))


def mixed(program, seconds):
    with Folder() as f, serve(program, model=v32(f)) as s:
        chat(s, random.Random(0))
        before = descriptors(s)
        warm = Load(s, 64, seed=1)
        warm.run(max(3, seconds / 10))
        check("load: idle after the warm-up", lambda: settled(lambda: idle(s)))
        memory = resident(s)
        load = Load(s, 64, seed=2)
        n = load.run(seconds)
        wrong = warm.wrong + load.wrong
        check("load: every answer of %d parallel streams is right" % 64, not wrong, len(wrong), wrong[:5])
        least = 500 if seconds >= 300 else 50
        check("load: at least %d requests" % least, n >= least, n, load.counts)
        ends = set(warm.counts) | set(load.counts)
        check("load: every kind of request had its turn", {k for k, _ in ends} == {k.__name__ for k in KINDS}, ends)
        check("load: tool calls and JSON by a schema were complete",
              {("tools", "tool_calls"), ("tools_stream", "tool_calls"), ("schema", "stop")} <= ends, ends)
        check("load: nothing runs afterwards", lambda: settled(lambda: idle(s)))
        grown = resident(s) - memory
        print("%d requests, %.1f MB after the warm-up, %+.1f MB since" % (n, memory, grown))
        check("load: memory grew by less than 20 MB", grown < 20, grown)
        check("load: descriptors are as many as before", lambda: settled(lambda: descriptors(s) <= before), before,
              descriptors(s))
        check("load: SIGTERM ends it", s.stop() == 0)


def slow_client(s, how, end):
    """A connection that trickles its header or its body, or does not read the answer."""
    body = json.dumps({"prompt": "slow", "max_tokens": 900, "ignore_eos": True, "stream": True, "n": 2}).encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PLAIN.encode(), len(body))
    c = socket.socket()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    c.connect(("127.0.0.1", s.port))
    try:
        rest = b"" if how == 2 else body if how == 1 else head + body
        c.sendall((head + body)[:len(head + body) - len(rest)])
        for byte in rest:
            if end.wait(0.3):
                break
            c.sendall(bytes([byte]))
        end.wait()
    except OSError:
        pass  # the server may close it
    c.close()


def broken_off(s, n=60):
    """Clients that send a part of a request and leave, all at once: the end comes together with the bytes."""
    whole_request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{}"
    for i in range(n):
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            c.sendall(whole_request[:[10, 40, len(whole_request)][i % 3]])


def slow(program, seconds):
    with Folder() as f, serve(program, model=v32(f)) as s:
        chat(s, random.Random(0))
        before, end = descriptors(s), threading.Event()
        threads = [threading.Thread(target=slow_client, args=(s, i % 3, end)) for i in range(100)]
        for t in threads:
            t.start()
        load = Load(s, 64, seed=3)
        check("slow: 100 connections are there", lambda: settled(lambda: descriptors(s) >= before + 100))
        n = load.run(seconds)
        check("slow: all else is answered meanwhile", n >= 50 and not load.wrong, n, len(load.wrong), load.wrong[:5])
        end.set()
        for t in threads:
            t.join()
        check("slow: nothing runs when they are gone", lambda: settled(lambda: idle(s)))
        check("slow: nor are they held", lambda: settled(lambda: descriptors(s) <= before), before, descriptors(s))
        broken_off(s)
        check("slow: nor those that broke off", lambda: settled(lambda: descriptors(s) <= before, 5), before,
              descriptors(s))
    with serve(program, "--idle-seconds", "1") as s:
        chat(s, random.Random(0))
        before, end = descriptors(s), threading.Event()
        threads = [threading.Thread(target=slow_client, args=(s, 0, end)) for i in range(3)]
        for t in threads:
            t.start()
        silent = socket.create_connection(("127.0.0.1", s.port))
        silent.settimeout(20)
        check("slow: a silent connection is closed", lambda: silent.recv(1) == b"")
        silent.close()
        end.set()
        for t in threads:
            t.join()


LONG = " ".join("%d %s" % (i, w) for i, w in enumerate(WORDS * 3))


def ask(s, seed=None, prompt=LONG, most=40):
    """A completion's text and usage."""
    body = {"prompt": prompt, "max_tokens": most, "ignore_eos": True}
    body.update({"temperature": 0} if seed is None else {"temperature": 1, "seed": seed})
    j = whole(s.post(PLAIN, body))
    return j["choices"][0]["text"], j["usage"]


def cached(usage):
    return usage["prompt_tokens_details"]["cached_tokens"]


def pages(folder):
    return [os.path.join(folder, x) for x in os.listdir(folder) if x.endswith(".page")]


def restart(program, _seconds):
    with Folder() as f:
        folder = f.path + "/cache"
        options = ["--cache-folder", folder]
        with serve(program, *options) as s:
            text, usage = ask(s)
            check("restart: a first prompt is not in the cache", cached(usage) == 0, usage)
            again, usage = ask(s)
            check("restart: its repetition is, with the same answer", cached(usage) > 0 and again == text, usage)
            check("restart: both pages come into the folder", lambda: settled(lambda: len(pages(folder)) == 2))
            s.kill()
        with serve(program, *options) as s:
            again, usage = ask(s)
            check("restart: after kill -9 the prompt is in the cache", cached(usage) > 0, usage, s.lines)
            check("restart: and the answer the same", again == text, text, again)
            with serve(program, *options) as second:
                check("restart: a second server on the folder runs without it", ask(second)[0] == text, second.lines)
                check("restart: and says so", any("folder" in x for x in second.lines), second.lines)
        good = []
        for i in range(6):
            with serve(program, *options) as s:
                again, usage = ask(s)
                good.append(again == text and cached(usage) > 0)
                load = Load(s, 8, [completion], seed=10 + i)
                time.sleep(0.15)
                s.kill()
                load.stop()
        check("restart: the same after six kills while pages are written", all(good), good)
        for path in pages(folder):
            with open(path, "r+b") as page:
                page.seek(-7, 2)
                page.write(b"damaged")
        with serve(program, *options) as s:
            again, usage = ask(s)
            check("restart: damaged files are not used", again == text and cached(usage) == 0, usage)
            check("restart: which is said", any("damaged" in x for x in s.lines), s.lines)


def alike(program, _seconds):
    cases = [(None, LONG), (None, "one"), (None, text_of(random.Random(5), 80, 80)), (3, LONG), (4, "two")]

    def all_of(s):
        return [ask(s, seed, prompt, 100)[0] for seed, prompt in cases]

    with serve(program) as s:
        alone = all_of(s)
        check("alike: seeds matter", ask(s, 5, "two", 100)[0] != alone[4])
        load = Load(s, 30, [k for k in KINDS if k not in (tools, tools_stream)], seed=4)
        crowd = all_of(s) + all_of(s)
        load.stop()
        check("alike: the same texts while 30 others run", crowd == alone * 2, alone, crowd)
        check("alike: whose answers are right", not load.wrong, load.wrong[:5])
    with serve(program, memory="3M") as s:
        together(*[lambda: ask(s, None, text_of(random.Random(i), 200, 200), 300) for i in range(30)])
        load = Load(s, 30, [completion, completion_stream, chat_stream], seed=5)
        crowd = all_of(s)
        results = together(*[lambda c=c: ask(s, c[0], c[1], 100)[0] for c in cases * 4])
        load.stop()
        check("alike: there was so little memory that answers were put back", lambda: metric(s, "preemptions") > 0)
        check("alike: the same texts with little memory", crowd + results == alone * 5, alone, crowd, results)
        check("alike: and right answers", not load.wrong, load.wrong[:5])
    with serve(program, "--drafts", "2") as s:
        load = Load(s, 8, [completion, completion_stream], seed=6)
        crowd = all_of(s)
        load.stop()
        check("alike: the same greedy texts with drafts", crowd[:3] == alone[:3], alone, crowd)
        check("alike: of which some were right", lambda: metric(s, "drafts_accepted") > 0)


def drain(program, _seconds):
    with serve(program) as s:
        body = {"prompt": LONG, "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 8, "temperature": 0}
        streams = [s.stream(PLAIN, body) for _ in range(4)]
        first = [next(iter(x)) for x in streams]
        s.process.send_signal(signal.SIGTERM)
        refused = settled(lambda: s.get("/v1/models").status == 503, 5)
        check("drain: new requests get 503", refused)
        ends = together(*[lambda x=x: streamed(x, 8) for x in streams])
        check("drain: streams that run end as they should",
              all(isinstance(e, list) and {o["finish"] for o in e} == {"length"} for e in ends), first, ends)
        try:
            code = s.process.wait(20)
        except Exception as x:
            code = x
        check("drain: then it ends with exit code 0", code == 0, code, s.lines[-5:])


def bench(program, _seconds):
    def run(target, *more):
        p = subprocess.run([program, "bench", "--serve", target, "--clients", "1,3", "--requests", "2", "-p", "20",
                            "-n", "9", *more], capture_output=True, text=True, timeout=120)
        need(p.returncode == 0, p.stderr)
        return p.stdout

    def right(j):
        need([(x["clients"], x["requests"], x["errors"], x["tokens"]) for x in j["levels"]] ==
             [(1, 2, 0, 18), (3, 6, 0, 54)], j)
        need(j["levels"][0]["times_one_client"] == 1 and all(x["first_token_ms_p50"] > 0 for x in j["levels"]), j)
        first, second = j["conversation"]
        need(first["cached_tokens"] < 20 and second["prompt_tokens"] == first["prompt_tokens"] + 9 + 32, j)
        need(second["read_again_tokens"] < 64, j)
        return True

    check("bench: a model", lambda: right(json.loads(run(MODEL, "--json"))[0]))
    with serve(program) as s:
        check("bench: a running server", lambda: right(json.loads(run("http://127.0.0.1:%d" % s.port, "--json"))[0]))
        check("bench: as tables", lambda: "read again" in run("http://127.0.0.1:%d/v1" % s.port))


PARTS = {"bench": bench, "mixed": mixed, "slow": slow, "restart": restart, "alike": alike, "drain": drain}

if __name__ == "__main__":
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5
    for name in sys.argv[3:] or PARTS:
        try:
            PARTS[name](program, seconds if name == "mixed" else min(seconds, 30))
        except (OSError, RuntimeError, Wrong, http.client.HTTPException) as x:
            check(name + ": breaks off", False, repr(x))
    finish()
