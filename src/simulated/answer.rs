//! What the simulated model says: read from the whole request, free of any dialect's framing.
//!
//! The text holds a digest of all that a real server's reply could depend on, so that a reply reused for a
//! different request shows; `stream` and its like are left out of the digest, as they change only the framing.

use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value, json};

use super::fault::Content;
use crate::dialect::OUTSIDE_SCOPE;
use crate::dialect::json::Json;

/// The headers that belong to the digest: credentials and what selects a behaviour of the server.
const HEADERS: [&str; 10] = [
    "authorization",
    "cookie",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "openai-organization",
    "openai-project",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
];

/// A request's body and what is needed of it in every dialect.
pub(super) struct Asked {
    /// The body.
    pub(super) body: Map<String, Value>,
    /// Its `model`.
    pub(super) model: String,
    /// The prompt: the last user text; empty where there is none.
    pub(super) prompt: String,
    /// A digest of the whole request, 16 hexadecimal digits.
    pub(super) digest: String,
    /// How many requests came before it: makes identifiers fresh.
    pub(super) number: usize,
}

/// What the model says.
pub(super) struct Answer {
    /// One text for each choice, in the pieces in which it is streamed.
    pub(super) texts: Vec<Vec<String>>,
    /// The reasoning, where the request asks for it, in pieces.
    pub(super) reasoning: Vec<String>,
    /// A call of one of the request's tools, in place of the text.
    pub(super) call: Option<Call>,
    /// Why it ends.
    pub(super) stop: Stop,
    /// Tokens of the prompt: its words.
    pub(super) input_tokens: usize,
    /// Tokens of the reply: its pieces.
    pub(super) output_tokens: usize,
}

/// A call of a tool.
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// Why a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    End,
    Length,
    Filter,
    Refusal,
    ToolCall,
}

impl Asked {
    /// Reads a request. `Err` is the reason for a 400.
    pub(super) fn read(
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: &[u8],
        number: usize,
    ) -> Result<Self, &'static str> {
        let digest = digest(method, uri, headers, body);
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            return Err("the body is not a JSON object");
        };
        let model = body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
        if model.is_empty() {
            return Err("model is required");
        }
        let prompt = prompt_of(&body);
        Ok(Self { body, model, prompt, digest, number })
    }

    /// An identifier that no other reply has.
    pub(super) fn id(&self, prefix: &str) -> String {
        let digest = self.digest.get(..8).unwrap_or_default();
        format!("{prefix}{digest}{:06}", self.number)
    }

    /// A member of the body that is `true`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.body.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A member of the body that is a count, at most `most`.
    pub(super) fn count(&self, name: &str, most: usize) -> Option<usize> {
        count(self.body.get(name)?).map(|count| count.min(most))
    }

    /// What the model says to this.
    pub(super) fn answer(&self, content: Content) -> Answer {
        let call = if content == Content::Whole { self.call() } else { None };
        let texts = if call.is_some() { vec![Vec::new()] } else { self.texts(content) };
        let mut answer = Answer {
            texts,
            reasoning: self.reasoning(),
            stop: match content {
                _ if call.is_some() => Stop::ToolCall,
                Content::StoppedByLength => Stop::Length,
                Content::Filtered => Stop::Filter,
                Content::Refused => Stop::Refusal,
                Content::Whole | Content::Empty | Content::Huge(_) | Content::ErrorInside => Stop::End,
            },
            call,
            input_tokens: self.prompt.split_whitespace().count().max(1),
            output_tokens: 0,
        };
        if let Some(limit) = self.token_limit().filter(|_| !matches!(content, Content::Huge(_))) {
            for text in &mut answer.texts {
                if text.len() > limit {
                    text.truncate(limit);
                    answer.stop = Stop::Length;
                }
            }
        }
        let call_tokens = usize::from(answer.call.is_some()) * 8;
        answer.output_tokens =
            answer.texts.iter().map(Vec::len).sum::<usize>() + answer.reasoning.len() + call_tokens;
        answer
    }

    fn texts(&self, content: Content) -> Vec<Vec<String>> {
        let prompts: Vec<&str> = match self.body.get("prompt").and_then(Value::as_array) {
            Some(prompts) if prompts.iter().all(Value::is_string) && !prompts.is_empty() => {
                prompts.iter().filter_map(Value::as_str).collect()
            }
            _ => vec![self.prompt.as_str()],
        };
        let choices = self.count("n", 16).unwrap_or(1).max(1);
        let mut texts = Vec::new();
        for prompt in prompts {
            for choice in 1..=choices {
                let text = match content {
                    Content::Empty => String::new(),
                    Content::Huge(bytes) => self.huge(bytes),
                    Content::Refused => format!("[simulated] I refuse, {}", self.digest),
                    _ => self.text(prompt, choice),
                };
                texts.push(pieces_of(&text));
            }
        }
        texts
    }

    fn text(&self, prompt: &str, choice: usize) -> String {
        let quoted: String = prompt.chars().take(400).collect();
        if self.wants_json() {
            return json!({"simulated": true, "answer": self.digest, "choice": choice, "prompt": quoted})
                .to_string();
        }
        let variant = if choice > 1 { format!(" (choice {choice})") } else { String::new() };
        format!("[simulated] {} answers {}{variant} to “{quoted}”.", self.model, self.digest)
    }

    fn huge(&self, bytes: usize) -> String {
        let mut text = format!("[simulated] {} ", self.digest);
        while text.len() < bytes {
            text.push_str("more and ");
        }
        text.truncate(bytes);
        text
    }

    fn wants_json(&self) -> bool {
        let kind = self.body.get("response_format").and_then(|format| format.get("type"));
        let text_format = self.body.get("text").and_then(|text| text.pointer("/format/type"));
        kind.or(text_format).and_then(Value::as_str).is_some_and(|kind| kind != "text")
            || self.body.get("format").is_some_and(|format| !format.is_null() && format != "")
    }

    fn token_limit(&self) -> Option<usize> {
        ["max_tokens", "max_completion_tokens", "max_output_tokens"]
            .into_iter()
            .find_map(|name| count(self.body.get(name)?))
            .or_else(|| count(self.body.get("options")?.get("num_predict")?))
    }

    fn reasoning(&self) -> Vec<String> {
        let wanted = match (self.body.get("think"), self.body.get("thinking")) {
            (Some(think), _) if !think.is_null() => think != &Value::Bool(false),
            (_, Some(thinking)) => thinking.get("type").and_then(Value::as_str) == Some("enabled"),
            _ => {
                let effort = self.body.get("reasoning").and_then(|reasoning| reasoning.get("effort"));
                let effort = effort.or_else(|| self.body.get("reasoning_effort")).and_then(Value::as_str);
                effort.is_some_and(|effort| effort != "none")
            }
        };
        if !wanted {
            return Vec::new();
        }
        pieces_of(&format!("[simulated] thinking about {}", self.digest))
    }

    /// The tool that the prompt asks for: by its name, by the word "tool", or by `tool_choice`.
    fn call(&self) -> Option<Call> {
        let tools = self.body.get("tools")?.as_array()?;
        let choice = self.body.get("tool_choice");
        let kind = choice.and_then(|choice| choice.get("type").unwrap_or(choice).as_str()).unwrap_or("auto");
        if kind == "none" || self.prompt.is_empty() {
            return None;
        }
        let prompt = self.prompt.to_lowercase();
        let function = |tool: &Value| tool.get("function").unwrap_or(tool).clone();
        let name = |function: &Value| function.get("name").and_then(Value::as_str).map(str::to_owned);
        let named = tools
            .iter()
            .map(function)
            .find(|function| name(function).is_some_and(|name| prompt.contains(&name.to_lowercase())));
        let forced = matches!(kind, "required" | "any" | "function" | "tool") || prompt.contains("tool");
        let chosen = named.or_else(|| tools.first().filter(|_| forced).map(function))?;
        let schema = ["parameters", "input_schema"].into_iter().find_map(|name| chosen.get(name));
        Some(Call {
            id: self.id("call_"),
            name: name(&chosen)?,
            arguments: self.arguments(schema.unwrap_or(&Value::Null)),
        })
    }

    fn arguments(&self, schema: &Value) -> Value {
        let mut arguments = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let first = property.get("enum").and_then(Value::as_array).and_then(|values| values.first());
            let value = match (first, property.get("type").and_then(Value::as_str)) {
                (Some(first), _) => first.clone(),
                (_, Some("number" | "integer")) => json!(self.number % 100),
                (_, Some("boolean")) => json!(true),
                (_, Some("array")) => json!([]),
                (_, Some("object")) => json!({}),
                _ => json!(format!("simulated {}", self.digest)),
            };
            arguments.insert(name.clone(), value);
        }
        Value::Object(arguments)
    }
}

