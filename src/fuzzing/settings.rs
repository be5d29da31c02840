//! What an operator writes, or a page of the admin listener gave: small texts.

use std::path::Path;

use super::two_texts;
use crate::cache::calibration::{Basis, CalibrationFile};
use crate::config::RedisUrl;
use crate::model_pattern::ModelPattern;
use crate::savings::prices::Prices;
use crate::store::{Cursor, embedded, redis};

pub(super) fn cursors(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
    }
    let _ = (embedded::transfer::read_cursor(&text), redis::transfer::read_cursor(&text));
}

pub(super) fn calibration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for basis in [Basis::Similarity, Basis::Verifier] {
        let Ok(curve) = CalibrationFile::parse(Path::new("f"), &text, "builtin", basis) else { continue };
        let [low, high] = [0.0, 1.0].map(|at| curve.at(at));
        assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high) && low <= high);
        assert!(!curve.least_confidence(0.02).is_nan());
        let written = CalibrationFile::new("builtin".to_owned(), curve, 1, 1, 0.0).to_text().unwrap();
        assert_eq!(CalibrationFile::parse(Path::new("f"), &written, "builtin", basis).unwrap(), curve);
    }
}

pub(super) fn redis_url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(url) = text.parse::<RedisUrl>() else { return };
    let shown = url.to_string();
    let other = url.clone().with_password("another".to_owned());
    if url.has_password() {
        assert_eq!(other.to_string(), shown, "the password shows");
        assert_eq!(format!("{other:?}"), format!("{url:?}"), "the password shows");
    }
    // What is shown is for people: nothing in it is encoded, so an encoded delimiter does not come back.
    if !text.contains(['%', '?']) {
        let again: RedisUrl = shown.parse().unwrap();
        let masked =
            |url: RedisUrl| if url.has_password() { url.with_password("***".to_owned()) } else { url };
        assert_eq!(masked(again), masked(url), "{shown}");
    }
}

pub(super) fn patterns(data: &[u8]) {
    let (text, name) = two_texts(data);
    let read = |text: &str| serde_json::from_value::<ModelPattern>(text.into()).ok();
    let Some(pattern) = read(&text) else { return };
    assert_eq!(pattern.to_string(), text);
    let matches = pattern.matches(&name);
    if name.len() <= 256 {
        assert_eq!(matches, matches_by_table(&text, &name), "two ways of matching disagree");
    }
    // A name is a pattern too.
    if let Some(other) = read(&name)
        && pattern.covers(&other)
    {
        let plain = !name.contains(['*', '?']);
        assert!(!plain || matches, "covers what it does not match");
        let example = name.replace('*', "ab").replace('?', "c");
        assert!(example.len() > 256 || pattern.matches(&example), "covers what it does not match");
    }
}

/// The same by a table: which beginnings of the name the pattern so far matches.
fn matches_by_table(pattern: &str, name: &str) -> bool {
    let letters: Vec<_> = std::iter::once(None).chain(name.chars().map(Some)).collect();
    let mut matched: Vec<bool> = letters.iter().map(Option::is_none).collect();
    for wanted in pattern.chars() {
        let (mut shorter, mut shorter_with_it) = (false, false);
        for (letter, here) in letters.iter().zip(&mut matched) {
            let with_it = match wanted {
                '*' => *here || shorter_with_it,
                _ => shorter && (wanted == '?' || *letter == Some(wanted)),
            };
            shorter = std::mem::replace(here, with_it);
            shorter_with_it = with_it;
        }
    }
    matched.last() == Some(&true)
}

pub(super) fn prices(data: &[u8]) {
    let (text, name) = two_texts(data);
    let Ok(prices) = toml::from_str::<Prices>(&text) else { return };
    let written = toml::to_string(&prices).unwrap();
    assert_eq!(toml::from_str::<Prices>(&written).unwrap(), prices);
    for known in prices.names() {
        assert!(prices.of(known).is_some());
    }
    let _ = prices.of(&name);
}
