"""Checks of POST /v1/chat/completions and /v1/completions: python3 tests/server/interface.py HADAL

Every mistake of other servers that we know of is among them. The models have random weights: what they write is noise,
but the same noise each time, and a bias can make them write what a check needs.
"""
import array
import json
import math
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kit import MODEL, Folder, Server, check, finish, together

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello there"}]
EOS = 1
VOCAB = json.load(open(MODEL + "/tokenizer.json", encoding="utf-8"))["model"]["vocab"]
END = "<｜end▁of▁sentence｜>"
SPECIAL = ("<｜begin▁of▁sentence｜>", END, "<｜▁pad▁｜>")
THINK_END = "431"

# DeepSeek-V3.1's form of tool calls, without its system text
TOOL_TEMPLATE = (
    "{{ bos_token }}{% if tools %}{% for t in tools %}{{ t['function']['name'] + ' ' }}{% endfor %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% elif m['role'] == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' }}"
    "{% elif m['tool_calls'] %}{{ '<｜Assistant｜></think>' + (m['content'] or '') + '<｜tool▁calls▁begin｜>' }}"
    "{% for c in m['tool_calls'] %}{{ '<｜tool▁call▁begin｜>' + c['function']['name'] + '<｜tool▁sep｜>' + "
    "c['function']['arguments'] + '<｜tool▁call▁end｜>' }}{% endfor %}{{ '<｜tool▁calls▁end｜>' + eos_token }}"
    "{% else %}{{ '<｜Assistant｜></think>' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{{ '<think>' if thinking else '</think>' }}{% endif %}")


def tool(name="look", properties=None, **more):
    properties = {"colour": {"type": "string", "enum": ["red", "green"]}} if properties is None else properties
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": dict({"name": name, "description": "Looks", "parameters": schema}, **more)}


def chat(**more):
    return dict({"messages": HELLO, "max_tokens": 8, "temperature": 0}, **more)


def text(**more):
    return dict({"prompt": "Once upon", "max_tokens": 8, "temperature": 0}, **more)


def message(reply, k=0):
    return reply.json["choices"][k]["message"]


def deltas(events, k=0):
    return [c["delta"] for e in events if e.json for c in e.json["choices"] if c["index"] == k]


def joined(events, member="content", k=0):
    return "".join(d.get(member) or "" for d in deltas(events, k))


def finishes(events, k=0):
    return [c["finish_reason"] for e in events if e.json for c in e.json["choices"]
            if c["index"] == k and c["finish_reason"]]


# --- mistakes of clients ------------------------------------------------------------------------------------------

def deep(n):
    return b'{"messages":' + b"[" * n + b"]" * n + b"}"


