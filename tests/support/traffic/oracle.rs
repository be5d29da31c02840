//! What upstream itself says to each request, and so what a reply must say.

use std::collections::HashMap;

use parking_lot::Mutex;
use rejoinder::simulated::Simulated;

use super::questions::{ASKERS, Question, WORDINGS};
use super::report::{Verdict, layer};
use crate::support::Said;
use crate::support::client::{Ask, Reply};

/// One request, without when and where.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Whose, by place in [`ASKERS`].
    pub asker: usize,
    /// What.
    pub question: Question,
    /// In which words, below [`WORDINGS`].
    pub wording: usize,
    /// Whether the reply comes as a stream.
    pub streamed: bool,
}

impl Asked {
    /// The prompt.
    pub fn prompt(&self) -> String {
        ASKERS[self.asker].prompt(self.question, self.wording)
    }

    /// The request to a server.
    pub fn ask(&self, base: &str) -> Ask {
        ASKERS[self.asker].ask(base, &self.prompt(), self.streamed)
    }

    fn said(&self, reply: &Reply) -> String {
        let path = ASKERS[self.asker].path;
        let said = if self.streamed {
            Said::in_stream(path, reply.text())
        } else {
            Said::in_document(path, &reply.json())
        };
        said.texts.concat()
    }
}

/// Knows the right reply to each prompt of each asker: from an upstream of its own, which the proxies do not know.
pub struct Oracle {
    upstream: Simulated,
    known: Mutex<HashMap<(usize, String), String>>,
}

impl Oracle {
    /// Starts its upstream.
    pub async fn start() -> Self {
        Self { upstream: crate::support::upstream().await, known: Mutex::default() }
    }

    /// Whether this is the reply to this request; by the semantic layer also one to another wording of it.
    pub async fn judge(&self, asked: &Asked, reply: &Reply) -> Verdict {
        let prompt = asked.prompt();
        if reply.status != 200 {
            return Verdict::Failed(format!("{} to {prompt:?}: {:?}", reply.status, reply.body));
        }
        let said = asked.said(reply);
        if said == self.text(asked.asker, &prompt).await {
            return Verdict::Right;
        }
        if layer(reply) == Some("semantic") {
            for wording in 0..WORDINGS {
                let other = ASKERS[asked.asker].prompt(asked.question, wording);
                if said == self.text(asked.asker, &other).await {
                    return Verdict::Right;
                }
            }
        }
        Verdict::Wrong(format!("{said:?} to {prompt:?} of {:?}: {:?}", ASKERS[asked.asker], reply.headers))
    }

    async fn text(&self, asker: usize, prompt: &str) -> String {
        let name = (asker, prompt.to_owned());
        if let Some(known) = self.known.lock().get(&name) {
            return known.clone();
        }
        let reply = ASKERS[asker].ask(&self.upstream.url(), prompt, false).send().await;
        let text = Said::in_document(ASKERS[asker].path, &reply.json()).texts.concat();
        self.known.lock().insert(name, text.clone());
        text
    }
}
