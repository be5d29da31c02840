// The official `openai` npm package, against the proxy or (`--direct`) the simulated server itself.
//
// usage: node openai_node.mjs URL [--direct], with the folder that holds node_modules as the current one

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const { OpenAI } = createRequire(`${process.cwd()}/`)('openai');
const [url, flag] = process.argv.slice(2);
const direct = flag === '--direct';
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'key-of-openai-node', maxRetries: 0 });
const model = 'llama3.2';
const QUESTION = 'What is the capital of France?';
const STREAMED_QUESTION = 'How many legs does a spider have?';
const answers = {};
let failures = 0;

/** Runs a case that resolves to the response's headers; `expected` is miss, exact, semantic or none. */
async function run(name, expected, body) {
  let status = '';
  let outcome = 'ok';
  try {
    const headers = await body();
    status = headers.get('cache-status') ?? '';
    check(expected, status, headers);
  } catch (error) {
    failures += 1;
    outcome = `FAILED ${String(error.message ?? error).split('\n')[0]}`;
  }
  console.log(`${'openai (Node)'.padEnd(18)} ${name.padEnd(34)} ${status.padEnd(62)} ${outcome}`);
}

function check(expected, status, headers) {
  if (direct) {
    assert.equal(status, '', 'a direct reply with Cache-Status');
    return;
  }
  const member = status.split(',').at(-1).split(';').map((part) => part.trim());
  assert.equal(member[0], 'rejoinder', `Cache-Status is ${JSON.stringify(status)}`);
  const has = (part) => member.includes(part);
  if (expected === 'none') {
    assert.ok(member.some((part) => part.startsWith('fwd=')) && !has('hit') && !has('stored'), status);
  } else if (expected === 'miss') {
    assert.ok(has('fwd=miss') && !has('hit'), status);
  } else {
    assert.ok(has('hit') && has(`detail=${expected}`), status);
    assert.ok(Number(headers.get('age')) >= 0 && headers.get('x-rejoinder-entry'));
  }
}

/** A hit has the very answer of the miss. Direct, each question has its own. */
function same(first, second) {
  assert.ok(first.startsWith('[simulated]'), first);
  if (!direct) assert.equal(first, second);
}

const user = (content) => [{ role: 'user', content }];

const chat = (question, into, equals = into) => async () => {
  const { data, response } = await client.chat.completions
    .create({ model, messages: user(question) })
    .withResponse();
  assert.equal(data.object, 'chat.completion');
  assert.equal(data.choices[0].finish_reason, 'stop');
  assert.ok(data.usage.total_tokens > 0);
  answers[into] = data.choices[0].message.content;
  same(answers[into], answers[equals]);
  return response.headers;
};

const stream = (question, into, equals = into) => async () => {
  const { data, response } = await client.chat.completions
    .create({ model, messages: user(question), stream: true, stream_options: { include_usage: true } })
    .withResponse();
  const chunks = [];
  for await (const chunk of data) chunks.push(chunk);
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.total_tokens > 0);
  assert.equal(chunks.at(-2).choices[0].finish_reason, 'stop');
  assert.ok(chunks.length > (equals === into ? 6 : 3), 'not streamed in pieces');
  answers[into] = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
  same(answers[into], answers[equals]);
  return response.headers;
};

const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};

const callTool = async () => {
  const { data, response } = await client.chat.completions
    .create({ model, messages: user('Use the weather tool for Paris.'), tools: [weather] })
    .withResponse();
  const [call] = data.choices[0].message.tool_calls;
  assert.equal(data.choices[0].finish_reason, 'tool_calls');
  assert.equal(call.function.name, 'weather');
  assert.equal(typeof JSON.parse(call.function.arguments).city, 'string');
  if (!direct) assert.equal(call.function.arguments, (answers.tool ??= call.function.arguments));
  return response.headers;
};

const error = async () => {
  try {
    await client.chat.completions.create({ model: 'no-such-model', messages: user(QUESTION) });
  } catch (error) {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, 'model_not_found');
    return error.headers;
  }
  throw new Error('no error');
};

const responses = (question, into, equals = into) => async () => {
  const { data, response } = await client.responses.create({ model, input: question }).withResponse();
  assert.equal(data.status, 'completed');
  answers[into] = data.output_text;
  same(answers[into], answers[equals]);
  return response.headers;
};

const responseStream = (question, into, equals = into) => async () => {
  const { data, response } = await client.responses
    .create({ model, input: question, stream: true })
    .withResponse();
  const events = [];
  for await (const event of data) events.push(event);
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  assert.equal(events.at(-1).type, 'response.completed');
  answers[into] = events
    .filter((event) => event.type === 'response.output_text.delta')
    .map((event) => event.delta)
    .join('');
  same(answers[into], answers[equals]);
  return response.headers;
};

const embeddings = async () => {
  const { data, response } = await client.embeddings
    .create({ model: 'nomic-embed-text', input: QUESTION })
    .withResponse();
  assert.deepEqual(data.data[0].embedding, (answers.embedding ??= data.data[0].embedding));
  assert.ok(data.data[0].embedding.length > 1);
  return response.headers;
};

await run('chat', 'miss', chat(QUESTION, 'chat'));
await run('chat, the same', 'exact', chat(QUESTION, 'chat again', 'chat'));
await run('chat, other whitespace', 'exact', chat('  What  is the capital of France? \n', 'blanks', 'chat'));
await run('chat, paraphrase', 'semantic', chat("What's the capital city of France?", 'paraphrase', 'chat'));
await run('chat, stream', 'miss', stream(STREAMED_QUESTION, 'stream'));
await run('chat, stream, the same', 'exact', stream(STREAMED_QUESTION, 'stream again', 'stream'));
await run('chat, the streamed one as JSON', 'exact', chat(STREAMED_QUESTION, 'stream as JSON', 'stream'));
await run('chat, unknown model', 'none', error);
await run('chat, unknown model again', 'none', error);
await run('tools', 'miss', callTool);
await run('tools, the same', 'exact', callTool);
await run('responses', 'miss', responses(QUESTION, 'response'));
await run('responses, the same', 'exact', responses(QUESTION, 'response again', 'response'));
await run('responses, the same, stream', 'exact', responseStream(QUESTION, 'response stream', 'response'));
await run('embeddings', 'miss', embeddings);
await run('embeddings, the same', 'exact', embeddings);
process.exit(failures ? 1 : 0);
