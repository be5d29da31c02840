//! The word lists of the guard, read once from the files in `data/`.
//!
//! Called by [`super::prepare`] (what a word may be) and [`super::differ`] (what a pair of words means for
//! each other). Knows nothing of prompts.
//!
//! The files are part of the program, so a fault in them is a fault of the build: lines that cannot
//! be read are left out here and reported by the tests below.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use foldhash::fast::FixedState;

use super::Rule;
use super::scan::words_of;

/// What a word or phrase can stand for; one may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// One of a group that may replace each other.
    Synonym(u16),
    /// One of a group that excludes the other groups of its class.
    Group {
        /// Index into [`Lexicon::classes`].
        class: u16,
        /// Number of the group, unique over all classes.
        group: u16,
    },
    /// One end of an axis of opposites.
    Pole {
        /// Index into [`Lexicon::axes`].
        axis: u16,
        /// Which of the two ends.
        first: bool,
    },
    /// What a comparison measures.
    Measure(u16),
    /// One of the two parties of an exchange.
    Role {
        /// The exchange.
        pair: u16,
        /// Which of the two parties.
        first: bool,
    },
}

/// A class of groups that exclude each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// The rule that speaks when groups of this class differ.
    pub(super) rule: Rule,
    /// Whether a group on one side alone already tells two prompts apart.
    pub(super) exact: bool,
    /// The group that goes without saying, so that it tells nothing on one side alone: English.
    pub(super) implied: Option<u16>,
}

/// A phrase of the lists, by its first word.
struct Phrase {
    rest: Vec<String>,
    tags: Vec<Tag>,
    /// Also an everyday word: counts only where the writing shows that the special sense is meant.
    everyday: bool,
}

/// What `WordNet` knows of a word.
#[derive(Debug, Default)]
pub(super) struct Word {
    meanings: Vec<u16>,
    kinds: Vec<u16>,
    opposites: Vec<&'static str>,
    /// Parts of speech among `n`, `v`, `a`, `r`.
    pub(super) parts: &'static str,
}

/// What is looked up for each word of a prompt. A fixed hash will do: what is in a list is ours, and never more.
pub(super) type Lists<K, V> = HashMap<K, V, FixedState>;

/// All lists.
pub(super) struct Lexicon {
    phrases: Lists<String, Vec<Phrase>>,
    fillers: Lists<String, Vec<Vec<String>>>,
    stop: HashSet<&'static str, FixedState>,
    light: HashSet<&'static str, FixedState>,
    words: Lists<&'static str, Word>,
    irregular: Lists<&'static str, &'static str>,
    /// The classes of excluding groups.
    pub(super) classes: Vec<Class>,
    /// The rule of each axis of opposites.
    pub(super) axes: Vec<Rule>,
}

/// The lists, read at first use (some milliseconds).
pub(super) static LEXICON: LazyLock<Lexicon> = LazyLock::new(Lexicon::read);

/// What [`Lexicon::longest`] found at a place.
pub(super) struct Found<'a> {
    /// Number of words covered, at least 1.
    pub(super) length: usize,
    /// What they stand for.
    pub(super) tags: &'a [Tag],
    /// See [`Phrase::everyday`].
    pub(super) everyday: bool,
}

