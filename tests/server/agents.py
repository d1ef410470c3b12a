"""What coding agents use: /v1/messages, /v1/messages/count_tokens and /v1/responses of `hadal serve`.

    python3 tests/server/agents.py build/hadal

Small random models: grammars make them call tools, all else they write is noise (but at temperature 0 the same noise
each time). Prints `ok NAME` or `FAIL NAME why`.
"""
import json
import sys

from kit import MODEL_V32, Folder, Server, check, finish

USER = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
          "required": ["city", "days"], "additionalProperties": False}
NAMES = ["weather", "clock"]


def changed(o, **members):
    """A copy with members changed; None takes one out."""
    return {k: v for k, v in {**o, **members}.items() if v is not None}


def fits(value):
    return (isinstance(value, dict) and set(value) == {"city", "days"} and value["city"] in ("Paris", "Rome")
            and value["days"] in (1, 2, 3))


# --- /v1/messages -----------------------------------------------------------------------------------------------------

MESSAGE = {"model": "m", "max_tokens": 24, "temperature": 0, "messages": USER}
TOOLS = [{"name": n, "description": "Tells it.", "input_schema": SCHEMA} for n in NAMES]
ANY = changed(MESSAGE, max_tokens=400, tools=TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True})


def text_of(message):
    return "".join(b["text"] for b in message["content"] if b["type"] == "text")


def all_input(message):
    u = message["usage"]
    return u["input_tokens"] + u["cache_read_input_tokens"]


def gathered(events):
    """The message that a stream's events make, as the Python client puts it together; raises where they are wrong."""
    message, parts = None, {}
    for e in events:
        d = e.json
        assert e.event == d["type"], e
        if e.event == "message_start":
            assert message is None
            message = d["message"]
            assert message["content"] == [] and message["stop_reason"] is None, e
        elif e.event == "content_block_start":
            assert d["index"] == len(message["content"]), e
            message["content"].append(d["content_block"])
            parts[d["index"]] = ""
        elif e.event == "content_block_delta":
            block, delta = message["content"][d["index"]], d["delta"]
            assert d["index"] == len(message["content"]) - 1 and d["index"] in parts, e
            kinds = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json",
                     "signature_delta": "signature"}
            key = kinds[delta["type"]]
            if key == "signature":
                block[key] = delta[key]
            else:
                assert delta[key], e
                parts[d["index"]] += delta[key]
        elif e.event == "content_block_stop":
            block, whole = message["content"][d["index"]], parts.pop(d["index"])
            if block["type"] == "tool_use":
                block["input"] = json.loads(whole) if whole else {}
            else:
                block[block["type"]] = whole
        elif e.event == "message_delta":
            assert not parts, "a block is still open"
            message.update(d["delta"])
            message["usage"].update(d["usage"])
        else:
            assert e.event in ("message_stop", "ping"), e
    assert events[-1].event == "message_stop"
    return message


def same_message(a, b):
    def plain(m):
        content = [changed(c, id=None, signature=None) for c in m["content"]]
        return content, m["stop_reason"], m["stop_sequence"], all_input(m), m["usage"]["output_tokens"], m["model"]

    return plain(a) == plain(b)


