//! Answers of any bytes, see [`crate::fuzzing`].

use super::{OlderOllamaAnswer, OllamaAnswer, OpenAiAnswer, only, read};

pub(crate) fn check(data: &[u8]) {
    let openai =
        read::<OpenAiAnswer>(data).map(|answer| answer.data.into_iter().map(|entry| entry.embedding));
    let answers = [
        openai.map(Iterator::collect),
        read::<OllamaAnswer>(data).map(|answer| answer.embeddings),
        read::<OlderOllamaAnswer>(data).map(|answer| vec![answer.embedding]),
    ];
    for embedding in answers.into_iter().flatten().flat_map(only) {
        let length: f32 = embedding.values().iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 0.01, "an embedding has the length 1, and this one {length}");
    }
}