/// A log probability for a piece: deterministic and negative.
pub(super) fn logprob(piece: &str) -> f64 {
    let length = u32::try_from(piece.len().min(100)).unwrap_or(100);
    -f64::from(length) / 64.0
}

/// A piece's log probability as OpenAI and Ollama write it.
pub(super) fn logprob_object(piece: &str) -> Value {
    let bytes = piece.as_bytes();
    json!({
        "token": piece,
        "logprob": logprob(piece),
        "bytes": bytes,
        "top_logprobs": [{"token": piece, "logprob": logprob(piece), "bytes": bytes}],
    })
}

/// A text in the pieces in which a model would stream it: each a word with the blanks before it.
fn pieces_of(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut in_word = false;
    for character in text.chars() {
        match pieces.last_mut() {
            Some(piece) if !(in_word && character.is_whitespace()) => piece.push(character),
            _ => pieces.push(character.to_string()),
        }
        in_word = !character.is_whitespace();
    }
    pieces
}

fn count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|count| usize::try_from(count).ok())
}

/// The last user text of a body in any dialect.
fn prompt_of(body: &Map<String, Value>) -> String {
    if let Some(prompt) = body.get("prompt").or_else(|| body.get("input").filter(|input| input.is_string())) {
        return text_of(prompt);
    }
    let last =
        body.get("messages").or_else(|| body.get("input")).and_then(Value::as_array).and_then(|m| m.last());
    match last {
        Some(Value::String(text)) => text.clone(),
        Some(message) if message.get("role").and_then(Value::as_str) == Some("user") => {
            message.get("content").map(text_of).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text").unwrap_or(part).as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn digest(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&bytes.len().to_le_bytes());
        hasher.update(bytes);
    };
    part(method.as_str().as_bytes());
    part(uri.path().as_bytes());
    part(uri.query().unwrap_or_default().as_bytes());
    for name in HEADERS {
        for value in headers.get_all(name) {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    }
    match Json::parse(body) {
        Ok(mut json) => {
            if let Some(object) = json.as_object_mut() {
                object.drop_nulls();
                for name in OUTSIDE_SCOPE {
                    object.remove(name);
                }
            }
            let mut encoded = Vec::with_capacity(body.len());
            json.encode(&mut encoded);
            part(&encoded);
        }
        Err(_) => part(body),
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}