def messages_plain(s):
    r = s.post("/v1/messages?beta=true", MESSAGE, {"anthropic-version": "2023-06-01", "x-api-key": "any"})
    if not check("messages: answers", r.status == 200 and r.json["type"] == "message", r):
        return
    m = r.json
    check("messages: members", m["role"] == "assistant" and m["id"].startswith("msg_") and m["model"] == "m", r)
    check("messages: text", [b["type"] for b in m["content"]] == ["text"], r)
    check("messages: cut by max_tokens", m["stop_reason"] == "max_tokens" and m["stop_sequence"] is None, r)
    check("messages: usage", m["usage"]["output_tokens"] == 24 and m["usage"]["cache_creation_input_tokens"] == 0, r)
    check("messages: request-id", len(r.headers.get("request-id", "")) > 8, r.headers)
    chat = s.post("/v1/chat/completions", MESSAGE).json
    check("messages: the same as a chat completion", text_of(m) == chat["choices"][0]["message"]["content"], m, chat)
    check("messages: counts the prompt's tokens", all_input(m) == chat["usage"]["prompt_tokens"], m, chat)
    r = s.post("/v1/messages/count_tokens", changed(MESSAGE, max_tokens=None))
    check("count_tokens: as many as are read", r.status == 200 and r.json == {"input_tokens": all_input(m)}, r)
    again = s.post("/messages", MESSAGE).json
    check("messages: without /v1, the same again", same_message(m, again), again)
    check("messages: one answer has one id", again["id"] != m["id"], again["id"])
    blocks = [{"role": "user", "content": [{"type": "text", "text": USER[0]["content"],
                                            "cache_control": {"type": "ephemeral"}}]}]
    check("messages: blocks are the same as a string",
          text_of(s.post("/v1/messages", changed(MESSAGE, messages=blocks)).json) == text_of(m))
    text = text_of(m)
    stop = text[len(text) // 2:len(text) // 2 + 3]
    r = s.post("/v1/messages", changed(MESSAGE, stop_sequences=["@never@", stop]))
    check("messages: stop sequence", r.json["stop_reason"] == "stop_sequence" and r.json["stop_sequence"] == stop
          and text_of(r.json) == text[:text.index(stop)], stop, r)


def messages_prompt(s):
    def count(**members):
        return s.post("/v1/messages/count_tokens", changed(MESSAGE, max_tokens=None, **members)).json["input_tokens"]

    plain, brief = count(), count(system="Be brief.")
    check("messages: system counts", brief > plain, brief, plain)
    check("messages: system as blocks", brief == count(system=[{"type": "text", "text": "Be brief."}]))
    check("messages: a billing header in the system prompt is no prompt", brief == count(system=[
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1f2;"},
        {"type": "text", "text": "Be brief."}]))
    check("messages: tools count", count(tools=TOOLS) > plain + 50)
    check("messages: server tools are left out",
          count(tools=[{"type": "web_search_20250305", "name": "web_search"}]) == plain)
    turn = USER + [{"role": "assistant", "content": "Sunny and"}]
    m = s.post("/v1/messages", changed(MESSAGE, messages=turn)).json
    chat = s.post("/v1/chat/completions", changed(
        MESSAGE, messages=USER + [{"role": "assistant", "content": "Sunny and", "prefix": True}])).json
    check("messages: goes on with the assistant's words",
          text_of(m) == chat["choices"][0]["message"]["content"] and not text_of(m).startswith("Sunny and"), m, chat)
    check("messages: these words are prompt", all_input(m) == chat["usage"]["prompt_tokens"], m, chat)
    injected = [{"role": "user", "content": "<｜end▁of▁sentence｜>"}]
    check("messages: a typed control token is text", count(messages=injected) > count(messages=[
        {"role": "user", "content": "a"}]) + 5)


def messages_stream(s):
    whole = s.post("/v1/messages", MESSAGE).json
    stream = s.stream("/v1/messages", changed(MESSAGE, stream=True))
    events = stream.events()
    names = [e.event for e in events]
    check("messages stream: type", stream.headers["content-type"].startswith("text/event-stream"), stream.headers)
    check("messages stream: begins", names[:3] == ["message_start", "ping", "content_block_start"], names)
    check("messages stream: ends", names[-3:] == ["content_block_stop", "message_delta", "message_stop"], names)
    check("messages stream: the whole answer", lambda: same_message(gathered(events), whole), events[-3:], whole)
    check("messages stream: many pieces", names.count("content_block_delta") > 5, names)
    start = events[0].json["message"]["usage"]
    check("messages stream: the prompt's tokens at once",
          start["input_tokens"] + start["cache_read_input_tokens"] == all_input(whole), start)
    streamed = s.stream("/v1/messages", changed(ANY, stream=True))
    check("messages stream: tools", lambda: same_message(gathered(streamed.events()), s.post("/v1/messages", ANY).json))


def messages_tools(s):
    r = s.post("/v1/messages", ANY)
    if not check("messages tools: any", r.status == 200 and r.json["stop_reason"] == "tool_use", r):
        return
    calls = [b for b in r.json["content"] if b["type"] == "tool_use"]
    check("messages tools: one call", len(calls) == 1 and calls[0]["name"] in NAMES, r)
    check("messages tools: input by its schema", fits(calls[0]["input"]), r)
    check("messages tools: id", calls[0]["id"].startswith("call_"), r)
    check("messages tools: max_tokens beyond the context", s.post("/v1/messages", changed(ANY, max_tokens=64000)).json[
        "stop_reason"] == "tool_use")
    r2 = s.post("/v1/messages", changed(ANY, tool_choice={"type": "tool", "name": "clock"}))
    named = [b["name"] for b in r2.json["content"] if b["type"] == "tool_use"]
    check("messages tools: a named one", named and set(named) == {"clock"}, r2)
    none = s.post("/v1/messages", changed(ANY, max_tokens=24, tool_choice={"type": "none"}))
    check("messages tools: none", all(b["type"] == "text" for b in none.json["content"]), none)
    auto = s.post("/v1/messages", changed(ANY, max_tokens=24, tool_choice=None))
    check("messages tools: auto", auto.status == 200, auto)
    turn = changed(ANY, messages=USER + [
        {"role": "assistant", "content": r.json["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": calls[0]["id"], "is_error": False,
                                      "content": [{"type": "text", "text": "Rain."}]}]}])
    second = s.post("/v1/messages", turn)
    check("messages tools: a result is answered", second.status == 200, second)
    check("messages tools: the second turn reads few tokens anew", second.json["usage"]["input_tokens"] < 64, second)
    check("messages tools: the second turn finds the first one", second.json["usage"]["cache_read_input_tokens"] >=
          (all_input(r.json) + r.json["usage"]["output_tokens"]) // 64 * 64, second, r)
    image = json.loads(json.dumps(turn))
    image["messages"][2]["content"][0]["content"] = [{"type": "image", "source": {"type": "base64", "data": ""}}]
    check("messages tools: an image as a result is told of", s.post("/v1/messages", image).status == 200)
    schema = changed(MESSAGE, max_tokens=200, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    r = s.post("/v1/messages", schema)
    check("messages: answers by a schema", lambda: fits(json.loads(text_of(r.json))), r)


def messages_threads(s):
    """The beta that the Python client's tool runner uses: the server keeps what was said."""
    first = s.post("/v1/messages", changed(ANY, system="Be brief.", thread={"type": "create"})).json
    call = [b for b in first["content"] if b["type"] == "tool_use"][0]
    new = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "Rain."}]}
    go_on = {"type": "continue", "previous_message_id": first["id"]}
    second = s.post("/v1/messages", changed(ANY, tools=None, messages=[new], thread=go_on))
    whole = s.post("/v1/messages", changed(ANY, system="Be brief.", messages=USER + [
        {"role": "assistant", "content": first["content"]}, new]))
    check("messages threads: as if all were sent", lambda: same_message(second.json, whole.json), second, whole)
    third = changed(ANY, tools=None, messages=USER, thread={"type": "continue", "previous_message_id":
                                                            second.json["id"]})
    check("messages threads: and further", s.post("/v1/messages", third).status == 200)
    lost = s.post("/v1/messages", changed(third, thread={"type": "continue", "previous_message_id": "msg_0"}))
    check("messages threads: lost", lost.status == 404 and lost.error["details"] == {"error_code": "thread_not_found"},
          lost)
    bad = s.post("/v1/messages", changed(third, messages="x"))
    check("messages threads: messages should be a list", bad.status == 400, bad)


