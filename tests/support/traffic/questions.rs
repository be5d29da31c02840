//! What the clients ask: scopes that must never mix, and questions in several wordings each.

use serde_json::Value;

use crate::support::client::Ask;
use crate::support::generating;

/// Whose requests, and of what kind.
#[derive(Debug)]
pub struct Asker {
    /// The endpoint.
    pub path: &'static str,
    model: &'static str,
    headers: &'static [(&'static str, &'static str)],
    /// Said after every question, where nothing else in upstream's reply would show whose it is.
    suffix: &'static str,
}

/// No two of them may be given each other's replies. They differ by one thing each where they can.
pub const ASKERS: [Asker; 8] = [
    asker("/v1/chat/completions", "llama3.2", &[("authorization", "Bearer alpha")], ""),
    asker("/v1/chat/completions", "llama3.2", &[("authorization", "Bearer beta")], ""),
    asker("/v1/chat/completions", "mistral", &[("authorization", "Bearer alpha")], ""),
    asker(
        "/v1/chat/completions",
        "llama3.2",
        &[("authorization", "Bearer alpha"), ("x-rejoinder-namespace", "handbook")],
        " Answer from the handbook.",
    ),
    asker("/api/generate", "llama3.2", &[], ""),
    asker("/api/chat", "llama3.2", &[], ""),
    asker("/v1/messages", "llama3.2", &[("x-api-key", "gamma")], ""),
    asker("/v1/responses", "llama3.2", &[("authorization", "Bearer beta")], ""),
];

const fn asker(
    path: &'static str,
    model: &'static str,
    headers: &'static [(&'static str, &'static str)],
    suffix: &'static str,
) -> Asker {
    Asker { path, model, headers, suffix }
}

impl Asker {
    /// A question as this asker words it.
    pub fn prompt(&self, question: Question, wording: usize) -> String {
        format!("{}{}", question.worded(wording), self.suffix)
    }

    /// The request that asks it.
    pub fn ask(&self, base: &str, prompt: &str, streamed: bool) -> Ask {
        let found = generating(prompt).into_iter().find(|(path, _)| *path == self.path);
        let (_, mut body) = found.expect("an endpoint that generates");
        body["model"] = Value::from(self.model);
        body["stream"] = Value::Bool(streamed);
        let ask = Ask::post(&format!("{base}{}", self.path), &body);
        self.headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value))
    }
}

/// A question, whatever its wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question(usize);

/// How many wordings each question has.
pub const WORDINGS: usize = 2;

/// Wordings that mean the same, `@` for the subject. The second has one word more, so that it is nearer to the first
/// than the first is to the same question about another subject, also where an embedding only counts words.
const FORMS: [[&str; WORDINGS]; 12] = [
    ["What is the capital of @?", "What is the capital city of @?"],
    ["Who was the first king of @?", "Who was the very first king of @?"],
    ["Explain the history of @.", "Please explain the history of @."],
    ["Name the highest mountain in @.", "Please name the highest mountain in @."],
    ["Name the longest river in @.", "Please name the longest river in @."],
    ["Describe the national flower of @.", "Please describe the national flower of @."],
    ["Describe the national dish of @.", "Please describe the national dish of @."],
    ["Tell me the population of @.", "Please tell me the population of @."],
    ["Tell me which animals live in @.", "Please tell me which animals live in @."],
    ["Tell me how to rent a car in @.", "Please tell me how to rent a car in @."],
    ["Tell me the climate of @.", "Please tell me the climate of @."],
    ["Explain the constitution of @.", "Please explain the constitution of @."],
];

#[rustfmt::skip]
const SUBJECTS: [&str; 59] = [
    "France", "Norway", "Japan", "Brazil", "Kenya", "Canada", "Peru", "Poland", "India", "Egypt", "Mexico",
    "Turkey", "Greece", "Spain", "Italy", "Sweden", "Finland", "Austria", "Hungary", "Romania", "Bulgaria",
    "Ukraine", "Iceland", "Ireland", "Portugal", "Morocco", "Lebanon", "Algeria", "Nigeria", "Ghana",
    "Ethiopia", "Tanzania", "Uganda", "Zambia", "Angola", "Namibia", "Chile", "Argentina", "Bolivia",
    "Ecuador", "Colombia", "Venezuela", "Panama", "Cuba", "Jamaica", "Thailand", "Vietnam", "Cambodia",
    "Malaysia", "Indonesia", "Nepal", "Pakistan", "Iran", "Iraq", "Israel", "Mongolia", "China",
    "Australia", "Madagascar",
];

impl Question {
    /// The one of this number; they repeat after [`Self::COUNT`].
    pub fn numbered(number: usize) -> Self {
        Self(number % Self::COUNT)
    }

    /// How many there are.
    pub const COUNT: usize = FORMS.len() * SUBJECTS.len();

    /// The question in one of its wordings.
    pub fn worded(self, wording: usize) -> String {
        FORMS[self.0 % FORMS.len()][wording].replace('@', SUBJECTS[self.0 / FORMS.len()])
    }
}
