//! Whether two replies to one need say the same: a stored reply against upstream's fresh one.
//!
//! Called by [`super::trial`]. Plain texts in, a value with the evidence and a verdict out; a language model's
//! replies are hardly ever equal word for word, so the verdict has a third answer, [`Agreement::Unclear`].

use std::collections::BTreeSet;

use super::guard;
use super::normalise;
use crate::dialect::Reply;
use crate::embed::{Embedder, Similarity};

/// The cosine of the replies' embeddings from which they say the same, where nothing else speaks against it.
const SAME_FROM: f32 = 0.8;

/// The cosine below which they say something else.
const DIFFERENT_BELOW: f32 = 0.5;

/// The least ratio of lengths at which a cosine is evidence: a word beside a page is far from it, however right.
const COMPARABLE_LENGTH: f32 = 0.1;

/// Bytes of each text that are looked at: replies come from outside, and may be long.
const LOOKED_AT: usize = 64 << 10;

/// The least ratio of whole lengths at which longer texts are compared by that part.
const COMPARABLE_REST: f32 = 0.8;

/// The ratio of lengths from which as many negations are expected in both.
const NEAR_LENGTH: f32 = 0.5;

/// Whether two replies say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Agreement {
    /// They do.
    Same,
    /// They do not.
    Different,
    /// The evidence does not carry either way.
    Unclear,
}

impl Agreement {
    /// The token for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Unclear => "unclear",
        }
    }

    /// Every one, for the metrics.
    pub const ALL: [Self; 3] = [Self::Same, Self::Different, Self::Unclear];
}

/// What the numbers in two replies say. Numbers of lists ("1. …") are layout, and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// All numbers of the one are in the other, as where one has none.
    Agree,
    /// They share some, and each has some of its own.
    Mixed,
    /// Both have numbers, and none in common.
    Contradict,
}

/// Two replies compared. The same whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on one another")]
pub struct Comparison {
    /// Whether they are equal once normalised; of replies without text (embeddings, tool calls) to the byte.
    pub equal: bool,
    /// Whether both call tools, or neither does.
    pub same_kind: bool,
    /// The cosine of the texts' embeddings, each up to the embedder's window; `None` where there is none.
    pub similarity: Option<Similarity>,
    /// The shorter length over the longer, in characters, 0 to 1; 1 for two empty texts.
    pub length_ratio: f32,
    /// The numbers in them.
    pub numbers: Numbers,
    /// Whether one begins with "Yes," and the other with "No,", which a cosine hardly sees.
    pub opposite: bool,
    /// Whether they deny the same: "you can freeze it" against "you cannot", which a cosine hardly sees.
    pub same_denials: bool,
    /// Whether what is beyond the part looked at, the first 64 KiB of each text, is of about the same length.
    pub same_rest: bool,
    /// The verdict on this evidence.
    pub agreement: Agreement,
}

impl Comparison {
    /// The same facts with the verdict on them.
    fn judged(self) -> Self {
        Self { agreement: self.verdict(), ..self }
    }

    /// The verdict, in this order:
    ///
    /// 1. equal replies are the same;
    /// 2. one that calls tools and one that does not are different;
    /// 3. numbers that contradict, or "Yes," against "No,", make them different;
    /// 4. without a cosine, or with lengths too far apart for one to mean anything, it is unclear;
    /// 5. a cosine below 0.5 is different; one of 0.8 or more is the same, unless each has numbers of its own, or they
    ///    deny something else;
    /// 6. anything else is unclear.
    fn verdict(&self) -> Agreement {
        if self.equal {
            return Agreement::Same;
        }
        if !self.same_kind || self.opposite || self.numbers == Numbers::Contradict {
            return Agreement::Different;
        }
        let Some(Similarity(cosine)) = self.similarity else { return Agreement::Unclear };
        if self.length_ratio < COMPARABLE_LENGTH || !self.same_rest {
            return Agreement::Unclear;
        }
        if cosine < DIFFERENT_BELOW {
            return Agreement::Different;
        }
        if cosine >= SAME_FROM && self.numbers == Numbers::Agree && self.same_denials {
            return Agreement::Same;
        }
        Agreement::Unclear
    }
}