def messages_thinking(s):
    on = changed(MESSAGE, max_tokens=10, thinking={"type": "enabled", "budget_tokens": 1024})
    r = s.post("/v1/messages", on)
    m = r.json
    check("messages thinking: cut inside it is all thinking", [b["type"] for b in m["content"]] == ["thinking"]
          and m["stop_reason"] == "max_tokens" and m["content"][0]["thinking"] and m["content"][0]["signature"], r)
    check("messages thinking: counted", m["usage"]["output_tokens_details"] == {"thinking_tokens": 10}, r)
    events = s.stream("/v1/messages", changed(on, stream=True)).events()
    check("messages thinking: stream", lambda: same_message(gathered(events), m), events[:4])
    check("messages thinking: signature in the stream",
          any(e.json.get("delta", {}).get("type") == "signature_delta" for e in events), events)
    off = s.post("/v1/messages", changed(MESSAGE, thinking={"type": "disabled"})).json
    check("messages thinking: disabled", all(b["type"] == "text" for b in off["content"]), off)
    back = changed(MESSAGE, messages=USER + [{"role": "assistant", "content": m["content"] + [
        {"type": "text", "text": "So."}]}, {"role": "user", "content": "And?"}])
    check("messages thinking: comes back without an error", s.post("/v1/messages", back).status == 200)


