//! Embeddings: `/v1/embeddings`, `/api/embed`, `/api/embeddings`.
//!
//! A text's vector is a bag of its words, so that texts that share words are near each other, and a little of the
//! request's digest, so that a wrong reuse shows.

use serde_json::{Value, json};

use super::answer::Asked;

const WORDS: usize = 60;
const DIMENSIONS: usize = WORDS + 4;

/// The reply of `/v1/embeddings`.
pub(super) fn openai(asked: &Asked) -> Value {
    let base64 = asked.body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let texts = inputs(asked);
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(asked, text);
            let embedding = if base64 { json!(base64_of(&vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens = tokens(&texts);
    json!({
        "object": "list",
        "data": data,
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })
}

/// The reply of `/api/embed`.
pub(super) fn ollama(asked: &Asked) -> Value {
    let texts = inputs(asked);
    let embeddings: Vec<_> = texts.iter().map(|text| vector(asked, text)).collect();
    json!({
        "model": asked.model,
        "embeddings": embeddings,
        "total_duration": 14_143_917,
        "load_duration": 1_019_500,
        "prompt_eval_count": tokens(&texts),
    })
}

/// The reply of `/api/embeddings`, Ollama's older form.
pub(super) fn ollama_older(asked: &Asked) -> Value {
    json!({"embedding": vector(asked, &asked.prompt)})
}

fn inputs(asked: &Asked) -> Vec<String> {
    match asked.body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        // Arrays of texts; token numbers, singly or in arrays, are embedded by their spelling.
        Some(Value::Array(items)) if items.iter().all(Value::is_number) && !items.is_empty() => {
            vec![Value::Array(items.clone()).to_string()]
        }
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

fn tokens(texts: &[String]) -> usize {
    texts.iter().map(|text| text.split_whitespace().count()).sum()
}

fn vector(asked: &Asked, text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSIONS];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = blake3::hash(word.to_lowercase().as_bytes());
        let [first, second, ..] = *hash.as_bytes();
        if let Some(value) = vector.get_mut(usize::from(first) % WORDS) {
            *value += if second % 2 == 0 { 1.0 } else { -1.0 };
        }
    }
    let trace = blake3::hash(asked.digest.as_bytes());
    for (value, byte) in vector.iter_mut().skip(WORDS).zip(trace.as_bytes()) {
        *value = (f32::from(*byte) - 127.5) / 12_750.0;
    }
    if let Some(dimensions) = asked.count("dimensions", DIMENSIONS).filter(|dimensions| *dimensions > 0) {
        vector.drain(..DIMENSIONS - dimensions);
    }
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        for value in &mut vector {
            *value /= norm;
        }
    }
    vector
}

/// The vector's little-endian bytes in base64 (RFC 4648 §4), which the official Python client asks for.
fn base64_of(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            let character = ALPHABET.get(index).copied().unwrap_or(b'=');
            text.push(char::from(if place <= group.len() { character } else { b'=' }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_the_rfc() {
        assert_eq!(super::base64_of(&[f32::from_le_bytes(*b"foob")]), "Zm9vYg==");
        assert_eq!(
            super::base64_of(&[f32::from_le_bytes(*b"foob"), f32::from_le_bytes(*b"arba")]),
            "Zm9vYmFyYmE="
        );
        let three = [*b"foob", *b"arba", *b"zqux"].map(f32::from_le_bytes);
        assert_eq!(super::base64_of(&three), "Zm9vYmFyYmF6cXV4");
    }
}
