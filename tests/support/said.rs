//! What a reply says, read from its bytes in any dialect and form, independently of the program's own readers.

use serde_json::Value;

use super::values_of;

/// What a reply says, framing and what differs at each replay aside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// One text for each choice.
    pub texts: Vec<String>,
    /// The refusal, where there is one.
    pub refusal: String,
    /// Reasoning or thinking, and what signs it.
    pub reasoning: String,
    /// Tools called: id, name, arguments.
    pub calls: Vec<(String, String, Value)>,
    /// The log probability of each piece.
    pub logprobs: Vec<Value>,
    /// Why it ended, for each choice.
    pub finish: Vec<String>,
    /// Tokens in and out.
    pub usage: Option<(u64, u64)>,
}

impl Said {
    /// Reads an unstreamed reply.
    pub fn in_document(path: &str, document: &Value) -> Self {
        let mut said = Self::default();
        match path {
            "/v1/chat/completions" => said.chat(document, "message"),
            "/v1/completions" => said.completions(document),
            "/v1/responses" => said.response(document),
            "/v1/messages" => said.message(document),
            _ => said.ollama(document),
        }
        said
    }

    /// Reads a whole stream.
    pub fn in_stream(path: &str, stream: &str) -> Self {
        let mut said = Self::default();
        let mut arguments: Vec<String> = Vec::new();
        for value in values_of(stream) {
            match path {
                "/v1/chat/completions" => said.chat(&value, "delta"),
                "/v1/completions" => said.completions(&value),
                "/v1/responses" => said.response_event(&value),
                "/v1/messages" => said.message_event(&value, &mut arguments),
                _ => said.ollama(&value),
            }
        }
        for ((_, _, call), text) in said.calls.iter_mut().zip(arguments) {
            *call = Value::String(text);
        }
        for (_, _, arguments) in &mut said.calls {
            if let Value::String(text) = arguments {
                *arguments = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
            }
        }
        said
    }

    fn text(&mut self, choice: usize, text: &Value) {
        if self.texts.len() <= choice {
            self.texts.resize(choice + 1, String::new());
        }
        self.texts[choice].push_str(text.as_str().unwrap_or_default());
    }

    fn finished(&mut self, choice: usize, reason: &Value) {
        if let Some(reason) = reason.as_str() {
            if self.finish.len() <= choice {
                self.finish.resize(choice + 1, String::new());
            }
            reason.clone_into(&mut self.finish[choice]);
        }
    }

    fn used(&mut self, input: &Value, output: &Value) {
        if let (Some(input), Some(output)) = (input.as_u64(), output.as_u64()) {
            self.usage = Some((input, output));
        }
    }

    /// A document or a chunk of a stream, in which `name` is the message or part of it.
    fn chat(&mut self, value: &Value, name: &str) {
        for choice in list(&value["choices"]) {
            let message = &choice[name];
            let at = index(choice);
            self.text(at, &message["content"]);
            push(&mut self.refusal, &message["refusal"]);
            push(&mut self.reasoning, &message["reasoning"]);
            for (place, call) in list(&message["tool_calls"]).iter().enumerate() {
                let place = call["index"].as_u64().map_or(place, |at| usize::try_from(at).unwrap());
                if self.calls.len() <= place {
                    self.calls.resize(place + 1, (String::new(), String::new(), Value::from("")));
                }
                let (id, function, arguments) = &mut self.calls[place];
                push(id, &call["id"]);
                push(function, &call["function"]["name"]);
                let mut text = arguments.as_str().unwrap_or_default().to_owned();
                push(&mut text, &call["function"]["arguments"]);
                *arguments = Value::String(text);
            }
            self.logprobs.extend_from_slice(list(&choice["logprobs"]["content"]));
            self.finished(at, &choice["finish_reason"]);
        }
        self.used(&value["usage"]["prompt_tokens"], &value["usage"]["completion_tokens"]);
        if name == "message" {
            for (_, _, arguments) in &mut self.calls {
                *arguments = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
            }
        }
    }

    fn completions(&mut self, value: &Value) {
        for choice in list(&value["choices"]) {
            let at = index(choice);
            self.text(at, &choice["text"]);
            let logprobs = &choice["logprobs"];
            for (place, token) in list(&logprobs["tokens"]).iter().enumerate() {
                let of = |name: &str| logprobs[name][place].clone();
                let all = [token.clone(), of("token_logprobs"), of("top_logprobs"), of("text_offset")];
                self.logprobs.push(Value::from(all.to_vec()));
            }
            self.finished(at, &choice["finish_reason"]);
        }
        self.used(&value["usage"]["prompt_tokens"], &value["usage"]["completion_tokens"]);
    }

