//! Whether a prompt is in English, as the word lists are, and what the verifier has learnt.
//!
//! Asked by the semantic layer, which leaves nothing to the verifier that is not.

use std::collections::HashSet;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use super::lexicon::{LEXICON, lines};

/// Words that English sentences are full of.
static TELLING: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| lines(include_str!("data/english.txt")).collect());

/// Words that sentences of other languages are full of.
static FOREIGN: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| lines(include_str!("data/foreign.txt")).collect());

/// How much of a prompt is looked at, in words: it shows early.
const LOOKED_AT: usize = 100;

/// Letters of a word that is looked up: shorter ones are words or abbreviations in any language.
const LONG: usize = 3;

/// Of how many words looked up one may be unknown.
const ONE_UNKNOWN_OF: usize = 4;

/// Whether a prompt has one of the words that give English away or, as a search in a few words, consists of English words, and
/// has no more letters of another script than Latin. Errs towards `false`.
pub fn is_english(prompt: &str) -> bool {
    let (mut telling, mut latin, mut other) = (false, 0_usize, 0_usize);
    for word in words(prompt) {
        // Letters of Latin, its accents and extensions end here (Unicode, Latin Extended-B).
        let is_latin = word.chars().all(|letter| letter < '\u{250}' || letter == '\u{2019}');
        *(if is_latin { &mut latin } else { &mut other }) += 1;
        telling = telling || (is_latin && TELLING.contains(lower(word).as_str()));
    }
    other < latin && (telling || consists_of_english(prompt))
}

/// Whether at least two words are known as English, all but a few are, and none tells of another language. Numbers and names with
/// digits are of none.
fn consists_of_english(prompt: &str) -> bool {
    let (mut known, mut unknown) = (0_usize, 0_usize);
    for word in words(prompt).filter(|word| !word.contains(|letter: char| letter.is_ascii_digit())) {
        let word = lower(word);
        let word = word.strip_suffix("'s").unwrap_or(&word);
        if FOREIGN.contains(word) || !word.is_ascii() {
            return false;
        }
        if word.len() >= LONG {
            let is_known = LEXICON.knows(word) || LEXICON.knows(&LEXICON.base(word));
            *(if is_known { &mut known } else { &mut unknown }) += 1;
        }
    }
    known >= 2 && unknown * ONE_UNKNOWN_OF <= known + unknown
}

fn words(prompt: &str) -> impl Iterator<Item = &str> {
    prompt.unicode_words().take(LOOKED_AT)
}

fn lower(word: &str) -> String {
    word.replace('\u{2019}', "'").to_lowercase()
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
            "ice floating reason",
            "controlling mind",
            "git: bring develop's commits over to main",
            "normal adult resting pulse",
            "Mexico City tap water drinkability",
            "bash: abort on first error",
            "ai image generator free",
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
            "recette pain maison",
            "restaurant central Paris menu du jour",
            "Hotel Berlin Zentrum",
            "Wetter Hamburg Wochenende",
            "receta pan casero",
            "hotel central Madrid con piscina",
            "population de la France",
            "ricetta pasta al forno",
            "water koken",
            "receita bolo chocolate",
            "hotell Stockholm centrum",
            "cara reset password gmail",
            "Tom hat den Ball",
            "comment dire chat",
            "przepis na chleb",
            "",
        ] {
            assert!(!is_english(prompt), "{prompt}");
        }
    }
}