/// Compares two replies by their texts, or by their documents where there are none. An embedder that fails leaves the cosine out. Of each text the first 64 KiB are looked at.
pub async fn compare(embedder: Option<&Embedder>, one: &Reply, other: &Reply) -> Comparison {
    let (one_text, other_text) = (&*one.text, &*other.text);
    let same_kind = one.tool_calls == other.tool_calls;
    let textless = one.tool_calls || other.tool_calls || (one_text.is_empty() && other_text.is_empty());
    let (part, other_part) = (looked_at(one_text), looked_at(other_text));
    let whole = part.len() == one_text.len() && other_part.len() == other_text.len();
    let same_rest = whole || ratio(one_text.len(), other_text.len()) >= COMPARABLE_REST;
    let (plain, other_plain) = (normalise::normalise(part), normalise::normalise(other_part));
    let equal = if textless {
        one.document == other.document
    } else {
        one_text == other_text || (whole && plain == other_plain)
    };
    let length_ratio = ratio(plain.chars().count(), other_plain.chars().count());
    let same_denials = textless || deny_the_same(&plain, &other_plain, length_ratio);
    let numbers = if textless { Numbers::Agree } else { numbers(&plain, &other_plain) };
    let similarity = match embedder {
        Some(embedder) if !equal && same_kind && !textless => cosine(embedder, &plain, &other_plain).await,
        _ => None,
    };
    let opposite = !textless
        && matches!((opening(&plain), opening(&other_plain)), (Some(one), Some(other)) if one != other);
    let agreement = Agreement::Unclear;
    Comparison {
        equal,
        same_kind,
        similarity,
        length_ratio,
        numbers,
        opposite,
        same_denials,
        same_rest,
        agreement,
    }
    .judged()
}

/// The part of a text that is looked at.
fn looked_at(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LOOKED_AT)).unwrap_or(text)
}

/// Whether two texts deny the same, as far as words tell: none says without a negation what the other says with one,
/// and where they are of about one length they have as many.
fn deny_the_same(one: &str, other: &str, length_ratio: f32) -> bool {
    let (one, other) = (Denials::of(one), Denials::of(other));
    let says = |text: &Denials, denied: &str| text.said.contains(denied) && !text.denied.contains(denied);
    let against = |one: &Denials, other: &Denials| one.denied.iter().any(|denied| says(other, denied));
    let counts_agree = one.count == other.count || length_ratio < NEAR_LENGTH;
    counts_agree && !against(&one, &other) && !against(&other, &one)
}

/// The words of a text, and which of them follow a negation.
#[derive(Default)]
struct Denials {
    said: BTreeSet<String>,
    denied: BTreeSet<String>,
    count: usize,
}

impl Denials {
    fn of(text: &str) -> Self {
        let mut found = Self::default();
        let mut negated = false;
        for word in text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '\u{2019}')) {
            let word = word.trim_matches(['\'', '\u{2019}']).to_lowercase().replace('\u{2019}', "'");
            if word.is_empty() {
                continue;
            }
            if matches!(word.as_str(), "not" | "cannot" | "never" | "no") || word.ends_with("n't") {
                found.count += 1;
                negated = true;
                continue;
            }
            if std::mem::take(&mut negated) {
                found.denied.insert(word.clone());
            }
            found.said.insert(word);
        }
        found
    }
}

/// Whether a reply begins with a plain yes or no.
fn opening(text: &str) -> Option<bool> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    // "No problem" is none.
    if rest.starts_with(|c: char| c.is_whitespace() || c == '-' || c == '\'') {
        return None;
    }
    if word.eq_ignore_ascii_case("yes") {
        Some(true)
    } else {
        word.eq_ignore_ascii_case("no").then_some(false)
    }
}

async fn cosine(embedder: &Embedder, one: &str, other: &str) -> Option<Similarity> {
    let one = embedder.embed(one).await.ok()?;
    one.similarity(&embedder.embed(other).await.ok()?)
}