BAD = [  # name, path, body, status, what "param" begins with
    ("malformed JSON", CHAT, b'{"messages": [', 400, None),
    ("empty body", CHAT, b"", 400, None),
    ("empty body of completions", TEXT, b"", 400, None),
    ("body that is a list", CHAT, [], 400, None),
    ("body that is a number", TEXT, b"5", 400, None),
    ("deep JSON", CHAT, deep(3000), 400, None),
    ("very deep JSON", CHAT, deep(1000000), 400, None),
    ("JSON that would fill memory", CHAT, b'{"messages":[' + b"{}," * 1500000 + b"{}]}", 400, None),
    ("invalid UTF-8", CHAT, b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', 400, None),
    ("half a surrogate pair", CHAT, b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400, None),
    ("NaN", CHAT, b'{"messages":[{"role":"user","content":"a"}],"temperature":NaN}', 400, None),
    ("Infinity", CHAT, b'{"messages":[{"role":"user","content":"a"}],"temperature":1e999}', 400, None),
    ("a number beyond 64 bits", CHAT, b'{"messages":[{"role":"user","content":"a"}],"seed":99999999999999999999}', 400, None),
    ("the same member twice", CHAT, b'{"messages":[],"messages":[{"role":"user","content":"a"}]}', 400, None),
    ("messages missing", CHAT, {}, 400, "messages"),
    ("messages null", CHAT, {"messages": None}, 400, "messages"),
    ("messages empty", CHAT, {"messages": []}, 400, "messages"),
    ("messages a text", CHAT, {"messages": "Hello"}, 400, "messages"),
    ("a message that is a text", CHAT, {"messages": ["Hello"]}, 400, "messages[0]"),
    ("bad role", CHAT, {"messages": [{"role": "robot", "content": "a"}]}, 400, "messages[0]"),
    ("role a number", CHAT, {"messages": [{"role": 5, "content": "a"}]}, 400, "messages[0]"),
    ("role missing", CHAT, {"messages": [{"content": "a"}]}, 400, "messages[0]"),
    ("content missing", CHAT, {"messages": HELLO + [{"role": "user"}]}, 400, "messages[1]"),
    ("content a number", CHAT, {"messages": [{"role": "user", "content": 5}]}, 400, "messages[0]"),
    ("content a picture", CHAT, {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:,"}}]}]}, 400, "messages[0]"),
    ("a part without text", CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0]"),
    ("tool calls that are no list", CHAT, {"messages": HELLO + [{"role": "assistant", "tool_calls": 5}]}, 400, "messages[1]"),
    ("a tool call without a name", CHAT, {"messages": HELLO + [
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]}, 400, "messages[1]"),
    ("prefix on a message of the user", CHAT, {"messages": [dict(HELLO[0], prefix=True)]}, 400, "messages"),
    ("prefix in the middle", CHAT, {"messages": [
        {"role": "assistant", "content": "a", "prefix": True}, HELLO[0]]}, 400, "messages"),
    ("continuing a message of the user", CHAT, chat(continue_final_message=True), 400, "messages"),
    ("continuing behind a new turn", CHAT, chat(messages=HELLO + [{"role": "assistant", "content": "a"}],
                                               continue_final_message=True, add_generation_prompt=True), 400, "add_gen"),
    ("unknown model", CHAT, chat(model="gpt-4"), 404, "model"),
    ("unknown model of completions", TEXT, text(model="gpt-4"), 404, "model"),
    ("model a number", CHAT, chat(model=5), 400, "model"),
    ("stop a number", CHAT, chat(stop=5), 400, "stop"),
    ("stop a list of numbers", CHAT, chat(stop=["a", 5]), 400, "stop"),
    ("stop empty text", CHAT, chat(stop=""), 422, "stop"),
    ("17 stops", CHAT, chat(stop=["a%d" % i for i in range(17)]), 422, "stop"),
    ("temperature below 0", CHAT, chat(temperature=-1), 422, "temperature"),
    ("temperature above 2", CHAT, chat(temperature=2.1), 422, "temperature"),
    ("temperature a text", CHAT, chat(temperature="hot"), 400, "temperature"),
    ("top_p above 1", CHAT, chat(top_p=2), 422, "top_p"),
    ("top_p 0", CHAT, chat(top_p=0), 422, "top_p"),
    ("top_k below -1", CHAT, chat(top_k=-2), 422, "top_k"),
    ("top_k a real", CHAT, chat(top_k=1.5), 400, "top_k"),
    ("min_p above 1", CHAT, chat(min_p=1.5), 422, "min_p"),
    ("presence_penalty above 2", CHAT, chat(presence_penalty=3), 422, "presence_penalty"),
    ("frequency_penalty below -2", CHAT, chat(frequency_penalty=-3), 422, "frequency_penalty"),
    ("repetition_penalty 0", CHAT, chat(repetition_penalty=0), 422, "repetition_penalty"),
    ("n 0", CHAT, chat(n=0), 422, "n"),
    ("n a million", CHAT, chat(n=1000000), 422, "n"),
    ("n a text", CHAT, chat(n="2"), 400, "n"),
    ("max_tokens 0 in chat", CHAT, chat(max_tokens=0), 422, "max_tokens"),
    ("max_tokens below 0", CHAT, chat(max_tokens=-1), 422, "max_tokens"),
    ("max_tokens beyond 31 bits", CHAT, chat(max_tokens=1 << 40), 422, "max_tokens"),
    ("max_completion_tokens 0", CHAT, chat(max_completion_tokens=0), 422, "max_completion_tokens"),
    ("max_tokens a text", CHAT, chat(max_tokens="8"), 400, "max_tokens"),
    ("max_tokens 0 without echo", TEXT, text(max_tokens=0), 422, "max_tokens"),
    ("seed a text", CHAT, chat(seed="x"), 400, "seed"),
    ("stream a text", CHAT, chat(stream="yes"), 400, "stream"),
    ("stream_options a list", CHAT, chat(stream=True, stream_options=[1]), 400, "stream_options"),
    ("logprobs a number in chat", CHAT, chat(logprobs=5), 400, "logprobs"),
    ("top_logprobs 21", CHAT, chat(logprobs=True, top_logprobs=21), 422, "top_logprobs"),
    ("top_logprobs without logprobs", CHAT, chat(top_logprobs=2), 400, "top_logprobs"),
    ("logprobs true in completions", TEXT, text(logprobs=True), 400, "logprobs"),
    ("logprobs 21", TEXT, text(logprobs=21), 422, "logprobs"),
    ("logit_bias a list", CHAT, chat(logit_bias=[1]), 400, "logit_bias"),
    ("logit_bias of a word", CHAT, chat(logit_bias={"dog": 1}), 400, "logit_bias"),
    ("logit_bias of a token that is not there", CHAT, chat(logit_bias={"100000": 1}), 422, "logit_bias"),
    ("logit_bias of 200", CHAT, chat(logit_bias={"5": 200}), 422, "logit_bias"),
    ("logit_bias a text", CHAT, chat(logit_bias={"5": "1"}), 400, "logit_bias"),
    ("skip_special_tokens false", CHAT, chat(skip_special_tokens=False), 400, "skip_special_tokens"),
    ("response_format a text", CHAT, chat(response_format="json"), 400, "response_format"),
    ("response_format of another type", CHAT, chat(response_format={"type": "yaml"}), 400, "response_format"),
    ("json_schema without a schema", CHAT, chat(response_format={"type": "json_schema", "json_schema": {"name": "x"}}), 400, "response_format"),
    ("a bad schema", CHAT, chat(response_format={"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "nonsense"}}}), 400, "response_format"),
    ("a schema with a bad pattern", CHAT, chat(response_format={"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "string", "pattern": "(["}}}), 400, "response_format"),
    ("tools an object", CHAT, chat(tools={}), 400, "tools"),
    ("a tool that is a text", CHAT, chat(tools=["look"]), 400, "tools[0]"),
    ("a tool without a function", CHAT, chat(tools=[{"type": "function"}]), 400, "tools[0]"),
    ("a tool with a bad name", CHAT, chat(tools=[tool("two words")]), 400, "tools[0]"),
    ("a tool of another type", CHAT, chat(tools=[tool(), {"type": "magic"}]), 400, "tools[1]"),
    ("a tool's parameters a text", CHAT, chat(tools=[tool(parameters="x")]), 400, "tools[0]"),
    ("tool_choice without tools", CHAT, chat(tool_choice="required"), 400, "tool_choice"),
    ("tool_choice of another word", CHAT, chat(tools=[tool()], tool_choice="maybe"), 400, "tool_choice"),
    ("tool_choice of a tool that is not there", CHAT, chat(tools=[tool()], tool_choice={
        "type": "function", "function": {"name": "cook"}}), 400, "tool_choice"),
    ("parallel_tool_calls a text", CHAT, chat(tools=[tool()], parallel_tool_calls="no"), 400, "parallel"),
    ("functions, the old name", CHAT, chat(functions=[{"name": "x"}]), 400, "functions"),
    ("thinking of another type", CHAT, chat(thinking={"type": "maybe"}), 400, "thinking"),
    ("reasoning_effort a number", CHAT, chat(reasoning_effort=3), 400, "reasoning_effort"),
    ("chat_template_kwargs a list", CHAT, chat(chat_template_kwargs=[1]), 400, "chat_template_kwargs"),
    ("chat_template_kwargs with a list in it", CHAT, chat(chat_template_kwargs={"x": [1]}), 400, "chat_template_kwargs"),
    ("chat_template_kwargs with messages", CHAT, chat(chat_template_kwargs={"messages": "x"}), 400, "chat_template_kwargs"),
    ("chat_template_kwargs with a long text", CHAT, chat(chat_template_kwargs={"x": "x" * 100000}), 422, "chat_template_kwargs"),
    ("prompt missing", TEXT, {}, 400, "prompt"),
    ("prompt a number", TEXT, text(prompt=5), 400, "prompt"),
    ("prompt empty list", TEXT, text(prompt=[]), 400, "prompt"),
    ("an empty list of ids among prompts", TEXT, text(prompt=[[5], []]), 400, "prompt[1]"),
    ("a prompt of nothing", TEXT, text(prompt="", add_special_tokens=False), 400, "prompt"),
    ("ids that are no integers", TEXT, text(prompt=[1, 2.5]), 400, "prompt"),
    ("an id below 0", TEXT, text(prompt=[1, -5]), 422, "prompt"),
    ("an id that is not there", TEXT, text(prompt=[[1], [1 << 40]]), 422, "prompt[1]"),
    ("a thousand prompts", TEXT, text(prompt=["a"] * 1000), 422, "prompt"),
    ("too many log-probabilities", TEXT, text(prompt=[[5] * 1000] * 250, echo=True, logprobs=20), 422, "logprobs"),
    ("best_of other than n", TEXT, text(best_of=3), 400, "best_of"),
    ("echo a text", TEXT, text(echo="yes"), 400, "echo"),
    ("suffix a number", TEXT, text(suffix=5), 400, "suffix"),
    ("suffix where the vocabulary cannot", TEXT, text(suffix="the end"), 400, "suffix"),
]


def mistakes(s):
    for name, path, body, status, param in BAD:
        r = s.post(path, body)
        e = r.error
        good = r.status == status and set(e) == {"message", "type", "param", "code"} and e["message"]
        if param:
            good = good and (e["param"] or "").startswith(param)
        check("refused: " + name, good, r)
    r = s.post(CHAT, chat(messages=[{"role": "user", "content": "a " * 3000}]))
    check("refused: longer than the context", r.status == 400 and r.error["code"] == "context_length_exceeded", r)
    r = s.post(TEXT, text(prompt=[[5], [5] * 3000]))
    check("refused: a prompt longer than the context",
          r.status == 400 and r.error["code"] == "context_length_exceeded" and r.error["param"] == "prompt[1]", r)
    r = s.post(CHAT, chat(model="nothing"))
    check("refused: unknown model has its code", r.error.get("code") == "model_not_found", r)
    r = s.post(TEXT, text(prompt=["a", "b", 5], stream=True))
    check("refused: a mistake in a list before anything starts", r.status == 400, r)
    check("refused: the server still answers", s.post(CHAT, chat()).status == 200)


# --- chat ---------------------------------------------------------------------------------------------------------

def chats(s):
    r = s.post(CHAT, chat())
    j = r.json
    check("chat: members", r.status == 200 and j["object"] == "chat.completion" and j["id"].startswith("chatcmpl-") and
          abs(j["created"] - time.time()) < 100 and j["model"] and j["system_fingerprint"], r)
    c = j["choices"][0]
    check("chat: one choice", len(j["choices"]) == 1 and c["index"] == 0 and c["finish_reason"] == "length" and
          c["message"]["role"] == "assistant" and c["logprobs"] is None, r)
    check("chat: no reasoning, no calls", "reasoning_content" not in c["message"] and "tool_calls" not in c["message"], r)
    u = j["usage"]
    check("usage: adds up", u["completion_tokens"] == 8 and u["total_tokens"] == u["prompt_tokens"] + 8 and
          u["prompt_cache_hit_tokens"] + u["prompt_cache_miss_tokens"] == u["prompt_tokens"] and
          u["prompt_tokens_details"]["cached_tokens"] == u["prompt_cache_hit_tokens"] and
          u["completion_tokens_details"]["reasoning_tokens"] == 0, u)
    check("chat: greedy twice the same", message(s.post(CHAT, chat())) == c["message"])
    for path in ("/chat/completions", "/beta/chat/completions", "/beta/v1/chat/completions"):
        r = s.post(path, chat())
        check("chat: " + path, r.status == 200 and message(r) == c["message"], r)
    name = j["model"]
    check("chat: by the model's name", s.post(CHAT, chat(model=name)).status == 200)
    drawn = [message(s.post(CHAT, chat(temperature=1, seed=7)))["content"] for _ in range(2)]
    check("chat: a seed gives the same text", drawn[0] == drawn[1], drawn)
    others = {message(s.post(CHAT, chat(temperature=1.5)))["content"] for _ in range(4)}
    check("chat: no seed, other texts", len(others) > 1, others)
    two = s.post(CHAT, chat(max_tokens=3, max_completion_tokens=5)).json
    check("chat: max_completion_tokens counts before max_tokens", two["usage"]["completion_tokens"] == 5, two)
    r = s.post(CHAT, chat(max_tokens=1000000, ignore_eos=True), timeout=120)
    check("chat: a length beyond the context ends with it",
          r.status == 200 and r.json["choices"][0]["finish_reason"] == "length", r)
    for member in ({"user": "me"}, {"metadata": {"a": "b"}}, {"store": True}, {"service_tier": "auto"},
                   {"some_new_thing": [1]}, {"stop": None}, {"n": None}, {"tools": None}, {"tools": []},
                   {"response_format": {"type": "text"}}, {"logit_bias": {}}, {"top_k": -1}, {"frequency_penalty": 0}):
        r = s.post(CHAT, chat(**member))
        check("chat: accepts " + json.dumps(member), r.status == 200 and message(r) == c["message"], r)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}]
    check("chat: content in parts", message(s.post(CHAT, chat(messages=parts))) == c["message"])
    developer = s.post(CHAT, chat(messages=[{"role": "system", "content": "Be brief."}] + HELLO))
    check("chat: a system message", developer.status == 200 and
          developer.json["usage"]["prompt_tokens"] > u["prompt_tokens"], developer)


def endings(s):
    r = s.post(CHAT, chat(logit_bias={str(EOS): 100}))
    check("end: nothing but the end is an empty text", message(r)["content"] == "" and
          r.json["choices"][0]["finish_reason"] == "stop" and r.json["usage"]["completion_tokens"] == 1, r)
    r = s.post(CHAT, chat(logit_bias={str(EOS): 100}, ignore_eos=True))
    check("end: ignore_eos", r.json["usage"]["completion_tokens"] == 8, r)
    whole = message(s.post(CHAT, chat(max_tokens=24)))["content"]
    clean = re.search("[ -~]{2,}", whole[2:])
    stop = clean.group(0)[:3] if clean else whole[3:5]
    r = s.post(CHAT, chat(max_tokens=24, stop=["never so", stop]))
    check("end: stop text is left out", message(r)["content"] == whole[:whole.index(stop)] and
          r.json["choices"][0]["finish_reason"] == "stop", whole, stop, r)
    r = s.post(CHAT, chat(max_tokens=24, stop=stop))
    check("end: stop as a text", message(r)["content"] == whole[:whole.index(stop)], r)
    events = s.stream(CHAT, chat(max_tokens=24, stop=stop, stream=True)).events()
    check("end: no part of a stop text in a stream", joined(events) == whole[:whole.index(stop)], events)
    a = str(VOCAB["A"])
    r = s.post(CHAT, chat(logit_bias={a: 100}))
    check("sampling: logit_bias of 100", message(r)["content"] == "A" * 8, r)
    ids = s.post(TEXT, text(max_tokens=1, return_token_ids=True)).json["choices"][0]["token_ids"]
    r = s.post(TEXT, text(max_tokens=1, return_token_ids=True, logit_bias={str(ids[0]): -100}))
    check("sampling: logit_bias of -100", r.json["choices"][0]["token_ids"] != ids, r)
    r = s.post(CHAT, chat(max_tokens=12, frequency_penalty=2, presence_penalty=2, repetition_penalty=1.5))
    check("sampling: penalties", r.status == 200 and r.json["usage"]["completion_tokens"] == 12, r)
    greedy = message(s.post(CHAT, chat()))["content"]
    for how in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1}):
        r = s.post(CHAT, chat(temperature=2, **how))
        check("sampling: %s leaves the most likely" % json.dumps(how), message(r)["content"] == greedy, r)


def several(s):
    r = s.post(CHAT, chat(n=3, max_tokens=12))
    one = s.post(CHAT, chat(max_tokens=12)).json["usage"]["prompt_tokens"]
    check("n: usage is of all choices", r.json["usage"]["completion_tokens"] == 36 and
          r.json["usage"]["prompt_tokens"] == one, r)
    check("n: in order", [c["index"] for c in r.json["choices"]] == [0, 1, 2], r)
    r = s.post(CHAT, chat(n=4, temperature=1.5, seed=3))
    texts = [c["message"]["content"] for c in r.json["choices"]]
    check("n: choices differ", len(set(texts)) > 1, texts)
    again = [c["message"]["content"] for c in s.post(CHAT, chat(n=4, temperature=1.5, seed=3)).json["choices"]]
    check("n: with a seed all of them again", texts == again, texts, again)
    events = s.stream(CHAT, chat(n=4, temperature=1.5, seed=3, stream=True)).events()
    check("n: streamed the same", [joined(events, k=k) for k in range(4)] == texts, events)
    check("n: one end each", all(len(finishes(events, k)) == 1 for k in range(4)), events)
    alone = message(s.post(CHAT, chat(max_tokens=30)))["content"]
    many = together(*[lambda i=i: s.post(CHAT, chat(max_tokens=30 if i % 2 else 90,
                                                    temperature=0 if i % 2 else 1)) for i in range(16)])
    check("many: the same among others", all(message(r)["content"] == alone for r in many[1::2]), many)


def streams(s):
    whole = s.post(CHAT, chat(max_tokens=40, n=1))
    stream = s.stream(CHAT, chat(max_tokens=40, stream=True))
    events = stream.events()
    check("stream: type", stream.status == 200 and stream.headers["content-type"].startswith("text/event-stream"),
          stream.headers)
    check("stream: role first", deltas(events)[0].get("role") == "assistant" and
          not any("role" in d for d in deltas(events)[1:]), events)
    check("stream: ends with [DONE]", events[-1].data == "[DONE]" and all(e.json for e in events[:-1]), events)
    check("stream: one finish_reason, last", finishes(events) == ["length"] and
          events[-2].json["choices"][0]["finish_reason"] == "length", events)
    check("stream: the same text", joined(events) == message(whole)["content"], joined(events), whole)
    check("stream: chunks alike", {(e.json["id"], e.json["object"], e.json["model"], e.json["created"])
                                   for e in events[:-1]} == {(events[0].json["id"], "chat.completion.chunk",
                                                              whole.json["model"], events[0].json["created"])}, events)
    check("stream: no usage unasked", not any(e.json.get("usage") for e in events[:-1]), events)
    events = s.stream(CHAT, chat(stream=True, stream_options={"include_usage": True})).events()
    last = events[-2].json
    check("stream: usage in a chunk without choices", last["choices"] == [] and
          last["usage"]["completion_tokens"] == 8 and not any(e.json["usage"] for e in events[:-2]), events)
    events = s.stream(CHAT, chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})).events()
    counts = [e.json["usage"]["completion_tokens"] for e in events[:-1]]
    check("stream: usage all the time", counts == sorted(counts) and counts[-1] == 8, counts)
    events = s.stream(TEXT, text(max_tokens=40, stream=True)).events()
    pieces = [c for e in events if e.json for c in e.json["choices"]]
    check("stream: completions", "".join(c["text"] for c in pieces) ==
          s.post(TEXT, text(max_tokens=40)).json["choices"][0]["text"] and
          [c["finish_reason"] for c in pieces if c["finish_reason"]] == ["length"] and events[-1].data == "[DONE]", events)
    events = s.stream(TEXT, text(prompt=["One", "Two", "Three"], n=2, stream=True, stream_options={"include_usage": True})).events()
    check("stream: completions of several prompts", {c["index"] for e in events if e.json for c in e.json["choices"]} ==
          set(range(6)) and events[-2].json["usage"]["completion_tokens"] == 48, events)


def running(s):
    """Answers that the engine writes now, from the metrics."""
    m = re.search(r"^hadal_[a-z_]*running[a-z_]* (\d+)", s.get("/metrics").text, re.M)
    return int(m.group(1)) if m else None


def leaving(s):
    for i in range(20):
        stream = s.stream(CHAT, chat(max_tokens=1000, ignore_eos=True, stream=True, n=8))
        for _ in stream:
            break
        stream.close()
    for _ in range(200):
        if running(s) == 0:
            break
        time.sleep(0.05)
    check("gone: nothing runs for clients that left", running(s) == 0, s.get("/metrics").text)
    check("gone: others are answered", s.post(CHAT, chat()).status == 200)


# --- logprobs -----------------------------------------------------------------------------------------------------

def logprobs(s):
    r = s.post(CHAT, chat(logprobs=True, top_logprobs=3, max_tokens=20))
    content = r.json["choices"][0]["logprobs"]["content"]
    check("logprobs: of each token", len(content) == 20 and all(
        len(c["top_logprobs"]) == 3 and c["logprob"] <= 0 and isinstance(c["bytes"], list) for c in content), r)
    data = b"".join(bytes(c["bytes"]) for c in content if c["token"] not in SPECIAL)
    check("logprobs: bytes are the text's", data.decode("utf-8", "replace").replace("�", "") ==
          message(r)["content"].replace("�", ""), data, r)
    check("logprobs: greedy takes the first", all(c["logprob"] == c["top_logprobs"][0]["logprob"] and
                                                 c["token"] == c["top_logprobs"][0]["token"] for c in content), r)
    check("logprobs: most likely first", all(c["top_logprobs"] == sorted(c["top_logprobs"], key=lambda t: -t["logprob"])
                                             for c in content), r)
    events = s.stream(CHAT, chat(logprobs=True, top_logprobs=3, max_tokens=20, stream=True)).events()
    streamed = [x for e in events if e.json for c in e.json["choices"] if c["logprobs"] for x in c["logprobs"]["content"]]
    check("logprobs: the same in a stream", streamed == content, streamed)
    r0 = s.post(CHAT, chat(logprobs=True, max_tokens=3))
    check("logprobs: without the others", all(c["top_logprobs"] == [] for c in r0.json["choices"][0]["logprobs"]["content"]), r0)
    hot = s.post(CHAT, chat(logprobs=True, max_tokens=1, temperature=1.9, top_k=1))
    check("logprobs: of the model, whatever the temperature",
          hot.json["choices"][0]["logprobs"]["content"][0]["logprob"] == content[0]["logprob"], hot)

    r = s.post(TEXT, text(logprobs=2, max_tokens=10))
    lp = r.json["choices"][0]["logprobs"]
    check("logprobs: completions have their own form", set(lp) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"} and
          all(len(lp[k]) == 10 for k in lp) and all(2 <= len(t) <= 3 for t in lp["top_logprobs"]), r)
    r = s.post(TEXT, text(logprobs=0, max_tokens=2))
    check("logprobs: 0 is the chosen token alone", all(len(t) == 1 for t in r.json["choices"][0]["logprobs"]["top_logprobs"]), r)


def harness(s):
    """What lm-evaluation-harness asks for."""
    written = s.post(TEXT, text(prompt=[[0, 40, 50, 60]], max_tokens=6, logprobs=1, return_token_ids=True)).json["choices"][0]
    ids = [0, 40, 50, 60] + written["token_ids"]
    body = {"model": s.get("/v1/models").json["data"][0]["id"], "prompt": [ids, [0, 40, 70, 80, 90]], "temperature": 0,
            "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    r = s.post(TEXT, body)
    choices = r.json["choices"]
    check("harness: choices by index", r.status == 200 and [c["index"] for c in choices] == [0, 1], r)
    lp = choices[0]["logprobs"]
    check("harness: prompt and one token", [len(c["logprobs"]["token_logprobs"]) for c in choices] == [11, 6], r)
    check("harness: the first is null", all(c["logprobs"]["token_logprobs"][0] is None and
                                            c["logprobs"]["top_logprobs"][0] is None for c in choices), r)
    greedy = [a == max(t.values()) for a, t in zip(lp["token_logprobs"][4:10], lp["top_logprobs"][4:10])]
    check("harness: greedy tokens are the maximum, exactly", all(greedy), lp)
    check("harness: what was written has the same probabilities", all(
        abs(a - b) < 1e-3 for a, b in zip(lp["token_logprobs"][4:10], written["logprobs"]["token_logprobs"])), lp, written)
    other = choices[1]["logprobs"]
    check("harness: and other tokens are not", any(a != max(t.values()) for a, t in zip(
        other["token_logprobs"][1:5], other["top_logprobs"][1:5])), other)
    check("harness: ids are taken as they are", r.json["usage"]["prompt_tokens"] == len(ids) + 5, r)
    many = s.post(TEXT, dict(body, prompt=[ids] * 20))
    check("harness: a batch is as one", all(c["logprobs"] == lp for c in many.json["choices"]), many)
    again = s.post(TEXT, body)
    check("harness: cached is the same", again.json["choices"] == choices, again)
    r = s.post(TEXT, dict(body, max_tokens=0))
    check("harness: no token at all", r.status == 200 and len(r.json["choices"][0]["logprobs"]["tokens"]) == 10 and
          r.json["usage"]["completion_tokens"] == 0, r)
    r = s.post(TEXT, dict(body, logit_bias={str(EOS): 100}))
    check("harness: the end's token counts", [len(c["logprobs"]["token_logprobs"]) for c in r.json["choices"]] == [11, 6], r)
    r = s.post(TEXT, {"prompt": ["Question: x\nAnswer:"], "max_tokens": 16, "temperature": 0.0, "seed": 1,
                      "stop": ["\n\n", "Question:"]})
    check("harness: generation", r.status == 200 and isinstance(r.json["choices"][0]["text"], str), r)


# --- completions --------------------------------------------------------------------------------------------------

def completions(s):
    r = s.post(TEXT, text())
    j = r.json
    check("text: members", r.status == 200 and j["object"] == "text_completion" and j["id"].startswith("cmpl-") and
          j["choices"][0]["logprobs"] is None and j["choices"][0]["finish_reason"] == "length", r)
    one = j["choices"][0]["text"]
    r = s.post(TEXT, {"prompt": "Once upon"})
    check("text: 16 tokens by default", r.json["usage"]["completion_tokens"] <= 16, r)
    r = s.post(TEXT, text(echo=True))
    check("text: echo", r.json["choices"][0]["text"] == "Once upon" + one, r)
    events = s.stream(TEXT, text(echo=True, stream=True, logprobs=1)).events()
    check("text: echo in a stream", "".join(c["text"] for e in events if e.json for c in e.json["choices"]) ==
          "Once upon" + one, events)
    r = s.post(TEXT, text(echo=True, logprobs=1, max_tokens=3))
    lp = r.json["choices"][0]["logprobs"]
    check("text: offsets are characters", lp["text_offset"][:3] == [0, 0, 1] and all(
        r.json["choices"][0]["text"][o:].startswith(t) for o, t in zip(lp["text_offset"][1:6], lp["tokens"][1:6])), lp)
    check("text: BOS as the tokenizer does", lp["tokens"][0].startswith("<｜begin"), lp)
    bare = s.post(TEXT, text(add_special_tokens=False))
    check("text: without BOS", bare.json["usage"]["prompt_tokens"] == j["usage"]["prompt_tokens"] - 1, bare)
    r = s.post(TEXT, text(prompt=["Once upon", "A second"], n=2))
    two = [c["text"] for c in r.json["choices"]]
    second = s.post(TEXT, text(prompt="A second")).json["choices"][0]["text"]
    check("text: several prompts, index = prompt n + k", [c["index"] for c in r.json["choices"]] == [0, 1, 2, 3] and
          two == [one, one, second, second], r)
    check("text: usage of several prompts", r.json["usage"]["completion_tokens"] == 32, r)
    typed = s.post(TEXT, text(prompt="a" + END, max_tokens=1)).json["usage"]["prompt_tokens"]
    parsed = s.post(TEXT, text(prompt="a" + END, max_tokens=1, parse_special=True)).json["usage"]["prompt_tokens"]
    check("text: control tokens only when asked", parsed == 3 and typed > 8, typed, parsed)
    r = s.post(TEXT, text(prompt=[0, 40, 50], return_token_ids=True))
    check("text: one list of ids", r.status == 200 and len(r.json["choices"]) == 1 and
          len(r.json["choices"][0]["token_ids"]) == 8, r)
    r = s.post(TEXT, text(best_of=1, n=1, suffix="", user="x"))
    check("text: what changes nothing", r.json["choices"][0]["text"] == one, r)
    r = s.post("/completions", text())
    check("text: without /v1", r.status == 200 and r.json["choices"][0]["text"] == one, r)
    r = s.post(TEXT, text(prompt="x\u0000y", echo=True))
    check("text: a zero byte in a prompt", r.status == 200 and r.json["choices"][0]["text"].startswith("x\u0000y"), r)
    r = s.post(TEXT, text(prompt="ünï 漢字 👩‍👩‍👧", echo=True, logprobs=0, max_tokens=2))
    check("text: any characters come back", r.json["choices"][0]["text"].startswith("ünï 漢字 👩‍👩‍👧"), r)


# --- special tokens, thinking, prefix -----------------------------------------------------------------------------

def prompts(s):
    def tokens(content):
        return s.post(CHAT, chat(messages=[{"role": "user", "content": content}], max_tokens=1)).json["usage"]["prompt_tokens"]

    check("special: typed by a user is text", tokens("a" + END) - tokens("a") > 8, tokens("a" + END), tokens("a"))
    check("special: in other messages, too", s.post(CHAT, chat(messages=[
        {"role": "system", "content": END}, {"role": "assistant", "content": "<｜User｜>"}] + HELLO)).status == 200)
    forged = s.post(CHAT, chat(messages=[dict(HELLO[0], token_ids=[0, 1, 2])]))
    check("special: ids in a client's message are ignored", message(forged) == message(s.post(CHAT, chat())), forged)

    r = s.post(CHAT, chat(thinking={"type": "enabled"}))
    check("thinking: cut reasoning is all reasoning", message(r)["content"] is None and message(r)["reasoning_content"] and
          r.json["choices"][0]["finish_reason"] == "length" and
          r.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8, r)
    think = message(r)
    events = s.stream(CHAT, chat(thinking={"type": "enabled"}, stream=True)).events()
    check("thinking: streamed as reasoning_content", joined(events, "reasoning_content") == think["reasoning_content"] and
          joined(events) == "", events)
    off = message(s.post(CHAT, chat(thinking={"type": "disabled"})))
    check("thinking: off is plain content", "reasoning_content" not in off and off == message(s.post(CHAT, chat())), off)
    for member in ({"reasoning_effort": "high"}, {"reasoning_effort": "low"}, {"chat_template_kwargs": {"thinking": True}},
                   {"chat_template_kwargs": {"enable_thinking": True}},
                   {"thinking": {"type": "enabled"}, "reasoning_effort": "none"}):
        check("thinking: on by " + json.dumps(member), message(s.post(CHAT, chat(**member))) == think)
    for member in ({"reasoning_effort": "none"}, {"reasoning_effort": "minimal"},
                   {"chat_template_kwargs": {"thinking": False}, "reasoning_effort": "high"}):
        check("thinking: off by " + json.dumps(member), message(s.post(CHAT, chat(**member))) == off)
    r = s.post(CHAT, chat(thinking={"type": "enabled"}, logit_bias={THINK_END: 60}, max_tokens=3))
    check("thinking: the first </think> is in neither, and counts as reasoning", message(r) ==
          {"role": "assistant", "content": "</think>" * 2} and
          r.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1, r)
    old = HELLO + [{"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}] + HELLO
    check("thinking: old reasoning is no error", s.post(CHAT, chat(messages=old)).status == 200)
    cut = HELLO + [{"role": "assistant", "content": None, "reasoning_content": "Hm."}] + HELLO
    check("thinking: nor is a message of reasoning alone", s.post(CHAT, chat(messages=cut)).status == 200)
    r = s.post(CHAT, chat(thinking={"type": "enabled"}, logprobs=True))
    check("thinking: logprobs are the content's", r.json["choices"][0]["logprobs"] == {"content": []}, r)

    whole = message(s.post(CHAT, chat(max_tokens=12)))["content"]
    head = re.match("[ -~]*", whole).group(0)[:4]
    r = s.post(CHAT, chat(messages=HELLO + [{"role": "assistant", "content": head, "prefix": True}]))
    check("prefix: the answer goes on, without the prefix", r.status == 200 and
          r.json["usage"]["prompt_tokens"] > s.post(CHAT, chat()).json["usage"]["prompt_tokens"] and
          not (head and message(r)["content"].startswith(head + head)), r)
    r2 = s.post(CHAT, chat(messages=HELLO + [{"role": "assistant", "content": head}], continue_final_message=True))
    check("prefix: continue_final_message is the same", message(r2) == message(r), r2)
    r3 = s.post("/beta/chat/completions", chat(messages=HELLO + [{"role": "assistant", "content": head, "prefix": True}]))
    check("prefix: under /beta", r3.status == 200 and message(r3) == message(r), r3)

    long = [{"role": "user", "content": "word " * 100}]
    s.post(CHAT, chat(messages=long))
    r = s.post(CHAT, chat(messages=long + [{"role": "assistant", "content": "Yes"}] + HELLO))
    u = r.json["usage"]
    check("cache: the second turn is mostly cached", u["prompt_tokens"] - u["prompt_cache_hit_tokens"] < 64 and
          u["prompt_cache_hit_tokens"] > 100, u)


# --- JSON and tools -----------------------------------------------------------------------------------------------

def formats(s):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}},
              "required": ["colour", "sure"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}

    def fits(content):
        j = json.loads(content)
        return set(j) == {"colour", "sure"} and j["colour"] in ("red", "green") and isinstance(j["sure"], bool)

    for seed in range(3):
        r = s.post(CHAT, chat(response_format=form, max_tokens=200, temperature=1.5, seed=seed))
        check("format: a schema holds, seed %d" % seed, lambda: fits(message(r)["content"]) and
              r.json["choices"][0]["finish_reason"] == "stop", r)
    events = s.stream(CHAT, chat(response_format=form, max_tokens=200, stream=True)).events()
    check("format: streamed", lambda: fits(joined(events)), events)
    r = s.post(CHAT, chat(response_format={"type": "json_object"}, max_tokens=300, logit_bias={str(VOCAB["}"]): 20}))
    check("format: json_object", lambda: r.json["choices"][0]["finish_reason"] == "length" or
          isinstance(json.loads(message(r)["content"]), dict), r)
    r = s.post(CHAT, chat(response_format=form, thinking={"type": "enabled"}, max_tokens=400, logit_bias={THINK_END: 60}))
    check("format: behind the reasoning", lambda: fits(message(r)["content"]) and
          r.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1, r)


def calls(s, model):
    """With a checkpoint that has DeepSeek-V3.1's tool calls."""
    r = s.post(CHAT, chat(tools=[tool()], tool_choice="required", max_tokens=200, parallel_tool_calls=False))
    check("tools: required is a call", lambda: r.status == 200 and len(message(r)["tool_calls"]) == 1, r)
    call = (message(r).get("tool_calls") or [{}])[0] if r.status == 200 else {}
    check("tools: its members", lambda: re.fullmatch("call_[a-zA-Z0-9]{24}", call["id"]) and call["type"] == "function" and
          call["function"]["name"] == "look" and json.loads(call["function"]["arguments"])["colour"] in ("red", "green"), r)
    check("tools: finish_reason and no content", lambda: r.json["choices"][0]["finish_reason"] == "tool_calls" and
          message(r)["content"] is None, r)
    named = {"type": "function", "function": {"name": "cook"}}
    r2 = s.post(CHAT, chat(tools=[tool(), tool("cook")], tool_choice=named, max_tokens=200, temperature=1.5, seed=1))
    check("tools: the named one is called", lambda: {c["function"]["name"] for c in message(r2)["tool_calls"]} == {"cook"}, r2)
    events = s.stream(CHAT, chat(tools=[tool()], tool_choice="required", parallel_tool_calls=False, max_tokens=200,
                                 stream=True)).events()
    parts = [t for d in deltas(events) for t in d.get("tool_calls", [])]
    check("tools: a stream begins a call with id and name", lambda: parts[0]["index"] == 0 and parts[0]["type"] == "function" and
          parts[0]["id"].startswith("call_") and parts[0]["function"] == {"name": "look", "arguments": ""}, events)
    check("tools: then arguments in pieces", lambda: len(parts) > 2 and not any("id" in p for p in parts[1:]) and
          json.loads("".join(p["function"]["arguments"] for p in parts)) == json.loads(call["function"]["arguments"]), events)
    check("tools: one finish_reason in the stream", finishes(events) == ["tool_calls"], events)
    r3 = s.post(CHAT, chat(tools=[tool(properties={})], tool_choice="required", parallel_tool_calls=False, max_tokens=100))
    check("tools: a call without arguments has {}", lambda: json.loads(message(r3)["tool_calls"][0]["function"]["arguments"]) == {}, r3)
    r4 = s.post(CHAT, chat(tools=[tool()], tool_choice="none"))
    check("tools: none is none", r4.status == 200 and "tool_calls" not in message(r4), r4)
    r5 = s.post(CHAT, chat(tools=[tool()]))
    check("tools: auto is possible", r5.status == 200, r5)
    check("tools: tools are in the prompt", lambda: s.post(CHAT, chat(tools=[tool("look"), tool("cook")])).json["usage"]["prompt_tokens"] >
          s.post(CHAT, chat()).json["usage"]["prompt_tokens"])
    bad = s.post(CHAT, chat(tools=[tool(parameters={"type": "nonsense"})], tool_choice="required"))
    check("tools: a bad schema is the client's mistake", bad.status == 400 and bad.error["param"] == "tools", bad)
    both = s.post(CHAT, chat(tools=[tool()], response_format={"type": "json_object"}))
    check("tools: and a response_format are refused", both.status == 400 and both.error["param"] == "response_format", both)
    one = s.post(CHAT, chat(tools=[tool()], tool_choice="required", thinking={"type": "enabled"}, max_tokens=300,
                            parallel_tool_calls=False, logit_bias={THINK_END: 60}))
    check("tools: behind the reasoning", lambda: len(message(one)["tool_calls"]) == 1 and
          one.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1, one)
    if not call:
        return
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "42"}
    r6 = s.post(CHAT, chat(messages=HELLO + [said, result], tools=[tool()]))
    check("tools: a result is read", r6.status == 200, r6)
    written = r.json["usage"]["prompt_tokens"] + r.json["usage"]["completion_tokens"]
    u = r6.json.get("usage", {})
    check("tools: the next turn's prompt is what was written", u.get("prompt_cache_hit_tokens", 0) >= written - 1, u, written)
    spaced = dict(call, function=dict(call["function"], arguments=json.dumps(json.loads(call["function"]["arguments"]), indent=2)))
    r7 = s.post(CHAT, chat(messages=HELLO + [dict(said, tool_calls=[spaced]), result], tools=[tool()]))
    check("tools: also when the client writes the arguments in another way",
          r7.json["usage"]["prompt_tokens"] == u["prompt_tokens"], r7)
    edited = dict(call, function=dict(call["function"], arguments='{"colour": "something else altogether"}'))
    r8 = s.post(CHAT, chat(messages=HELLO + [dict(said, tool_calls=[edited]), result], tools=[tool()]))
    check("tools: an edited call is the edited one", r8.json["usage"]["prompt_tokens"] > u["prompt_tokens"], r8)
    odd = dict(call, function={"name": "look", "arguments": {"colour": "red"}})
    r9 = s.post(CHAT, chat(messages=HELLO + [dict(said, tool_calls=[odd]), result]))
    check("tools: arguments as an object", r9.status == 200, r9)
    broken = dict(call, function={"name": "look", "arguments": '{"colour": "re'})
    r10 = s.post(CHAT, chat(messages=HELLO + [dict(said, tool_calls=[broken]), result]))
    check("tools: broken arguments of an old turn are no fault of ours", r10.status < 500, r10)


def middle(s):
    """With a vocabulary that has the tokens for fill in the middle."""
    r = s.post(TEXT, text(prompt="def f(", suffix=")\n", logprobs=0, echo=True, max_tokens=2))
    tokens = r.json["choices"][0]["logprobs"]["tokens"] if r.status == 200 else []
    places = [tokens.index(t) if t in tokens else -1 for t in ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")]
    check("suffix: fills in the middle", 0 <= places[0] < places[1] < places[2], tokens, r)
    check("suffix: with the texts around the hole", tokens[places[0] + 1:places[1]] == list("def") + [" ", "f", "("] or
          "".join(tokens[places[0] + 1:places[1]]) == "def f(", tokens)
    r = s.post(TEXT, text(prompt="a", suffix=END, logprobs=0, echo=True, max_tokens=1))
    check("suffix: typed control tokens are text", END not in r.json["choices"][0]["logprobs"]["tokens"][:-1], r)
    r = s.post(TEXT, text(prompt=[5, 6], suffix="x"))
    check("suffix: needs a text", r.status == 400 and r.error["param"] == "suffix", r)


def crowded(program, model):
    with Server(program, model, "--queue", "1", "--sequences", "1", "--name", "another name") as s:
        names = [s.post(CHAT, chat(model=m)).status for m in ("another name", "checkpoint", "checkpoint/", "x")]
        check("model: by its name and its folder's", names == [200, 200, 404, 404], names)
        body = chat(max_tokens=1000, ignore_eos=True, n=2)
        replies = together(*[lambda: s.post(CHAT, body, timeout=120)] * 12)
        states = sorted(r.status for r in replies)
        check("crowd: answered or told to come back", set(states) == {200, 429}, states)
        full = [r for r in replies if r.status == 429]
        check("crowd: with Retry-After", full and all("retry-after" in r.headers and r.error["type"] and r.error["message"]
                                                      for r in full), full)
        r = s.post(CHAT, chat(n=3))
        check("crowd: more answers than could ever run", r.status == 422 and r.error["param"] == "n", r)
        check("crowd: afterwards all is well", s.post(CHAT, chat()).status == 200)


def reasoner(program):
    """The trained model: it reasons by itself, and its prompts are short enough to be read."""
    with Server(program, "models/tiny") as s:
        body = {"messages": [{"role": "user", "content": "c7+8-3+5-9"}], "temperature": 0, "max_tokens": 200}
        r = s.post(CHAT, body)
        m = message(r)
        check("reasoner: reasoning and answer apart", lambda: re.fullmatch("<answer>-?[0-9]+</answer>", m["content"]) and
              m["reasoning_content"] and "think>" not in json.dumps(m), r)
        check("reasoner: reasoning is counted, <think> and </think> with it", lambda: r.json["usage"][
            "completion_tokens_details"]["reasoning_tokens"] == len(m["reasoning_content"]) + 2, r)
        check("reasoner: it ends by itself", r.json["choices"][0]["finish_reason"] == "stop", r)
        events = s.stream(CHAT, dict(body, stream=True)).events()
        check("reasoner: streamed the same", (joined(events, "reasoning_content"), joined(events)) ==
              (m["reasoning_content"], m["content"]), events)
        order = [k for d in deltas(events)[1:] for k in d]
        check("reasoner: first the reasoning, then the answer", order == sorted(order, reverse=True), order)
        lp = s.post(CHAT, dict(body, logprobs=True)).json["choices"][0]["logprobs"]["content"]
        check("reasoner: logprobs are of the answer", "".join(t["token"] for t in lp) == m["content"], lp)
        cut = s.post(CHAT, dict(body, max_tokens=5))
        check("reasoner: cut while it reasons", message(cut)["content"] is None and
              cut.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5, cut)
        nothing = s.post(CHAT, dict(body, messages=[{"role": "user", "content": "Ünknown 漢"}]))
        check("reasoner: characters that the vocabulary has not", nothing.status == 400 or nothing.status == 200, nothing)


class Golden:
    """What transformers computed for a checkpoint: lists of numbers by name."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        n = int.from_bytes(self.data[:8], "little")
        self.head, self.at = json.loads(self.data[8:8 + n]), 8 + n

    def __getitem__(self, name):
        a, b = self.head[name]["data_offsets"]
        return array.array({"F32": "f", "I32": "i"}[self.head[name]["dtype"]], self.data[self.at + a:self.at + b]).tolist()


def log_softmax(row):
    top = max(row)
    return [x - top - math.log(sum(math.exp(y - top) for y in row)) for x in row]


def transformers(program):
    """Log-likelihoods and greedy answers are those of transformers on the same checkpoint."""
    golden = Golden(os.path.dirname(MODEL) + "/golden.safetensors")
    with Server(program, MODEL, "--compute", "f32") as s:
        for name in ("p7", "p64"):
            ids, logits = golden["ids." + name], golden["logits." + name]
            width = len(logits) // len(ids)
            rows = [log_softmax(logits[i * width:(i + 1) * width]) for i in range(len(ids))]
            r = s.post(TEXT, {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 5})
            lp = r.json["choices"][0]["logprobs"]
            far = max(abs(rows[i][t] - lp["token_logprobs"][i + 1]) for i, t in enumerate(ids[1:]))
            check("transformers: the same log-likelihoods, %s" % name, far < 1e-3, far)
            far = max(abs(a - b) for i in range(1, len(ids)) for a, b in
                      zip(sorted(rows[i - 1], reverse=True)[:5], sorted(lp["top_logprobs"][i].values(), reverse=True)))
            check("transformers: the same most likely tokens, %s" % name, far < 1e-3, far)
        bodies = [{"prompt": golden["ids." + name], "max_tokens": 32, "ignore_eos": True, "temperature": 0,
                   "return_token_ids": True} for name in ("p1", "p7", "p64")]
        answers = [r.json["choices"][0]["token_ids"] for r in together(*[lambda b=b: s.post(TEXT, b) for b in bodies])]
        check("transformers: the same greedy answers", answers == [golden["gen." + n] for n in ("p1", "p7", "p64")], answers)
        batch = [[golden["genbatch.row%d.%s" % (i, what)] for i in range(3)] for what in ("ids", "gen")]
        r = s.post(TEXT, {"prompt": batch[0], "max_tokens": 32, "ignore_eos": True, "temperature": 0, "return_token_ids": True})
        check("transformers: the same batch", [c["token_ids"] for c in r.json["choices"]] == batch[1], r)


def add_middle(tokenizer):
    tokenizer["added_tokens"] += [dict(tokenizer["added_tokens"][-1], id=443 + i, content=t)
                                  for i, t in enumerate(("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"))]


def main():
    program = sys.argv[1]
    with Server(program, MODEL) as s:
        for group in (mistakes, chats, endings, several, streams, leaving, logprobs, harness, completions, prompts, formats):
            group(s)
        check("no fault of ours: nothing was answered with 500", not re.search(r'completions",status="5', s.get("/metrics").text), s.get("/metrics").text)
        check("the server ends in peace", s.stop() == 0, s.lines[-3:])
    crowded(program, MODEL)
    transformers(program)
    reasoner(program)
    with Folder() as f:
        model = f.model("tools", tokenizer=add_middle,
                        tokenizer_config=lambda c: c.update(chat_template=TOOL_TEMPLATE))
        with Server(program, model) as s:
            calls(s, model)
            middle(s)
            check("the server with tools ends in peace", s.stop() == 0, s.lines[-3:])
    finish()


if __name__ == "__main__":
    main()
