"""The official `openai` Python package, against the proxy or (`--direct`) the simulated server itself."""

import json

import openai
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from common import (
    PARAPHRASE,
    QUESTION,
    STREAMED_QUESTION,
    TOOL_QUESTION,
    WHITESPACE_VARIANT,
    Cases,
    same,
)

cases = Cases("openai (Python)")
options = {"base_url": cases.url + "/v1", "api_key": "key-of-openai-python", "max_retries": 0}
client = openai.OpenAI(**options, _strict_response_validation=True)
# OpenAI's own schema denies what OpenAI sends: a null finish_reason in streamed completions, embeddings in base64.
lenient = openai.OpenAI(**options)
MODEL = "llama3.2"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
answers = {}


def chat(question, into, equals=None, **options):
    def case():
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": question}], **options
        )
        reply = raw.parse()
        assert isinstance(reply, ChatCompletion), reply
        choice = reply.choices[0]
        assert choice.finish_reason == "stop" and choice.message.role == "assistant"
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
        answers[into] = choice.message.content
        same(cases, answers[into], answers[equals or into])
        if equals and equals + ".id" in answers:
            assert reply.id != answers[equals + ".id"], "a replay with the id of the first reply"
        answers[into + ".id"] = reply.id
        return raw.headers

    return case


def chat_stream(question, into, equals=None, usage=False):
    def case():
        options = {"stream_options": {"include_usage": True}} if usage else {}
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": question}], stream=True, **options
        )
        chunks = list(raw.parse())
        assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
        assert chunks[0].choices[0].delta.role == "assistant"
        choices = [choice for chunk in chunks for choice in chunk.choices]
        assert [c.finish_reason for c in choices if c.finish_reason] == ["stop"]
        assert len({chunk.id for chunk in chunks}) == 1
        assert len(choices) > (2 if equals else 5), "not streamed in pieces"
        totals = [chunk.usage for chunk in chunks if chunk.usage]
        if usage:
            assert len(totals) == 1 and chunks[-1].usage and chunks[-1].choices == []
            assert totals[0].total_tokens > 0
        else:
            assert totals == [], "a usage chunk that was not asked for"
        answers[into] = "".join(choice.delta.content or "" for choice in choices)
        same(cases, answers[into], answers[equals or into])
        return raw.headers

    return case


def chat_error():
    try:
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": QUESTION}])
    except openai.NotFoundError as error:
        assert error.status_code == 404 and error.code == "model_not_found", error
        assert error.body["message"] == "model 'no-such-model' not found", error.body
        return error.response.headers
    raise AssertionError("no error")


def bad_request():
    try:
        client.post("/chat/completions", body=[1, 2], cast_to=object)
    except openai.BadRequestError as error:
        return error.response.headers
    raise AssertionError("no error")


def call_tool():
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": TOOL_QUESTION}], tools=[WEATHER]
    )
    choice = raw.parse().choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.id and call.type == "function" and call.function.name == "weather"
    assert isinstance(arguments["city"], str) and isinstance(arguments["days"], int)
    if not cases.direct:
        assert answers.setdefault("tool", arguments) == arguments
    return raw.headers


def call_tool_streaming():
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": TOOL_QUESTION}], tools=[WEATHER], stream=True
    )
    deltas = [choice for chunk in raw.parse() for choice in chunk.choices]
    calls = [call for choice in deltas for call in choice.delta.tool_calls or []]
    assert calls[0].function.name == "weather" and calls[0].id and calls[0].index == 0
    arguments = json.loads("".join(call.function.arguments or "" for call in calls))
    assert deltas[-1].finish_reason == "tool_calls"
    if not cases.direct:
        assert arguments == answers["tool"]
    return raw.headers


def response(into, equals=None, question=QUESTION):
    def case():
        raw = client.responses.with_raw_response.create(model=MODEL, input=question)
        reply = raw.parse()
        assert isinstance(reply, Response) and reply.status == "completed"
        assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0
        answers[into] = reply.output_text
        same(cases, answers[into], answers[equals or into])
        return raw.headers

    return case


