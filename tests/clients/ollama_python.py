"""The official `ollama` Python package, against the proxy or (`--direct`) the simulated server itself."""

import ollama

from common import PARAPHRASE, QUESTION, STREAMED_QUESTION, TOOL_QUESTION, WHITESPACE_VARIANT, Cases, same

cases = Cases("ollama (Python)")
MODEL = "llama3.2"
answers = {}
seen = []
# The package hands out no headers; its httpx client does.
client = ollama.Client(
    host=cases.url,
    headers={"Authorization": "Bearer key-of-ollama-python"},
    event_hooks={"response": [lambda reply: seen.append(reply.headers)]},
)


def check_end(last):
    assert last.done is True and last.done_reason == "stop" and last.model == MODEL, last
    assert last.prompt_eval_count > 0 and last.eval_count > 0 and last.total_duration >= 0, last


def chat(question, into, equals=None, stream=False, **options):
    def case():
        messages = [{"role": "user", "content": question}]
        reply = client.chat(model=MODEL, messages=messages, stream=stream, **options)
        parts = list(reply) if stream else [reply]
        assert all(isinstance(part, ollama.ChatResponse) for part in parts)
        assert all(part.message.role == "assistant" and part.created_at for part in parts)
        assert not stream or len(parts) > (1 if equals else 5), "not streamed in pieces"
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        check_end(parts[-1])
        answers[into] = "".join(part.message.content for part in parts)
        same(cases, answers[into], answers[equals or into])
        return seen[-1]

    return case


def generate(question, into, equals=None, stream=False):
    def case():
        reply = client.generate(model=MODEL, prompt=question, stream=stream)
        parts = list(reply) if stream else [reply]
        assert all(isinstance(part, ollama.GenerateResponse) for part in parts)
        check_end(parts[-1])
        assert parts[-1].context, "no context"
        answers[into] = "".join(part.response for part in parts)
        same(cases, answers[into], answers[equals or into])
        return seen[-1]

    return case


def think():
    messages = [{"role": "user", "content": QUESTION}]
    reply = client.chat(model=MODEL, messages=messages, think=True)
    assert reply.message.thinking.startswith("[simulated] thinking"), reply
    assert answers.setdefault("thinking", reply.message.thinking) == reply.message.thinking
    return seen[-1]


def error():
    try:
        client.chat(model="no-such-model", messages=[{"role": "user", "content": QUESTION}])
    except ollama.ResponseError as error:
        assert error.status_code == 404 and error.error == "model 'no-such-model' not found", error
        return seen[-1]
    raise AssertionError("no error")


def weather(city: str) -> str:
    """The weather of a city.

    Args:
      city: its name
    """
    return city


def call_tool(stream=False):
    def case():
        messages = [{"role": "user", "content": TOOL_QUESTION}]
        reply = client.chat(model=MODEL, messages=messages, tools=[weather], stream=stream)
        parts = list(reply) if stream else [reply]
        (call,) = [call for part in parts for call in part.message.tool_calls or []]
        assert call.function.name == "weather" and isinstance(call.function.arguments["city"], str)
        if not cases.direct:
            assert answers.setdefault("tool", call.function.arguments) == call.function.arguments
        return seen[-1]

    return case


def embed():
    reply = client.embed(model="nomic-embed-text", input=[QUESTION, PARAPHRASE])
    assert len(reply.embeddings) == 2 and reply.prompt_eval_count > 0
    assert answers.setdefault("embed", reply.embeddings) == reply.embeddings
    return seen[-1]


def embeddings():
    reply = client.embeddings(model="nomic-embed-text", prompt=QUESTION)
    assert answers.setdefault("embeddings", reply.embedding) == reply.embedding
    return seen[-1]


def models():
    assert "llama3.2:latest" in [model.model for model in client.list().models]
    client.show("llama3.2")
    return seen[-1]


cases.run("chat", "miss", chat(QUESTION, "chat"))
cases.run("chat, the same", "exact", chat(QUESTION, "chat again", "chat"))
cases.run("chat, other whitespace", "exact", chat(WHITESPACE_VARIANT, "chat blanks", "chat"))
cases.run("chat, paraphrase", "semantic", chat(PARAPHRASE, "chat paraphrase", "chat"))
cases.run("chat, stream", "miss", chat(STREAMED_QUESTION, "stream", stream=True))
cases.run("chat, stream, the same", "exact", chat(STREAMED_QUESTION, "stream again", "stream", stream=True))
cases.run("chat, the streamed one as JSON", "exact", chat(STREAMED_QUESTION, "stream as JSON", "stream"))
cases.run("chat, the first one as a stream", "exact", chat(QUESTION, "JSON as stream", "chat", stream=True))
cases.run("chat, other options", "miss", chat(QUESTION, "warm", options={"temperature": 0.9}))
cases.run("chat, think", "miss", think)
cases.run("chat, think, the same", "exact", think)
cases.run("chat, unknown model", "none", error)
cases.run("chat, unknown model again", "none", error)
cases.run("tools", "miss", call_tool())
cases.run("tools, the same", "exact", call_tool())
cases.run("tools, the same, stream", "exact", call_tool(stream=True))
cases.run("generate", "miss", generate(QUESTION, "generate"))
cases.run("generate, the same", "exact", generate(QUESTION, "generate again", "generate"))
cases.run("generate, paraphrase", "semantic", generate(PARAPHRASE, "generate paraphrase", "generate"))
cases.run("generate, the same, stream", "exact", generate(QUESTION, "generate s", "generate", stream=True))
cases.run("embed", "miss", embed)
cases.run("embed, the same", "exact", embed)
cases.run("embeddings", "miss", embeddings)
cases.run("embeddings, the same", "exact", embeddings)
cases.run("list and show", "none", models)
cases.finish()
