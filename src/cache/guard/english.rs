//! Whether a prompt is in English, as the word lists are, and what the verifier has learnt.
//!
//! Asked by the semantic layer, which leaves nothing to the verifier that is not.

use std::collections::HashSet;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

static WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    include_str!("data/english.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect()
});

/// How much of a prompt is looked at, in words: it shows early.
const LOOKED_AT: usize = 100;

/// Whether a prompt has one of the words that give English away, and no more letters of another script than Latin.
/// Errs towards `false`: a few words without a verb or a preposition could be of any language.
pub fn is_english(prompt: &str) -> bool {
    let (mut known, mut latin, mut other) = (false, 0_usize, 0_usize);
    for word in prompt.unicode_words().take(LOOKED_AT) {
        // Letters of Latin, its accents and extensions end here (Unicode, Latin Extended-B).
        let is_latin = word.chars().all(|letter| letter < '\u{250}' || letter == '\u{2019}');
        *(if is_latin { &mut latin } else { &mut other }) += 1;
        known = known || (is_latin && WORDS.contains(word.replace('\u{2019}', "'").to_lowercase().as_str()));
    }
    known && other < latin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_is_told_by_its_small_words() {
        for prompt in [
            "What is the capital of France?",
            "how do i reset my password",
            "Translate 'Guten Morgen' into Spanish",
            "Write a haiku",
            "explain the word 猫",
        ] {
            assert!(is_english(prompt), "{prompt}");
        }
        for prompt in [
            "Wie setze ich mein Passwort zurück?",
            "¿Cuál es la capital de Francia?",
            "Comment réinitialiser mon mot de passe ?",
            "Qual é a capital da França?",
            "Come posso cambiare la password?",
            "Hoe reset ik mijn wachtwoord?",
            "我怎么买股票？",
            "как сбросить пароль",
            "パスワードをリセットする方法",
            "python3 venv",
            "",
        ] {
            assert!(!is_english(prompt), "{prompt}");
        }
    }
}
