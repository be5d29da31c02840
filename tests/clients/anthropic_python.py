"""The official `anthropic` Python package, against the proxy or (`--direct`) the simulated server itself."""

import anthropic
from anthropic.types import Message

from common import PARAPHRASE, QUESTION, STREAMED_QUESTION, TOOL_QUESTION, WHITESPACE_VARIANT, Cases, same

cases = Cases("anthropic (Python)")
client = anthropic.Anthropic(
    base_url=cases.url, api_key="key-of-anthropic-python", max_retries=0, _strict_response_validation=True
)
MODEL = "llama3.2"
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
answers = {}


def create(question, **options):
    options.setdefault("max_tokens", 1024)
    return client.messages.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": question}], **options
    )


def message(question, into, equals=None):
    def case():
        raw = create(question)
        reply = raw.parse()
        assert isinstance(reply, Message) and reply.stop_reason == "end_turn" and reply.role == "assistant"
        assert reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0
        (block,) = reply.content
        answers[into] = block.text
        same(cases, answers[into], answers[equals or into])
        return raw.headers

    return case


def stream(question, into, equals=None):
    def case():
        raw = create(question, stream=True)
        events = list(raw.parse())
        kinds = [event.type for event in events if event.type != "ping"]
        assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds
        deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
        assert len(deltas) > (0 if equals else 5), "not streamed in pieces"
        end = next(event for event in events if event.type == "message_delta")
        assert end.delta.stop_reason == "end_turn" and end.usage.output_tokens > 0
        answers[into] = "".join(deltas)
        same(cases, answers[into], answers[equals or into])
        return raw.headers

    return case


def helper():
    """The package's own folding of a stream into a message."""
    messages = [{"role": "user", "content": QUESTION}]
    with client.messages.stream(model=MODEL, max_tokens=1024, messages=messages) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
        assert final.content[0].text == text and final.stop_reason == "end_turn"
        same(cases, text, answers["message"])
        return stream.response.headers


def think():
    raw = create(QUESTION, max_tokens=2048, thinking={"type": "enabled", "budget_tokens": 1024})
    thought, text = raw.parse().content
    assert thought.thinking.startswith("[simulated] thinking") and thought.signature and text.text
    assert answers.setdefault("thinking", thought.thinking) == thought.thinking
    return raw.headers


def call_tool():
    raw = create(TOOL_QUESTION, tools=[WEATHER])
    reply = raw.parse()
    (block,) = reply.content
    assert reply.stop_reason == "tool_use" and block.type == "tool_use" and block.name == "weather"
    assert isinstance(block.input["city"], str)
    if not cases.direct:
        assert answers.setdefault("tool", block.input) == block.input
    return raw.headers


def error():
    try:
        client.messages.create(
            model="no-such-model", max_tokens=9, messages=[{"role": "user", "content": QUESTION}]
        )
    except anthropic.NotFoundError as error:
        assert error.body["error"]["type"] == "not_found_error", error.body
        return error.response.headers
    raise AssertionError("no error")


cases.run("messages", "miss", message(QUESTION, "message"))
cases.run("messages, the same", "exact", message(QUESTION, "message again", "message"))
cases.run("messages, other whitespace", "exact", message(WHITESPACE_VARIANT, "message blanks", "message"))
cases.run("messages, paraphrase", "semantic", message(PARAPHRASE, "message paraphrase", "message"))
cases.run("messages, stream", "miss", stream(STREAMED_QUESTION, "stream"))
cases.run("messages, stream, the same", "exact", stream(STREAMED_QUESTION, "stream again", "stream"))
cases.run("messages, the streamed one as JSON", "exact", message(STREAMED_QUESTION, "as JSON", "stream"))
cases.run("messages, stream helper", "exact", helper)
cases.run("messages, thinking", "miss", think)
cases.run("messages, thinking, the same", "exact", think)
cases.run("tools", "miss", call_tool)
cases.run("tools, the same", "exact", call_tool)
cases.run("messages, unknown model", "none", error)
cases.run("messages, unknown model again", "none", error)
cases.finish()