def messages_errors(s):
    def error(name, code, kind, body, *words):
        r = s.post("/v1/messages", body)
        e = r.error
        check("messages error: " + name, r.status == code and r.json.get("type") == "error" and e.get("type") == kind
              and all(w in e.get("message", "") for w in words), r)

    bad = "invalid_request_error"
    error("no max_tokens", 400, bad, changed(MESSAGE, max_tokens=None), "max_tokens")
    error("max_tokens 0", 400, bad, changed(MESSAGE, max_tokens=0), "max_tokens")
    error("no model", 400, bad, changed(MESSAGE, model=None), "model")
    error("unknown model", 404, "not_found_error", changed(MESSAGE, model="nobody"), "nobody")
    error("no messages", 400, bad, changed(MESSAGE, messages=[]), "messages")
    error("temperature", 400, bad, changed(MESSAGE, temperature=1.5), "temperature")
    error("no JSON", 400, bad, b"{")
    error("image", 400, bad, changed(MESSAGE, messages=[{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]}]),
        "messages[0].content[0]", "image")
    error("unknown tool", 400, bad, changed(ANY, tool_choice={"type": "tool", "name": "x"}), "tool_choice")
    error("too long a prompt", 400, bad, changed(MESSAGE, messages=[{"role": "user", "content": "word " * 20000}]),
          "tokens")
    r = s.post("/v1/messages/count_tokens", {"model": "m"})
    check("count_tokens error: no messages", r.status == 400 and r.json["type"] == "error", r)
    check("messages error: GET", s.get("/v1/messages").status == 405)


def like_claude_code(s):
    """The form of Claude Code's requests (2.1), as it came over the line: two turns, a stream each."""
    path = "/v1/messages?beta=true"
    headers = {"anthropic-version": "2023-06-01", "x-app": "cli", "Authorization": "Bearer any",
               "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,effort-2025-11-24"}
    read = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {
        "file_path": {"type": "string", "description": "The file's path."},
        "offset": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991},
        "pages": {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$", "maxLength": 9}},
        "required": ["file_path"], "additionalProperties": False}
    body = {
        "model": "m", "max_tokens": 24, "stream": True, "thinking": {"type": "adaptive", "display": "updates"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"}, "metadata": {"user_id": "{}"},
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.f8c; cch=00001;"},
                   {"type": "text", "text": "You are an agent. " * 40, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "Read", "description": "Reads a file.", "input_schema": read},
                  {"name": "Later", "description": "Waits.", "input_schema": read, "defer_loading": True},
                  {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "<system-reminder>\nA\n</system-reminder>"},
                                                  {"type": "text", "text": "What is in a.txt?"}]},
                     {"role": "system", "content": [{"type": "text", "text": "# Environment\n - Platform: linux",
                                                     "cache_control": {"type": "ephemeral"}}]}]}
    first = s.stream(path, body, headers).events()
    check("like Claude Code: a turn", lambda: gathered(first)["content"], first[-1:])
    plain = s.post("/v1/messages/count_tokens?beta=true", changed(body, max_tokens=None, stream=None), headers)
    found = [{"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "Read", "input": {}}]},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": [
                 {"type": "tool_reference", "tool_name": "Later"}]}]}]
    more = s.post("/v1/messages/count_tokens?beta=true",
                  changed(body, max_tokens=None, stream=None, messages=body["messages"] + found), headers)
    check("like Claude Code: a tool that waits is brought in", plain.status == 200
          and more.json.get("input_tokens", 0) > plain.json["input_tokens"] + 100, plain, more)
    turn = json.loads(json.dumps(body))
    turn["system"][0]["text"] = turn["system"][0]["text"].replace("00001", "fffff")
    turn["messages"] += [{"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Read",
                                                            "input": {"file_path": "a.txt"}}]},
                         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                                                       "content": "1\thello", "cache_control": {"type": "ephemeral"}}]}]
    second = s.stream(path, turn, headers).events()
    check("like Claude Code: another turn", lambda: gathered(second)["content"], second[-1:])
    usage = second[-2].json["usage"]
    check("like Claude Code: what was read is not read again", usage["cache_read_input_tokens"] >
          plain.json["input_tokens"] - 64, usage, plain)


# --- /v1/responses ----------------------------------------------------------------------------------------------------