def response_stream(into, equals=None, question=STREAMED_QUESTION):
    def case():
        raw = client.responses.with_raw_response.create(model=MODEL, input=question, stream=True)
        events = list(raw.parse())
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created" and events[-1].type == "response.completed"
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert deltas == events[-1].response.output_text
        answers[into] = deltas
        same(cases, answers[into], answers[equals or into])
        return raw.headers

    return case


def completion(into, equals=None, stream=False):
    def case():
        raw = lenient.completions.with_raw_response.create(model=MODEL, prompt=QUESTION, stream=stream)
        reply = raw.parse()
        parts = list(reply) if stream else [reply]
        assert all(isinstance(part, Completion) for part in parts)
        assert parts[-1].choices[0].finish_reason == "stop"
        answers[into] = "".join(part.choices[0].text for part in parts)
        same(cases, answers[into], answers[equals or into])
        return raw.headers

    return case


def embeddings():
    raw = lenient.embeddings.with_raw_response.create(model="nomic-embed-text", input=[QUESTION, PARAPHRASE])
    reply = raw.parse()
    assert isinstance(reply, CreateEmbeddingResponse) and [item.index for item in reply.data] == [0, 1]
    vector = reply.data[0].embedding
    assert abs(sum(value * value for value in vector) - 1) < 1e-4, "not a unit vector"
    assert answers.setdefault("embedding", vector) == vector
    return raw.headers


def models():
    raw = client.models.with_raw_response.list()
    assert "llama3.2:latest" in [model.id for model in raw.parse().data]
    return raw.headers


cases.run("chat", "miss", chat(QUESTION, "chat"))
cases.run("chat, the same", "exact", chat(QUESTION, "chat again", "chat"))
cases.run("chat, other whitespace", "exact", chat(WHITESPACE_VARIANT, "chat blanks", "chat"))
cases.run("chat, paraphrase", "semantic", chat(PARAPHRASE, "chat paraphrase", "chat"))
cases.run("chat, stream", "miss", chat_stream(STREAMED_QUESTION, "stream"))
cases.run("chat, stream, the same", "exact", chat_stream(STREAMED_QUESTION, "stream again", "stream"))
cases.run(
    "chat, stream, usage", "exact", chat_stream(STREAMED_QUESTION, "stream usage", "stream", usage=True)
)
cases.run("chat, the streamed one as JSON", "exact", chat(STREAMED_QUESTION, "stream as JSON", "stream"))
cases.run("chat, the first one as a stream", "exact", chat_stream(QUESTION, "JSON as stream", "chat"))
cases.run("chat, other temperature", "miss", chat(QUESTION, "warm", temperature=0.9))
cases.run("chat, unknown model", "none", chat_error)
cases.run("chat, unknown model again", "none", chat_error)
cases.run("chat, a body that is no object", "none", bad_request)
cases.run("tools", "miss", call_tool)
cases.run("tools, the same", "exact", call_tool)
cases.run("tools, the same, stream", "exact", call_tool_streaming)
cases.run("responses", "miss", response("response"))
cases.run("responses, the same", "exact", response("response again", "response"))
cases.run("responses, paraphrase", "semantic", response("response paraphrase", "response", PARAPHRASE))
cases.run("responses, stream", "miss", response_stream("response stream"))
cases.run("responses, stream, the same", "exact", response_stream("response stream again", "response stream"))
cases.run("responses, the first, stream", "exact", response_stream("response as stream", "response", QUESTION))
cases.run("completions", "miss", completion("completion"))
cases.run("completions, the same", "exact", completion("completion again", "completion"))
cases.run("completions, the same, stream", "exact", completion("completion stream", "completion", stream=True))
cases.run("embeddings", "miss", embeddings)
cases.run("embeddings, the same", "exact", embeddings)
cases.run("models", "none", models)
cases.finish()
