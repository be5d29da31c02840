//! What fuzzing asserts of every reader of bytes from outside: a function for each target, which takes any bytes
//! and panics where a property does not hold.
//!
//! Called by `fuzz/fuzz_targets`, one file for each target, and by the tests, which replay `fuzz/corpus` on every
//! run. Never called by the program. `docs/fuzzing.md` says how to run it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a target says what it found; the program never calls this"
)]

mod headers;
mod prompts;
mod replies;
mod requests;
mod settings;
mod streams;

#[cfg(test)]
mod tests;

use crate::cache::transfer;
use crate::dialect::Endpoint;
use crate::store::{embedded, redis};
use crate::{config, embed};

const OPENAI: [Endpoint; 4] = [
    Endpoint::OpenAiChat,
    Endpoint::OpenAiCompletions,
    Endpoint::OpenAiResponses,
    Endpoint::OpenAiEmbeddings,
];
const ANTHROPIC: [Endpoint; 1] = [Endpoint::AnthropicMessages];
const OLLAMA: [Endpoint; 4] =
    [Endpoint::OllamaGenerate, Endpoint::OllamaChat, Endpoint::OllamaEmbed, Endpoint::OllamaEmbeddings];

macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident($data:ident) $body:block)+) => {
        $($(#[$doc])* pub fn $name($data: &[u8]) $body)+

        /// Every target by its name, which is that of its file in `fuzz/fuzz_targets` and its folder in `fuzz/corpus`.
        pub const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name),)+];
    };
}

targets! {
    /// The body of a request to an OpenAI endpoint.
    request_openai(data) { requests::check(&OPENAI, data); }

    /// The body of a request to Anthropic's endpoint.
    request_anthropic(data) { requests::check(&ANTHROPIC, data); }

    /// The body of a request to an Ollama endpoint.
    request_ollama(data) { requests::check(&OLLAMA, data); }

    /// The body of an OpenAI reply, as one document or as events.
    gather_openai(data) { replies::gather(&OPENAI, data); }

    /// The body of an Anthropic reply, as one document or as events.
    gather_anthropic(data) { replies::gather(&ANTHROPIC, data); }

    /// The body of an Ollama reply, as one document or as lines.
    gather_ollama(data) { replies::gather(&OLLAMA, data); }

    /// A stored document of an OpenAI endpoint, replayed in every form.
    replay_openai(data) { replies::replay(&OPENAI, data); }

    /// A stored document of Anthropic's endpoint, replayed in every form.
    replay_anthropic(data) { replies::replay(&ANTHROPIC, data); }

    /// A stored document of an Ollama endpoint, replayed in every form.
    replay_ollama(data) { replies::replay(&OLLAMA, data); }

    /// Server-sent events and lines of JSON, cut anywhere.
    streams(data) { streams::check(data); }

    /// A stream out of which usage is taken, cut anywhere.
    usage_filter(data) { streams::usage_filter(data); }

    /// A body under each content coding.
    content_coding(data) { streams::content_coding(data); }

    /// Headers, one a line as `name: value`: `Cache-Control`, `X-Rejoinder-…`, `traceparent`, and all that is taken out.
    request_headers(data) { headers::check(data); }

    /// A record of the embedded store, with a valid seal and without.
    disk_record(data) { embedded::disk::record::fuzzing::check(data); }

    /// The fields of an entry in Redis, with a valid seal and without.
    redis_record(data) { redis::record::fuzzing::check(data); }

    /// A line of an import.
    import_line(data) { transfer::fuzzing::check(data); }

    /// The cursors of listings and exports.
    cursor(data) { settings::cursors(data); }

    /// The configuration file.
    configuration(data) { config::fuzzing::check(data); }

    /// The calibration file.
    calibration(data) { settings::calibration(data); }

    /// `--redis-url`.
    redis_url(data) { settings::redis_url(data); }

    /// A pattern of models' names, and a name.
    patterns(data) { settings::patterns(data); }

    /// `[prices]`, and the name of a model.
    prices(data) { settings::prices(data); }

    /// Two prompts as a client sends them: normalised, compared by the guard, split into word pieces.
    prompts(data) { prompts::check(data); }

    /// Two long prompts, made by repeating two short ones: what takes more than linear time, times out.
    long_prompts(data) { prompts::long(data); }

    /// The answer of a remote embedder.
    embedding_answer(data) { embed::remote::fuzzing::check(data); }
}

/// Two texts out of one input, parted by a zero byte.
fn two_texts(data: &[u8]) -> (String, String) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (one, other) = data.split_at(at);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(one), text(other.strip_prefix(b"\0").unwrap_or_default()))
}

/// A source of chance that is the same for the same input.
fn chance(data: &[u8]) -> fastrand::Rng {
    fastrand::Rng::with_seed(
        blake3::hash(data).as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes),
    )
}