impl Lexicon {
    fn read() -> Self {
        let mut lexicon = Self {
            phrases: Lists::default(),
            fillers: Lists::default(),
            stop: HashSet::default(),
            light: HashSet::default(),
            words: Lists::default(),
            irregular: Lists::default(),
            classes: Vec::new(),
            axes: Vec::new(),
        };
        lexicon.read_synonyms(include_str!("data/synonyms.txt"));
        lexicon.read_exclusive(include_str!("data/exclusive.txt"));
        lexicon.read_axes(include_str!("data/axes.txt"));
        lexicon.read_measures(include_str!("data/dimensions.txt"));
        lexicon.read_roles(include_str!("data/roles.txt"));
        lexicon.read_plain();
        lexicon.read_wordnet(include_str!("data/wordnet.txt"));
        // To WordNet it is more than one doe.
        lexicon.irregular.insert("does", "do");
        for phrases in lexicon.phrases.values_mut() {
            phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.rest.len()));
        }
        for fillers in lexicon.fillers.values_mut() {
            fillers.sort_by_key(|rest| std::cmp::Reverse(rest.len()));
        }
        lexicon
    }

    fn tag(&mut self, text: &str, tag: Tag) {
        let (text, everyday) = match text.trim().strip_prefix('~') {
            Some(bare) => (bare, true),
            None => (text.trim(), false),
        };
        let mut words = words_of(text).into_iter();
        let Some(first) = words.next() else { return };
        let rest: Vec<String> = words.collect();
        let phrases = self.phrases.entry(first).or_default();
        if let Some(known) = phrases.iter_mut().find(|phrase| phrase.rest == rest) {
            if !known.tags.contains(&tag) {
                known.tags.push(tag);
            }
        } else {
            phrases.push(Phrase { rest, tags: vec![tag], everyday });
        }
    }

    fn tag_all(&mut self, list: &str, tag: Tag) {
        for text in list.split(", ").filter(|text| !text.trim().is_empty()) {
            self.tag(text, tag);
        }
    }

    fn read_synonyms(&mut self, file: &'static str) {
        for (number, line) in (0..).zip(lines(file)) {
            if let Some((base, variants)) = line.split_once(':') {
                self.tag(base, Tag::Synonym(number));
                self.tag_all(variants, Tag::Synonym(number));
            }
        }
    }

    fn read_exclusive(&mut self, file: &'static str) {
        let (mut class, mut implied) = (0, None);
        for (group, line) in (0..).zip(lines(file)) {
            if let Some(head) = heading(line) {
                let mut fields = head.split_whitespace().skip(1);
                let rule = fields.next().and_then(Rule::from_name).unwrap_or(Rule::Entity);
                let exact = fields.next() == Some("exact");
                implied = fields.next();
                class = u16::try_from(self.classes.len()).unwrap_or(u16::MAX);
                self.classes.push(Class { rule, exact, implied: None });
            } else if let Some((base, variants)) = line.split_once(':') {
                let tag = Tag::Group { class, group };
                if implied == Some(base)
                    && let Some(class) = self.classes.get_mut(usize::from(class))
                {
                    class.implied = Some(group);
                }
                self.tag(base, tag);
                self.tag_all(variants, tag);
            }
        }
    }

    fn read_axes(&mut self, file: &'static str) {
        let mut rule = Rule::Antonym;
        for line in lines(file) {
            if let Some(head) = heading(line) {
                rule = Rule::from_name(head).unwrap_or(Rule::Antonym);
            } else if let Some((one, other)) = line.split_once('|') {
                let axis = u16::try_from(self.axes.len()).unwrap_or(u16::MAX);
                self.axes.push(rule);
                self.tag_all(one, Tag::Pole { axis, first: true });
                self.tag_all(other, Tag::Pole { axis, first: false });
            }
        }
    }

    fn read_measures(&mut self, file: &'static str) {
        for (number, line) in (0..).zip(lines(file)) {
            if let Some((_, variants)) = line.split_once(':') {
                self.tag_all(variants, Tag::Measure(number));
            }
        }
    }

    fn read_roles(&mut self, file: &'static str) {
        for (pair, line) in (0..).zip(lines(file)) {
            if let Some((one, other)) = line.split_once('|') {
                self.tag_all(one, Tag::Role { pair, first: true });
                self.tag_all(other, Tag::Role { pair, first: false });
            }
        }
    }

    fn read_plain(&mut self) {
        for line in lines(include_str!("data/fillers.txt")) {
            let mut words = words_of(line).into_iter();
            if let Some(first) = words.next() {
                self.fillers.entry(first).or_default().push(words.collect());
            }
        }
        self.stop.extend(lines(include_str!("data/stop.txt")));
        self.light.extend(lines(include_str!("data/light.txt")));
    }

    fn read_wordnet(&mut self, file: &'static str) {
        for line in lines(file) {
            let mut fields = line.split('\t');
            let Some(word) = fields.next() else { continue };
            if let Some(form) = word.strip_prefix('=') {
                if let Some(base) = fields.next() {
                    self.irregular.insert(form, base);
                }
                continue;
            }
            let entry = Word {
                meanings: numbers(fields.next()),
                kinds: numbers(fields.next()),
                opposites: fields.next().unwrap_or_default().split_whitespace().collect(),
                parts: fields.next().unwrap_or_default(),
            };
            self.words.insert(word, entry);
        }
    }

    /// The longest phrase of the lists at the start of `words`, each given as (written, base) form.
    pub(super) fn longest<'a>(&'a self, words: &[(&str, &str)]) -> Option<Found<'a>> {
        let (first, _) = words.first()?;
        let written = self.phrase_at(first, words);
        let base = words.first().and_then(|(_, base)| self.phrase_at(base, words));
        match (written, base) {
            (Some(one), Some(other)) if other.length > one.length => Some(other),
            (Some(one), _) => Some(one),
            (None, other) => other,
        }
    }

    fn phrase_at<'a>(&'a self, first: &str, words: &[(&str, &str)]) -> Option<Found<'a>> {
        let phrase = self.phrases.get(first)?.iter().find(|phrase| {
            phrase.rest.len() < words.len()
                && phrase
                    .rest
                    .iter()
                    .zip(words.iter().skip(1))
                    .all(|(want, (written, base))| want == written || want == base)
        })?;
        Some(Found { length: phrase.rest.len() + 1, tags: &phrase.tags, everyday: phrase.everyday })
    }

    /// Number of words at the start of `words` that are mere manners; 0 when none.
    pub(super) fn filler(&self, words: &[&str]) -> usize {
        let Some(fillers) = words.first().and_then(|first| self.fillers.get(*first)) else { return 0 };
        fillers
            .iter()
            .find(|rest| {
                rest.len() < words.len()
                    && rest.iter().zip(words.iter().skip(1)).all(|(want, word)| want == word)
            })
            .map_or(0, |rest| rest.len() + 1)
    }

    /// Whether a word only frames a sentence.
    pub(super) fn is_stop(&self, word: &str) -> bool {
        self.stop.contains(word)
    }

    /// Whether a word is so general that its absence means nothing.
    pub(super) fn is_light(&self, word: &str) -> bool {
        self.light.contains(word)
    }

    /// What `WordNet` knows of a base form.
    pub(super) fn word(&self, base: &str) -> Option<&Word> {
        self.words.get(base)
    }

    /// Whether any list has the word.
    pub(super) fn knows(&self, word: &str) -> bool {
        self.words.contains_key(word)
            || self.stop.contains(word)
            || self.irregular.contains_key(word)
            || self.phrases.contains_key(word)
    }

    /// The base form of a lower-case word: `cities` to `city`, `went` to `go`, `running` to `run`. Unknown
    /// words keep their form, but for a plural `s`.
    pub(super) fn base(&self, word: &str) -> String {
        if let Some(base) = self.irregular.get(word) {
            return (*base).to_owned();
        }
        let known = |candidate: &str| self.words.contains_key(candidate);
        for (suffix, ends) in SUFFIXES {
            let Some(stem) = word.strip_suffix(suffix).filter(|stem| stem.len() >= 2) else { continue };
            if *suffix == "s" && (stem.ends_with('s') || stem.ends_with('u') || stem.ends_with('i')) {
                continue;
            }
            if matches!(*suffix, "ing" | "ed") {
                let mut letters = stem.chars().rev();
                if let (Some(last), Some(before)) = (letters.next(), letters.next())
                    && last == before
                    && !matches!(last, 'l' | 's')
                {
                    let single = stem.strip_suffix(last).unwrap_or(stem);
                    if known(single) {
                        return single.to_owned();
                    }
                }
            }
            for end in *ends {
                let candidate = format!("{stem}{end}");
                if known(&candidate) {
                    return candidate;
                }
            }
        }
        match word.strip_suffix('s') {
            Some(stem) if !known(word) && stem.len() > 3 && !stem.ends_with(['s', 'u', 'i']) => {
                stem.to_owned()
            }
            _ => word.to_owned(),
        }
    }
}