    fn response(&mut self, response: &Value) {
        for item in list(&response["output"]) {
            match item["type"].as_str().unwrap() {
                "reasoning" => push(&mut self.reasoning, &item["summary"][0]["text"]),
                "function_call" => {
                    let text = item["arguments"].as_str().unwrap();
                    self.call(&item["call_id"], &item["name"], serde_json::from_str(text).unwrap());
                }
                _ => {
                    for part in list(&item["content"]) {
                        self.text(0, &part["text"]);
                        push(&mut self.refusal, &part["refusal"]);
                        self.logprobs.extend_from_slice(list(&part["logprobs"]));
                    }
                }
            }
        }
        self.finished(0, &response["status"]);
        self.used(&response["usage"]["input_tokens"], &response["usage"]["output_tokens"]);
    }

    fn response_event(&mut self, event: &Value) {
        match event["type"].as_str().unwrap() {
            "response.output_text.delta" => {
                self.text(0, &event["delta"]);
                self.logprobs.extend_from_slice(list(&event["logprobs"]));
            }
            "response.refusal.delta" => {
                self.text(0, &Value::Null);
                push(&mut self.refusal, &event["delta"]);
            }
            "response.reasoning_summary_text.delta" => push(&mut self.reasoning, &event["delta"]),
            "response.output_item.added" if event["item"]["type"] == "function_call" => {
                self.call(&event["item"]["call_id"], &event["item"]["name"], Value::from(""));
            }
            "response.function_call_arguments.delta" => {
                let (_, _, arguments) = self.calls.last_mut().unwrap();
                let mut text = arguments.as_str().unwrap().to_owned();
                push(&mut text, &event["delta"]);
                *arguments = Value::String(text);
            }
            "response.completed" => {
                let whole = Self::in_document("/v1/responses", &event["response"]);
                assert_eq!(whole.texts, self.texts, "the last event says what those before it said");
                assert_eq!(whole.logprobs, self.logprobs);
                (self.finish, self.usage) = (whole.finish, whole.usage);
            }
            _ => {}
        }
    }

    fn message(&mut self, message: &Value) {
        for block in list(&message["content"]) {
            match block["type"].as_str().unwrap() {
                "thinking" => {
                    push(&mut self.reasoning, &block["thinking"]);
                    push(&mut self.reasoning, &block["signature"]);
                }
                "tool_use" => self.call(&block["id"], &block["name"], block["input"].clone()),
                _ => self.text(0, &block["text"]),
            }
        }
        self.finished(0, &message["stop_reason"]);
        self.used(&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]);
    }

    fn message_event(&mut self, event: &Value, arguments: &mut Vec<String>) {
        match event["type"].as_str().unwrap() {
            "message_start" => self.message(&event["message"]),
            "content_block_start" => {
                let block = &event["content_block"];
                if block["type"] == "tool_use" {
                    self.call(&block["id"], &block["name"], Value::Null);
                    arguments.push(String::new());
                }
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                push(&mut self.reasoning, &delta["thinking"]);
                push(&mut self.reasoning, &delta["signature"]);
                if delta["type"] == "text_delta" {
                    self.text(0, &delta["text"]);
                }
                if let Some(last) = arguments.last_mut() {
                    push(last, &delta["partial_json"]);
                }
            }
            "message_delta" => {
                self.finished(0, &event["delta"]["stop_reason"]);
                let input = Value::from(self.usage.unwrap().0);
                self.used(&input, &event["usage"]["output_tokens"]);
            }
            _ => {}
        }
    }

    /// A document or a line of a stream.
    fn ollama(&mut self, value: &Value) {
        let message = value.get("message").unwrap_or(value);
        self.text(0, message.get("content").or_else(|| value.get("response")).unwrap());
        push(&mut self.reasoning, &message["thinking"]);
        for call in list(&message["tool_calls"]) {
            self.call(&call["id"], &call["function"]["name"], call["function"]["arguments"].clone());
        }
        self.logprobs.extend_from_slice(list(&value["logprobs"]));
        self.finished(0, &value["done_reason"]);
        self.used(&value["prompt_eval_count"], &value["eval_count"]);
    }

    fn call(&mut self, id: &Value, name: &Value, arguments: Value) {
        self.calls.push((id.as_str().unwrap().to_owned(), name.as_str().unwrap().to_owned(), arguments));
    }
}

fn push(text: &mut String, more: &Value) {
    text.push_str(more.as_str().unwrap_or_default());
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn index(choice: &Value) -> usize {
    usize::try_from(choice["index"].as_u64().unwrap()).unwrap()
}