RESPONSE = {"model": "m", "input": USER[0]["content"], "max_output_tokens": 24, "temperature": 0}
FUNCTIONS = [{"type": "function", "name": n, "description": "Tells it.", "parameters": SCHEMA, "strict": True}
             for n in NAMES]
CALLS = changed(RESPONSE, max_output_tokens=400, tools=FUNCTIONS, tool_choice="required", parallel_tool_calls=False)


def output_text(response):
    return "".join(p["text"] for i in response["output"] if i["type"] == "message" for p in i["content"])


def built(events):
    """The output items that a stream's events make; raises where they are wrong."""
    output, open_item, part, text, sequence = [], None, None, "", 0
    for e in events:
        d = e.json
        assert d["type"] == e.event and d["sequence_number"] == sequence, e
        sequence += 1
        if "output_index" in d:
            assert d["output_index"] == len(output), e
        if "item_id" in d:
            assert d["item_id"] == open_item["id"], e
        if e.event == "response.output_item.added":
            assert open_item is None and d["item"]["status"] == "in_progress", e
            open_item, part, text = d["item"], None, ""
        elif e.event.endswith("part.added"):
            part = d["part"]
        elif e.event.endswith(".delta"):
            text += d["delta"]
        elif e.event.endswith("part.done"):
            assert d["part"]["text"] == text and d["part"]["type"] == part["type"], e
        elif e.event == "response.output_item.done":
            assert d["item"]["id"] == open_item["id"] and d["item"]["status"] != "in_progress", e
            output.append(d["item"])
            open_item = None
        elif e.event.endswith(".done"):
            assert d.get("text", d.get("arguments", d.get("input"))) == text, e
    assert open_item is None and output == events[-1].json["response"]["output"]
    return output


def same_response(a, b):
    def plain(r):
        items = [changed(i, id=None, call_id=None) for i in r["output"]]
        return items, r["status"], r["usage"]["input_tokens"], r["usage"]["output_tokens"]

    return plain(a) == plain(b)