/// The smaller over the larger; 1 for two of nothing.
fn ratio(one: usize, other: usize) -> f32 {
    let [one, other] = [one, other].map(|length| u32::try_from(length).unwrap_or(u32::MAX));
    let (short, long) = (one.min(other), one.max(other));
    if long == 0 {
        return 1.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a ratio between 0 and 1")]
    let ratio = (f64::from(short) / f64::from(long)) as f32;
    ratio
}

fn numbers(one: &str, other: &str) -> Numbers {
    let (one, other): (BTreeSet<_>, BTreeSet<_>) =
        (guard::numbers(one).into_iter().collect(), guard::numbers(other).into_iter().collect());
    if one.is_subset(&other) || other.is_subset(&one) {
        Numbers::Agree
    } else if one.is_disjoint(&other) {
        Numbers::Contradict
    } else {
        Numbers::Mixed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::encoder::threads::{Threads, ThreadsOptions};

    fn reply(text: &str, tool_calls: bool) -> Reply {
        Reply {
            document: Bytes::from(format!("{{\"text\":{text:?},\"calls\":{tool_calls}}}")),
            text: text.to_owned(),
            tool_calls,
            usage: None,
        }
    }

    fn compared(one: &str, other: &str) -> Comparison {
        let (a, b) = (reply(one, false), reply(other, false));
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(compare(None, &a, &b))
    }

    /// The verdict where the cosine is this.
    fn at(cosine: f32, one: &str, other: &str) -> Agreement {
        Comparison { similarity: Some(Similarity(cosine)), ..compared(one, other) }.judged().agreement
    }

    #[test]
    fn equal_but_for_blanks_is_the_same_whatever_the_cosine() {
        assert_eq!(compared(" Paris.\r\n", "Paris.").agreement, Agreement::Same);
        assert_eq!(at(0.1, "Paris is  it.", "Paris is it."), Agreement::Same);
    }

    #[test]
    fn the_cosine_decides_where_numbers_do_not_speak_against_it() {
        let (one, other) = ("It is Paris.", "The capital is Paris.");
        assert_eq!(at(0.95, one, other), Agreement::Same);
        assert_eq!(at(0.8, one, other), Agreement::Same);
        assert_eq!(at(0.7, one, other), Agreement::Unclear);
        assert_eq!(at(0.3, one, other), Agreement::Different);
        assert_eq!(compared(one, other).agreement, Agreement::Unclear, "no embedder");
        assert_eq!(at(f32::NAN, one, other), Agreement::Unclear);
    }

    #[test]
    fn numbers_that_contradict_are_different_however_alike_the_words() {
        assert_eq!(at(0.99, "It boils at 100 °C.", "It boils at 90 °C."), Agreement::Different);
        assert_eq!(compared("The answer is **4**.", "The answer is 5").agreement, Agreement::Different);
        assert_eq!(at(0.99, "In 1889, 330 m tall", "In 1889, 300 m tall"), Agreement::Unclear);
        // One that says more does not contradict, nor do other marks of the same number.
        assert_eq!(at(0.9, "It has 28 days.", "It has 28 days, in leap years 29."), Agreement::Same);
        assert_eq!(at(0.9, "It is 1,000 metres.", "That is 1000 metres."), Agreement::Same);
        // Numbers of lists are layout; digits inside a word are no number.
        assert_eq!(at(0.9, "1. Mix\n2. Bake", "3) Mix\n4) Bake"), Agreement::Same);
        assert_eq!(at(0.9, "id 7f3a9c01", "id 8b2d44e0"), Agreement::Same);
        // A number alone on its line is no list's.
        assert_eq!(at(0.9, "42.", "17."), Agreement::Different);
        assert_eq!(at(0.9, "It is\n7)", "It is\n8)"), Agreement::Different);
    }

    #[test]
    fn yes_is_not_no_however_alike_the_rest() {
        let yes = "Yes, you can freeze cooked rice.";
        assert_eq!(at(0.9, yes, "No, do not freeze cooked rice."), Agreement::Different);
        assert_eq!(at(0.9, "**No.**", "yes!"), Agreement::Different);
        assert_eq!(at(0.9, yes, "You can freeze cooked rice."), Agreement::Same);
        // No contradiction, but a "no" that the other has not.
        assert_eq!(at(0.9, yes, "No problem, you can freeze cooked rice."), Agreement::Unclear);
    }

    #[test]
    fn what_one_denies_and_the_other_says_is_not_the_same() {
        let can = "You can freeze cooked rice.";
        for denied in [
            "You cannot freeze cooked rice.",
            "You can't freeze cooked rice.",
            "You can\u{2019}t freeze cooked rice.",
            "You can never freeze cooked rice.",
        ] {
            assert_eq!(at(0.95, can, denied), Agreement::Unclear, "{denied}");
            assert_eq!(at(0.95, denied, denied), Agreement::Same, "{denied}");
        }
        assert_eq!(at(0.95, "Do not wash it; freeze it.", "Do not freeze it; wash it."), Agreement::Unclear);
        assert_eq!(at(0.95, "You cannot freeze rice.", "Rice can't be frozen."), Agreement::Same);
    }

    #[test]
    fn of_long_texts_the_first_part_is_looked_at() {
        let page = "Paris has been the capital for centuries. ".repeat(2000);
        let (other, twice) = (page.replacen("Paris", "This city", 1), page.repeat(2));
        assert_eq!(at(0.9, &page, &other), Agreement::Same);
        assert_eq!(at(0.9, &page, &twice), Agreement::Unclear);
        assert_eq!(compared(&twice, &twice).agreement, Agreement::Same);
        assert_eq!(compared(&page, &format!("{page}More.")).agreement, Agreement::Unclear);
    }

    /// Of the built-in embedder, so that the bounds stand where replies are.
    #[tokio::test]
    async fn the_bounds_tell_replies_apart() {
        let threads = Threads::start(&ThreadsOptions::default()).unwrap();
        let embedder = Embedder::builtin(threads).unwrap();
        let sky =
            "The sky is blue because of Rayleigh scattering: shorter wavelengths are scattered more by air.";
        let list = "You can reverse a list in Python using the reversed() function or slicing with [::-1].";
        for (one, other, expected) in [
            (
                sky,
                "Air scatters blue light, which has a shorter wavelength, more than red: Rayleigh scattering.",
                Agreement::Same,
            ),
            (sky, "The sea looks blue because water absorbs red light more than blue.", Agreement::Unclear),
            (
                list,
                "Call list.reverse() to reverse it in place, or use my_list[::-1] for a copy.",
                Agreement::Same,
            ),
            (
                list,
                "Call list.sort() to sort it in place, or use sorted(my_list) for a copy.",
                Agreement::Different,
            ),
            ("The capital of France is Paris.", "The capital of Germany is Berlin.", Agreement::Different),
            ("The capital of France is Paris.", "Paris.", Agreement::Unclear),
        ] {
            let (a, b) = (reply(one, false), reply(other, false));
            let comparison = compare(Some(&embedder), &a, &b).await;
            assert_eq!(comparison.agreement, expected, "{one} | {other}: {comparison:?}");
        }
    }

    #[test]
    fn a_word_beside_a_page_is_unclear_rather_than_different() {
        let page = "Paris has been the capital of France for centuries. ".repeat(20);
        assert_eq!(at(0.3, "Paris", &page), Agreement::Unclear);
        assert_eq!(at(0.9, "Paris", &page), Agreement::Unclear);
        assert!(compared("Paris", &page).length_ratio < 0.1);
    }

    #[tokio::test]
    async fn a_tool_call_is_no_text_and_equal_to_the_byte_alone() {
        let (text, call) = (reply("x", false), reply("x", true));
        let agreement = async |one: &Reply, other: &Reply| compare(None, one, other).await.agreement;
        assert_eq!(agreement(&text, &call).await, Agreement::Different);
        assert_eq!(agreement(&call, &call).await, Agreement::Same);
        let other = Reply { document: Bytes::from_static(b"{}"), ..call.clone() };
        assert_eq!(agreement(&call, &other).await, Agreement::Unclear);
    }

    proptest! {
        #[test]
        fn which_comes_first_makes_no_difference(
            one in "([a-z]{1,5}|[0-9]{1,4}|\n[0-9]\\.| |%|\\$){0,12}",
            other in "([a-z]{1,5}|[0-9]{1,4}|\n[0-9]\\.| |%|\\$){0,12}",
        ) {
            prop_assert_eq!(compared(&one, &other), compared(&other, &one));
        }

        #[test]
        fn a_reply_agrees_with_itself(text in "\\PC{0,80}") {
            prop_assert_eq!(compared(&text, &text).agreement, Agreement::Same);
        }
    }
}
