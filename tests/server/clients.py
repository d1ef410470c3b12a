"""The real Python clients, openai and anthropic, against `hadal serve`. tests/cli/serve_clients.sh runs it.

    PYTHON_WITH_CLIENTS tests/server/clients.py build/hadal

Prints `ok NAME` or `FAIL NAME why`.
"""
import asyncio
import json
import sys
from typing import Literal

import anthropic
import openai
from anthropic.types import ThreadNotFoundError
from pydantic import BaseModel

from kit import MODEL_V32, Folder, Server, check, finish, together

TINY = "models/tiny"
PROBLEM, ANSWER = "c7+8-3+5-9", "<answer>8</answer>"
USER = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = {"extra_body": {"temperature": 0}}  # the anthropic client has no argument for it any more


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    days: Literal[1, 2, 3]


SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
          "required": ["city", "days"], "additionalProperties": False}
CHAT_TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}]
FUNCTIONS = [{"type": "function", "name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True}]
TOOLS = [{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}]


def fits(value):
    return Weather.model_validate(value).model_dump() == value


def raises(kind, call):
    """The exception of exactly this class, or what came instead."""
    try:
        return False, call()
    except Exception as x:
        return type(x) is kind, repr(x)


def openai_of(s, **options):
    return openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, **{"api_key": "key", "max_retries": 0, **options})


def anthropic_of(s, **options):
    return anthropic.Anthropic(base_url="http://127.0.0.1:%d" % s.port,
                               **{"api_key": "key", "max_retries": 0, **options})


# --- openai -----------------------------------------------------------------------------------------------------------


def chat(s):
    c = openai_of(s).chat.completions
    settings = dict(model="m", messages=USER, temperature=0, max_tokens=24)
    whole = c.create(**settings)
    choice = whole.choices[0]
    check("openai chat: answers", choice.finish_reason in ("length", "stop") and choice.message.role == "assistant")
    check("openai chat: request id", bool(whole._request_id), whole)
    check("openai chat: usage", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
          and whole.usage.prompt_tokens_details.cached_tokens >= 0)
    chunks = list(c.create(**settings, stream=True, stream_options={"include_usage": True}))
    text = "".join(k.choices[0].delta.content or "" for k in chunks if k.choices)
    check("openai chat: stream", text == choice.message.content, text, choice)
    check("openai chat: stream, usage", chunks[-1].choices == [] and chunks[-1].usage.completion_tokens
          == whole.usage.completion_tokens, chunks[-1])
    with c.stream(**{**settings, "max_tokens": 200}, response_format=Weather) as stream:
        kinds = [e.type for e in stream]
        final = stream.get_final_completion().choices[0].message
        check("openai chat: stream's helper", "content.delta" in kinds and isinstance(final.parsed, Weather), kinds)
    two = c.create(**{**settings, "temperature": 1}, n=2, seed=7)
    check("openai chat: n", [k.index for k in two.choices] == [0, 1]
          and two.choices[0].message.content != two.choices[1].message.content, two)
    logged = c.create(**settings, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    check("openai chat: logprobs", len(logged) == whole.usage.completion_tokens
          and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in logged), logged[:2])
    parsed = c.parse(**{**settings, "max_tokens": 200}, response_format=Weather).choices[0].message.parsed
    check("openai chat: parse", isinstance(parsed, Weather), parsed)
    some = c.create(**{**settings, "max_tokens": 200}, response_format={"type": "json_schema", "json_schema": {
        "name": "w", "schema": SCHEMA, "strict": True}})
    check("openai chat: json_schema", lambda: fits(json.loads(some.choices[0].message.content)), some)
    stop = choice.message.content[8:10]
    stopped = c.create(**settings, stop=[stop]).choices[0]
    check("openai chat: stop", stopped.finish_reason == "stop" and stop not in stopped.message.content, stopped)


def chat_tools(s):
    c = openai_of(s).chat.completions
    settings = dict(model="m", messages=USER, temperature=0, max_tokens=400, tools=CHAT_TOOLS, tool_choice="required",
                    parallel_tool_calls=False)
    whole = c.create(**settings)
    calls = whole.choices[0].message.tool_calls or []
    if not check("openai tools: required", len(calls) == 1 and whole.choices[0].finish_reason == "tool_calls", whole):
        return
    check("openai tools: arguments", lambda: fits(json.loads(calls[0].function.arguments)), calls)
    with c.stream(**settings) as stream:
        kinds = [e.type for e in stream]
        final = stream.get_final_completion().choices[0].message.tool_calls
        check("openai tools: stream", "tool_calls.function.arguments.delta" in kinds
              and final[0].function.arguments == calls[0].function.arguments, kinds, final)
    messages = USER + [whole.choices[0].message, {"role": "tool", "tool_call_id": calls[0].id, "content": "Rain."}]
    second = c.create(**{**settings, "messages": messages, "tool_choice": "none", "max_tokens": 8})
    check("openai tools: second turn", second.usage.prompt_tokens - second.usage.prompt_tokens_details.cached_tokens
          < 64 and not second.choices[0].message.tool_calls, second)
    typed = c.parse(**{**settings, "tools": [openai.pydantic_function_tool(Weather)]})
    check("openai tools: parsed", isinstance(typed.choices[0].message.tool_calls[0].function.parsed_arguments, Weather))


def completions(s):
    c = openai_of(s).completions
    echoed = c.create(model="m", prompt="The cat sat", echo=True, logprobs=2, max_tokens=3, temperature=0)
    lp = echoed.choices[0].logprobs
    check("openai completions: echo and logprobs", echoed.choices[0].text.startswith("The cat sat")
          and lp.token_logprobs[0] is None and all(p <= 0 for p in lp.token_logprobs[1:])
          and len(lp.tokens) == len(lp.top_logprobs) == echoed.usage.total_tokens, echoed)
    many = c.create(model="m", prompt=["a", "b"], max_tokens=2, temperature=0)
    check("openai completions: a list of prompts", [k.index for k in many.choices] == [0, 1], many)
    ids = c.create(model="m", prompt=[5, 6, 7], max_tokens=2, temperature=0)
    check("openai completions: token ids", ids.usage.prompt_tokens == 3, ids)
    whole = c.create(model="m", prompt="The cat", max_tokens=9, temperature=0).choices[0].text
    streamed = "".join(k.choices[0].text for k in c.create(model="m", prompt="The cat", max_tokens=9, temperature=0,
                                                            stream=True) if k.choices)
    check("openai completions: stream", streamed == whole, streamed, whole)


def models(s):
    c = openai_of(s).models
    check("openai models: list", [m.id for m in c.list()] == ["m"])
    check("openai models: retrieve", c.retrieve("m").id == "m")


def responses(s):
    c = openai_of(s).responses
    settings = dict(model="m", input=USER[0]["content"], temperature=0, max_output_tokens=24)
    whole = c.create(**settings)
    check("openai responses: answers", whole.status == "incomplete" and whole.output_text
          and whole.incomplete_details.reason == "max_output_tokens", whole)
    events = list(c.create(**settings, stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    check("openai responses: stream", text == whole.output_text == events[-1].response.output_text, text)
    known = {type(e).__name__ for e in events}
    check("openai responses: events are known", "BaseModel" not in known and len(known) > 6, known)
    parsed = c.parse(**{**settings, "max_output_tokens": 200}, text_format=Weather).output_parsed
    check("openai responses: parse", isinstance(parsed, Weather), parsed)
    with c.stream(**{**settings, "max_output_tokens": 200}, text_format=Weather) as stream:
        kinds = [e.type for e in stream]
        final = stream.get_final_response()
        check("openai responses: stream's helper", final.output_parsed == parsed, kinds)
    check("openai responses: retrieve", c.retrieve(whole.id).output_text == whole.output_text)
    second = c.create(**{**settings, "input": "And Rome?"}, previous_response_id=whole.id)
    check("openai responses: previous_response_id", second.usage.input_tokens > whole.usage.input_tokens + 24, second)
    count = c.input_tokens.count(model="m", input=USER[0]["content"]).input_tokens
    check("openai responses: input tokens", count == whole.usage.input_tokens, count)
    c.delete(whole.id)
    check("openai responses: delete", *raises(openai.NotFoundError, lambda: c.retrieve(whole.id)))
    thinking = c.create(**settings, reasoning={"effort": "high", "summary": "auto"})
    check("openai responses: reasoning", thinking.output[0].type == "reasoning" and thinking.output[0].summary[0].text
          and thinking.usage.output_tokens_details.reasoning_tokens > 0, thinking)


def responses_tools(s):
    c = openai_of(s).responses
    settings = dict(model="m", input=USER, temperature=0, max_output_tokens=400, tools=FUNCTIONS,
                    tool_choice="required", parallel_tool_calls=False)
    whole = c.create(**settings)
    calls = [i for i in whole.output if i.type == "function_call"]
    if not check("openai responses: tools", len(calls) == 1 and whole.status == "completed", whole):
        return
    check("openai responses: arguments", lambda: fits(json.loads(calls[0].arguments)), calls)
    with c.stream(**settings) as stream:
        kinds = [e.type for e in stream]
        final = stream.get_final_response()
        check("openai responses: stream of tools", "response.function_call_arguments.delta" in kinds
              and final.output[-1].arguments == calls[0].arguments, kinds)
    result = {"type": "function_call_output", "call_id": calls[0].call_id, "output": "Rain."}
    second = c.create(**{**settings, "input": USER + [i.model_dump(exclude_none=True) for i in whole.output] + [result],
                         "tool_choice": "none", "max_output_tokens": 8})
    check("openai responses: second turn", second.usage.input_tokens - second.usage.input_tokens_details.cached_tokens
          < 64 and second.output[0].type == "message", second)


def openai_errors(s):
    c = openai_of(s)

    def error(name, kind, **members):
        check("openai error: " + name, *raises(kind, lambda: c.chat.completions.create(
            **{"model": "m", "messages": USER, "max_tokens": 2, **members})))

    error("empty messages", openai.BadRequestError, messages=[])
    error("unknown model", openai.NotFoundError, model="nobody")
    error("out of range", openai.UnprocessableEntityError, temperature=9)
    error("wrong type", openai.BadRequestError, stop=5)
    error("image", openai.BadRequestError, messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:"}}]}])
    check("openai error: embeddings", *raises(openai.InternalServerError, lambda: c.embeddings.create(
        model="m", input="a")))
    check("openai error: responses", *raises(openai.BadRequestError, lambda: c.responses.create(model="m", input=[])))
    check("openai error: given up by the client", *raises(openai.APITimeoutError, lambda: c.with_options(
        timeout=0.1).chat.completions.create(model="m", messages=USER, max_tokens=7000,
                                             extra_body={"ignore_eos": True})))


async def openai_async(s):
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1:%d/v1" % s.port, api_key="key") as c:
        async def one(i):
            r = await c.chat.completions.create(model="m", messages=USER, max_tokens=8, temperature=0)
            return r.choices[0].message.content

        texts = await asyncio.gather(*(one(i) for i in range(16)))
        check("openai async: sixteen at once say the same", len(set(texts)) == 1, set(texts))


# --- anthropic --------------------------------------------------------------------------------------------------------


def messages(s):
    c = anthropic_of(s)
    settings = dict(model="m", max_tokens=24, messages=USER, **GREEDY)
    whole = c.messages.create(**settings, system="Be brief.")
    check("anthropic: answers", whole.stop_reason == "max_tokens" and whole.content[0].type == "text", whole)
    check("anthropic: request id", bool(whole._request_id), whole)
    with c.messages.stream(**settings, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    check("anthropic: stream", text == whole.content[0].text == final.content[0].text, text, whole)
    check("anthropic: stream, usage", final.usage.output_tokens == 24 and final.stop_reason == "max_tokens", final)
    kinds = [e.type for e in c.messages.create(**settings, stream=True)]
    check("anthropic: events", kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds)
    count = c.messages.count_tokens(model="m", messages=USER, system="Be brief.").input_tokens
    check("anthropic: count_tokens", count == whole.usage.input_tokens + whole.usage.cache_read_input_tokens, count)
    beta = c.beta.messages.create(**settings, betas=["context-1m-2025-08-07"])
    check("anthropic: beta", beta.content[0].type == "text", beta)
    on = c.messages.create(**settings, thinking={"type": "enabled", "budget_tokens": 1024})
    check("anthropic: thinking", on.content[0].type == "thinking" and on.content[0].signature, on)
    with c.messages.stream(**settings, thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
        final = stream.get_final_message()
    check("anthropic: stream of thinking", final.content[0].thinking == on.content[0].thinking
          and final.content[0].signature, final)
    parsed = c.messages.parse(**{**settings, "max_tokens": 200}, output_format=Weather)
    check("anthropic: parse", isinstance(parsed.parsed_output, Weather), parsed)


def messages_tools(s):
    c = anthropic_of(s)
    settings = dict(model="m", max_tokens=400, messages=USER, tools=TOOLS, **GREEDY,
                    tool_choice={"type": "any", "disable_parallel_tool_use": True})
    whole = c.messages.create(**settings)
    calls = [b for b in whole.content if b.type == "tool_use"]
    if not check("anthropic tools: any", len(calls) == 1 and whole.stop_reason == "tool_use", whole):
        return
    check("anthropic tools: input", lambda: fits(calls[0].input), calls)
    with c.messages.stream(**settings) as stream:
        final = stream.get_final_message()
    check("anthropic tools: stream", final.content[-1].input == calls[0].input, final)
    turn = USER + [{"role": "assistant", "content": whole.content}, {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": "Rain."}]}]
    second = c.messages.create(**{**settings, "messages": turn, "tool_choice": {"type": "none"}, "max_tokens": 8})
    check("anthropic tools: second turn", second.usage.input_tokens < 64 and second.content[0].type == "text", second)
    asked = []

    @anthropic.beta_tool
    def weather(city: Literal["Paris", "Rome"], days: Literal[1, 2, 3]) -> str:
        """Tells it."""
        asked.append((city, days))
        return "Rain."

    runner = c.beta.messages.tool_runner(model="m", max_tokens=400, messages=USER, tools=[weather], **GREEDY,
                                         tool_choice={"type": "any", "disable_parallel_tool_use": True},
                                         max_iterations=3)
    replies = list(runner)
    check("anthropic tools: an agent's loop", len(replies) == 3 and len(asked) >= 2, asked, replies[-1:])


def threads(s):
    """What a server keeps: only the new turn is sent. An unknown thread is a NotFoundError of its own."""
    c = anthropic_of(s).beta.messages
    settings = dict(model="m", max_tokens=8, **GREEDY)
    first = c.create(**settings, messages=USER, system="Be brief.", thread={"type": "create"})
    again = {"role": "user", "content": "And Rome?"}
    second = c.create(**settings, messages=[again], thread={"type": "continue", "previous_message_id": first.id})
    whole = c.create(**settings, system="Be brief.", messages=USER + [
        {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]}, again])
    check("anthropic threads: as if all were sent", second.content[0].text == whole.content[0].text, second, whole)
    check("anthropic threads: unknown", *raises(ThreadNotFoundError, lambda: c.create(
        **settings, messages=[again], thread={"type": "continue", "previous_message_id": "msg_0"})))


def anthropic_errors(s):
    c = anthropic_of(s)

    def error(name, kind, **members):
        check("anthropic error: " + name, *raises(kind, lambda: c.messages.create(
            **{"model": "m", "messages": USER, "max_tokens": 2, **members})))

    error("empty messages", anthropic.BadRequestError, messages=[])
    error("unknown model", anthropic.NotFoundError, model="nobody")
    error("out of range", anthropic.BadRequestError, extra_body={"temperature": 9})
    error("image", anthropic.BadRequestError, messages=[{"role": "user", "content": [{"type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": ""}}]}])


async def anthropic_async(s):
    async with anthropic.AsyncAnthropic(base_url="http://127.0.0.1:%d" % s.port, api_key="key") as c:
        async def one(i):
            async with c.messages.stream(model="m", max_tokens=8, messages=USER, **GREEDY) as stream:
                return (await stream.get_final_message()).content[0].text

        texts = await asyncio.gather(*(one(i) for i in range(8)))
        check("anthropic async: eight streams at once say the same", len(set(texts)) == 1, set(texts))


# --- other servers ----------------------------------------------------------------------------------------------------


def tiny(program):
    with Server(program, TINY) as s:
        c = openai_of(s).chat.completions
        settings = dict(model="tiny", messages=[{"role": "user", "content": PROBLEM}], temperature=0, max_tokens=120)
        whole = c.create(**settings)
        check("openai tiny: solves it", ANSWER in whole.choices[0].message.content, whole)
        text = "".join(k.choices[0].delta.content or "" for k in c.create(**settings, stream=True) if k.choices)
        check("openai tiny: stream", text == whole.choices[0].message.content, text)
        m = anthropic_of(s).messages.create(**{k: settings[k] for k in ("model", "messages", "max_tokens")}, **GREEDY)
        check("anthropic tiny: thinks and solves it", [b.type for b in m.content] == ["thinking", "text"]
              and ANSWER in m.content[1].text and m.stop_reason == "end_turn", m)
        r = openai_of(s).responses.create(model="tiny", input=PROBLEM, temperature=0, max_output_tokens=120)
        check("openai tiny: a response", ANSWER in r.output_text and r.status == "completed"
              and [i.type for i in r.output] == ["reasoning", "message"], r)


def keys(program, model):
    with Server(program, model, "--name", "m", env={"HADAL_API_KEY": "secret"}) as s:
        for name, of, kind in (("openai", openai_of, openai.AuthenticationError),
                               ("anthropic", anthropic_of, anthropic.AuthenticationError)):
            check(name + " error: a wrong key", *raises(kind, lambda: of(s).models.list()))
            check(name + ": the right key", [m.id for m in of(s, api_key="secret").models.list()] == ["m"])


def busy(program, model):
    """One answer at a time and one that waits: of six at once some are refused, until they are repeated."""
    with Server(program, model, "--name", "m", "--sequences", "1", "--queue", "1") as s:
        for name, of, kind in (("openai", openai_of, openai.RateLimitError),
                               ("anthropic", anthropic_of, anthropic.RateLimitError)):
            def ask(retries):
                c = of(s, max_retries=retries)
                settings = dict(model="m", messages=USER, max_tokens=300)
                return c.messages.create(**settings) if name == "anthropic" else c.chat.completions.create(**settings)

            kinds = [type(r) for r in together(*[lambda: ask(0)] * 6)]
            check(name + " error: the queue is full", kind in kinds, kinds)
            kinds = [type(r).__name__ for r in together(*[lambda: ask(30)] * 6)]
            check(name + ": repeats what was refused", not any("Error" in k for k in kinds), kinds)


def main(program):
    """A part that breaks off has failed; the others go on."""
    with Folder() as folder:
        # without a template a checkpoint of this kind has DeepSeek-V3.2's format: tools and thinking
        model = folder.model("v32", MODEL_V32, tokenizer_config=lambda c: c.pop("chat_template"),
                             config=lambda c: c.update(max_position_embeddings=8192))
        with Server(program, model, "--name", "m") as s:
            for part in (chat, chat_tools, completions, models, responses, responses_tools, openai_errors, messages,
                         messages_tools, threads, anthropic_errors):
                check("%s runs to its end" % part.__name__, lambda: part(s) or True)
            asyncio.run(openai_async(s))
            asyncio.run(anthropic_async(s))
            check("clients: the server is alive", s.alive())
        check("tiny runs to its end", lambda: tiny(program) or True)
        check("keys runs to its end", lambda: keys(program, model) or True)
        check("busy runs to its end", lambda: busy(program, model) or True)
    finish()


if __name__ == "__main__":
    main(sys.argv[1])