def responses_plain(s):
    r = s.post("/v1/responses", RESPONSE)
    if not check("responses: answers", r.status == 200 and r.json["object"] == "response", r):
        return
    o = r.json
    check("responses: id", o["id"].startswith("resp_") and o["created_at"] > 1e9 and o["model"] == "m", r)
    check("responses: cut by max_output_tokens", o["status"] == "incomplete"
          and o["incomplete_details"] == {"reason": "max_output_tokens"} and o["error"] is None, r)
    item = o["output"][0]
    check("responses: a message", len(o["output"]) == 1 and item["type"] == "message" and item["role"] == "assistant"
          and item["id"].startswith("msg_") and item["status"] == "incomplete", r)
    part = item["content"][0]
    check("responses: its part", part["type"] == "output_text" and part["annotations"] == [], part)
    chat = s.post("/v1/chat/completions", {"model": "m", "messages": USER, "max_tokens": 24, "temperature": 0}).json
    check("responses: the same as a chat completion", output_text(o) == chat["choices"][0]["message"]["content"], r)
    u = o["usage"]
    check("responses: usage", u["input_tokens"] == chat["usage"]["prompt_tokens"] and u["output_tokens"] == 24
          and u["total_tokens"] == u["input_tokens"] + 24 and u["output_tokens_details"] == {"reasoning_tokens": 0}
          and "cached_tokens" in u["input_tokens_details"], u, chat["usage"])
    items = [[{"role": "user", "content": USER[0]["content"]}],
             [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": USER[0]["content"]}]}]]
    for i, form in enumerate(items):
        check("responses: input as items, form %d" % (i + 1),
              same_response(s.post("/v1/responses", changed(RESPONSE, input=form)).json, o))
    r = s.post("/v1/responses/input_tokens", RESPONSE)
    check("responses: input tokens", r.json == {"object": "response.input_tokens",
                                                "input_tokens": u["input_tokens"]}, r)

    def count(**members):
        return s.post("/v1/responses/input_tokens", changed(RESPONSE, **members)).json["input_tokens"]

    brief = count(instructions="Be brief.")
    check("responses: instructions", brief > count())
    check("responses: developer messages are instructions",
          brief == count(input=[{"role": "developer", "content": "Be brief."}] + items[0]))
    check("responses: tools of the API's server are left out", count(tools=[{"type": "web_search"}]) == count())
    schema = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}
    r = s.post("/v1/responses", changed(RESPONSE, max_output_tokens=200, text=schema))
    check("responses: answers by a schema", lambda: fits(json.loads(output_text(r.json))), r)
    check("responses: completed", lambda: r.json["status"] == "completed" and r.json["completed_at"]
          and r.json["text"] == schema, r)
    r = s.post("/v1/responses", changed(RESPONSE, include=["message.output_text.logprobs"], top_logprobs=2))
    entries = r.json["output"][0]["content"][0].get("logprobs", [])
    check("responses: logprobs", len(entries) == 24 and all(len(e["top_logprobs"]) == 2 for e in entries), r)


def responses_stream(s):
    whole = s.post("/v1/responses", RESPONSE).json
    events = s.stream("/v1/responses", changed(RESPONSE, stream=True)).events()
    names = [e.event for e in events]
    check("responses stream: begins", names[:4] == ["response.created", "response.in_progress",
                                                    "response.output_item.added", "response.content_part.added"], names)
    check("responses stream: ends", names[-4:] == ["response.output_text.done", "response.content_part.done",
                                                   "response.output_item.done", "response.incomplete"], names)
    check("responses stream: events fit together", lambda: built(events), events[-1:])
    check("responses stream: the whole answer", same_response(events[-1].json["response"], whole), events[-1:], whole)
    check("responses stream: the response begins empty", events[0].json["response"]["status"] == "in_progress"
          and events[0].json["response"]["output"] == [] and events[0].json["response"]["usage"] is None, events[0])
    events = s.stream("/v1/responses", changed(CALLS, stream=True)).events()
    check("responses stream: tools", lambda: [i["type"] for i in built(events)][-1] == "function_call", events[-1:])
    check("responses stream: tools, the whole answer",
          same_response(events[-1].json["response"], s.post("/v1/responses", CALLS).json), events[-1:])
    check("responses stream: completed", events[-1].event == "response.completed", events[-1])


def responses_tools(s):
    r = s.post("/v1/responses", CALLS)
    calls = [i for i in r.json.get("output", []) if i["type"] == "function_call"]
    if not check("responses tools: required", len(calls) == 1 and r.json["status"] == "completed", r):
        return
    call = calls[0]
    check("responses tools: the call", call["name"] in NAMES and call["call_id"].startswith("call_")
          and call["id"].startswith("fc_") and call["status"] == "completed", r)
    check("responses tools: arguments by the schema", lambda: fits(json.loads(call["arguments"])), r)
    r2 = s.post("/v1/responses", changed(CALLS, tool_choice={"type": "function", "name": "clock"}))
    check("responses tools: a named one", {i["name"] for i in r2.json["output"] if i["type"] == "function_call"}
          == {"clock"}, r2)
    r2 = s.post("/v1/responses", changed(CALLS, tool_choice={"type": "allowed_tools", "mode": "required", "tools": [
        {"type": "function", "name": "weather"}]}))
    check("responses tools: allowed ones", {i["name"] for i in r2.json["output"] if i["type"] == "function_call"}
          == {"weather"}, r2)
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Rain."}
    second = s.post("/v1/responses", changed(CALLS, input=USER + r.json["output"] + [result]))
    cached = second.json["usage"]["input_tokens_details"]["cached_tokens"]
    check("responses tools: the second turn reads few tokens anew",
          second.json["usage"]["input_tokens"] - cached < 64, second)
    short = s.post("/v1/responses", changed(CALLS, input=[result], previous_response_id=r.json["id"]))
    check("responses tools: previous_response_id is the same prompt", same_response(second.json, short.json)
          and short.json["previous_response_id"] == r.json["id"], second, short)
    references = [{"type": "item_reference", "id": i["id"]} for i in r.json["output"]]
    third = s.post("/v1/responses", changed(CALLS, input=USER + references + [result]))
    check("responses tools: items by reference", same_response(second.json, third.json), third)
    patch = {"type": "custom", "name": "patch", "description": "Patches.", "format": {"type": "text"}}
    r = s.post("/v1/responses", changed(CALLS, tools=[patch]))
    kinds = [i["type"] for i in r.json.get("output", [])]
    check("responses tools: a custom tool", kinds[-1:] == ["custom_tool_call"]
          and r.json["output"][-1]["name"] == "patch" and isinstance(r.json["output"][-1]["input"], str), r)
    space = {"type": "namespace", "name": "web", "description": "W.", "tools": [FUNCTIONS[1]]}
    r = s.post("/v1/responses", changed(CALLS, tools=[space]))
    call = r.json["output"][-1]
    check("responses tools: of a namespace", call.get("name") == "clock" and call.get("namespace") == "web", r)
    back = {"type": "function_call_output", "call_id": call["call_id"], "output": "Noon."}
    second = s.post("/v1/responses", changed(CALLS, tools=[space], input=USER + r.json["output"] + [back]))
    u = second.json["usage"]
    check("responses tools: of a namespace, and back",
          u["input_tokens"] - u["input_tokens_details"]["cached_tokens"] < 64, second)


def responses_kept(s):
    o = s.post("/v1/responses", RESPONSE).json
    path = "/v1/responses/" + o["id"]
    check("responses kept: GET", s.get(path).json == o)
    r = s.post("/v1/responses", changed(RESPONSE, input="And Rome?", previous_response_id=o["id"]))
    check("responses kept: goes on", r.status == 200
          and r.json["usage"]["input_tokens"] > o["usage"]["input_tokens"] + 24, r)
    r = s.request("DELETE", path)
    check("responses kept: DELETE", r.json == {"id": o["id"], "object": "response", "deleted": True}, r)
    check("responses kept: is gone", s.get(path).status == 404 and s.request("DELETE", path).status == 404)
    r = s.post("/v1/responses", changed(RESPONSE, previous_response_id=o["id"]))
    check("responses kept: cannot be gone on with", r.status == 400
          and r.error["code"] == "previous_response_not_found", r)
    o = s.post("/v1/responses", changed(RESPONSE, store=False)).json
    check("responses kept: not with store false", s.get("/v1/responses/" + o["id"]).status == 404)


def responses_reasoning(s):
    on = changed(RESPONSE, max_output_tokens=10, reasoning={"effort": "high"})
    o = s.post("/v1/responses", on).json
    item = o["output"][0]
    check("responses reasoning: an item", [i["type"] for i in o["output"]] == ["reasoning"] and item["summary"] == []
          and item["content"][0]["type"] == "reasoning_text" and item["id"].startswith("rs_"), o)
    check("responses reasoning: counted", o["usage"]["output_tokens_details"] == {"reasoning_tokens": 10}, o)
    text = item["content"][0]["text"]
    events = s.stream("/v1/responses", changed(on, stream=True)).events()
    check("responses reasoning: stream", lambda: built(events)[0]["content"][0]["text"] == text, events[:5])
    summary = changed(on, reasoning={"effort": "high", "summary": "auto"}, include=["reasoning.encrypted_content"])
    item = s.post("/v1/responses", summary).json["output"][0]
    check("responses reasoning: as a summary", item["summary"] == [{"type": "summary_text", "text": text}], item)
    check("responses reasoning: for stateless clients", item["encrypted_content"] == text, item)
    events = s.stream("/v1/responses", changed(summary, stream=True)).events()
    check("responses reasoning: summary stream", lambda: built(events)[0]["summary"][0]["text"] == text
          and "response.reasoning_summary_text.delta" in [e.event for e in events], events[:5])
    off = s.post("/v1/responses", changed(RESPONSE, reasoning={"effort": "none"})).json
    check("responses reasoning: none", [i["type"] for i in off["output"]] == ["message"], off)


def like_codex(s):
    """The form of Codex CLI's requests: nothing is kept on the server, all comes back."""
    body = {
        "model": "m", "instructions": "You are a coding agent. " * 30, "stream": True, "store": False,
        "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "medium", "summary": "auto"},
        "prompt_cache_key": "0199", "text": {"verbosity": "medium"}, "parallel_tool_calls": True,
        "tool_choice": "auto", "max_output_tokens": 24, "client_metadata": {"x": "y"}, "service_tier": None,
        "tools": [{"type": "function", "name": "shell", "description": "Runs.", "strict": False, "parameters": {
            "type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}},
                                             "timeout_ms": {"type": "number"}}, "required": ["command"],
            "additionalProperties": False}},
            {"type": "custom", "name": "apply_patch", "description": "Edits.", "format": {
                "type": "grammar", "syntax": "lark", "definition": "start: /.+/"}},
            {"type": "namespace", "name": "mcp__files", "description": "F.", "tools": [
                {"type": "function", "name": "read", "parameters": {"type": "object", "properties": {}}}]},
            {"type": "web_search", "external_web_access": False}, {"type": "local_shell"}],
        "input": [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandboxed."}]},
                  {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<cwd>/</cwd>"}]},
                  {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List the files."}]}]}
    events = s.stream("/v1/responses", body, {"Authorization": "Bearer any", "originator": "codex_cli_rs"}).events()
    check("like Codex: a turn", lambda: built(events), events[-1:])
    output = [changed(i, id=None, status=None, content=None if i["type"] == "reasoning" else i["content"])
              for i in events[-1].json["response"]["output"]]
    turn = changed(body, input=body["input"] + output + [
        {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_x"},
        {"type": "function_call_output", "call_id": "call_x", "output": "a.txt"},
        {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin", "call_id": "call_y",
         "status": "completed"},
        {"type": "custom_tool_call_output", "call_id": "call_y", "output": "Done."},
        {"type": "function_call", "name": "read", "namespace": "mcp__files", "arguments": "{}", "call_id": "call_z"},
        {"type": "function_call_output", "call_id": "call_z", "output": [{"type": "input_text", "text": "hello"}]}])
    second = s.stream("/v1/responses", turn).events()
    check("like Codex: another turn", lambda: built(second), second[-1:])
    check("like Codex: what was read is not read again",
          lambda: second[-1].json["response"]["usage"]["input_tokens_details"]["cached_tokens"] >
          events[-1].json["response"]["usage"]["input_tokens"] - 64, second[-1:])


def responses_errors(s):
    def error(name, code, param, body):
        r = s.post("/v1/responses", body)
        check("responses error: " + name, r.status == code and r.error.get("param") == param and r.error.get("message")
              and r.error.get("type"), r)

    error("no input", 400, "input", changed(RESPONSE, input=None))
    error("empty input", 400, "input", changed(RESPONSE, input=[]))
    error("unknown model", 404, "model", changed(RESPONSE, model="nobody"))
    error("no JSON", 400, None, b"[")
    error("max_output_tokens", 422, "max_output_tokens", changed(RESPONSE, max_output_tokens=0))
    error("temperature", 422, "temperature", changed(RESPONSE, temperature=3))
    error("image", 400, "input[0].content[0].type", changed(RESPONSE, input=[{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:"}]}]))
    error("unknown tool", 400, "tool_choice.name", changed(CALLS, tool_choice={"type": "function", "name": "x"}))
    error("tool_choice names a tool that is not run here", 400, "tool_choice",
          changed(CALLS, tools=FUNCTIONS + [{"type": "web_search"}], tool_choice={"type": "web_search"}))
    error("background", 400, "background", changed(RESPONSE, background=True))
    error("unknown item", 404, "input[0].id", changed(RESPONSE, input=[{"type": "item_reference", "id": "msg_0_0"}]))
    check("responses error: unknown id", s.get("/v1/responses/resp_0").status == 404)


def keys(program, model):
    with Server(program, model, "--name", "m", env={"HADAL_API_KEY": "secret"}) as s:
        r = s.post("/v1/messages", MESSAGE)
        check("messages: a missing key", r.status == 401 and r.error["type"] == "authentication_error", r)
        check("messages: x-api-key", s.post("/v1/messages", MESSAGE, {"x-api-key": "secret"}).status == 200)
        check("messages: a bearer", s.post("/v1/messages", MESSAGE, {"Authorization": "Bearer secret"}).status == 200)
        check("responses: a missing key", s.post("/v1/responses", RESPONSE).status == 401)


def main(program):
    with Folder() as folder:
        # without a template a checkpoint of this kind has DeepSeek-V3.2's format: tools and thinking
        model = folder.model("v32", MODEL_V32, tokenizer_config=lambda c: c.pop("chat_template"),
                             config=lambda c: c.update(max_position_embeddings=8192))
        with Server(program, model, "--name", "m") as s:
            for part in (messages_plain, messages_prompt, messages_stream, messages_tools, messages_threads,
                         messages_thinking, messages_errors, like_claude_code, responses_plain, responses_stream,
                         responses_tools, responses_kept, responses_reasoning, like_codex, responses_errors):
                try:
                    part(s)
                except Exception as x:
                    check("%s runs to its end" % part.__name__, False, repr(x))
            check("agents: the server is alive", s.alive())
        keys(program, model)
    finish()


if __name__ == "__main__":
    main(sys.argv[1])