/// Suffixes of inflection and what may stand in their place in the base form, most telling first.
const SUFFIXES: &[(&str, &[&str])] = &[
    ("ies", &["y", "ie"]),
    ("ied", &["y"]),
    ("es", &["e", ""]),
    ("s", &[""]),
    ("ing", &["", "e"]),
    ("ed", &["", "e"]),
];

impl Word {
    /// Whether the words share a meaning, or one is the wider verb of the other.
    pub(super) fn is_near(&self, other: &Self) -> bool {
        share(&self.meanings, &other.meanings)
    }

    /// Whether both are different things of one kind.
    pub(super) fn is_sibling(&self, other: &Self) -> bool {
        share(&self.kinds, &other.kinds)
    }

    /// Whether `WordNet` names `base` as the opposite.
    pub(super) fn opposes(&self, base: &str) -> bool {
        self.opposites.contains(&base)
    }
}

/// Whether two ascending lists have a number in common.
fn share(one: &[u16], other: &[u16]) -> bool {
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => drop(left.next()),
            std::cmp::Ordering::Greater => drop(right.next()),
        }
    }
    false
}

pub(super) fn lines(file: &'static str) -> impl Iterator<Item = &'static str> {
    file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn heading(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']')
}

fn numbers(field: Option<&str>) -> Vec<u16> {
    let mut all: Vec<u16> = field
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|text| u16::from_str_radix(text, 16).ok())
        .collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_lists_can_be_read() {
        for line in lines(include_str!("data/exclusive.txt")) {
            if let Some(head) = heading(line) {
                let fields: Vec<&str> = head.split_whitespace().collect();
                assert!(matches!(fields.len(), 3 | 4), "{line}");
                assert!(Rule::from_name(fields[1]).is_some(), "{line}");
                assert!(matches!(fields[2], "exact" | "clash"), "{line}");
            } else {
                assert!(line.contains(':'), "{line}");
            }
        }
        for line in lines(include_str!("data/axes.txt")) {
            let known = heading(line).map_or(line.contains(" | "), |head| Rule::from_name(head).is_some());
            assert!(known, "{line}");
        }
        for line in lines(include_str!("data/roles.txt")) {
            assert!(line.contains(" | "), "{line}");
        }
        for file in [include_str!("data/synonyms.txt"), include_str!("data/dimensions.txt")] {
            for line in lines(file) {
                assert!(line.contains(':'), "{line}");
            }
        }
        for line in lines(include_str!("data/wordnet.txt")) {
            let fields = line.split('\t').count();
            assert_eq!(fields, if line.starts_with('=') { 2 } else { 5 }, "{line}");
        }
    }

    #[test]
    fn base_forms() {
        for (word, base) in [
            ("cities", "city"),
            ("went", "go"),
            ("running", "run"),
            ("making", "make"),
            ("stopped", "stop"),
            ("glass", "glass"),
        ] {
            assert_eq!(LEXICON.base(word), base);
        }
    }
}
