//! Pairs the units of two prompts and judges what is left over.
//!
//! Called by [`super::compare`]. Every judgement is symmetric by construction: it is asked of both sides, or
//! of unordered pairs.

use std::collections::HashMap;

use super::lexicon::{LEXICON, Tag};
use super::prepare::{Asks, NumberKind, Place, Prepared, Unit, UnitKind, flat};
use super::scan::{Span, Verbatim};
use super::{Rule, Verdict};

/// More words left over than this on one side are not judged one by one: in doubt a miss. Keeps the
/// cost bounded for long prompts.
const MOST_LEFT: usize = 48;

impl Prepared {
    /// Compares with another prompt; see [`super::compare`].
    pub fn compare(&self, other: &Self) -> Verdict {
        if self.exact == other.exact {
            return Verdict::Alike;
        }
        match spans(self, other).or_else(|| Pairing::new(self, other).judge()) {
            Some(rule) => Verdict::Differs(rule),
            None => Verdict::Alike,
        }
    }
}

/// A verbatim span of one prompt must stand in the other, marked or not, and marked ones in the same order.
fn spans(one: &Prepared, other: &Prepared) -> Option<Rule> {
    first(missing_span(one, other), missing_span(other, one)).or_else(|| {
        let in_order = |from: &Prepared, to: &Prepared| -> Vec<Span> {
            from.spans.iter().filter(|span| to.spans.contains(span)).cloned().collect()
        };
        let (left, right) = (in_order(one, other), in_order(other, one));
        left.iter()
            .zip(&right)
            .find(|(a, b)| a != b)
            .and_then(|(a, b)| first(Some(span_rule(a)), Some(span_rule(b))))
    })
}

/// The first rule in order of declaration, so that the answer does not depend on which prompt is which.
fn first(one: Option<Rule>, other: Option<Rule>) -> Option<Rule> {
    one.into_iter().chain(other).min()
}

fn missing_span(one: &Prepared, other: &Prepared) -> Option<Rule> {
    one.spans
        .iter()
        .filter(|span| {
            if other.spans.contains(span) {
                return false;
            }
            match span.kind {
                // Code counts character by character, also where the other prompt has it without marks.
                Verbatim::Code => {
                    let text = span.text.split_whitespace().collect::<Vec<_>>().join(" ");
                    !other.exact.contains(&text) || other.spans.iter().any(|span| span.kind == Verbatim::Code)
                }
                Verbatim::Quoted => {
                    let text = flat(&span.text);
                    !other.flat.contains(&text) || text.trim().is_empty()
                }
            }
        })
        .map(span_rule)
        .min()
}

fn span_rule(span: &Span) -> Rule {
    match span.kind {
        Verbatim::Code => Rule::Code,
        Verbatim::Quoted => Rule::Quoted,
    }
}

/// The units of both prompts and which of them belong together.
struct Pairing<'a> {
    one: &'a Prepared,
    other: &'a Prepared,
    /// For each unit of the first prompt its partner's number in the second.
    right_of: Vec<Option<usize>>,
    /// And the other way.
    left_of: Vec<Option<usize>>,
    /// Units without a partner of their own that repeat what is said elsewhere in the other prompt.
    left_said: Vec<bool>,
    right_said: Vec<bool>,
}

impl<'a> Pairing<'a> {
    fn new(one: &'a Prepared, other: &'a Prepared) -> Self {
        let mut pairing = Self {
            one,
            other,
            right_of: vec![None; one.units.len()],
            left_of: vec![None; other.units.len()],
            left_said: vec![false; one.units.len()],
            right_said: vec![false; other.units.len()],
        };
        pairing.equal();
        pairing.related();
        pairing
    }

    /// Pairs equal units, the first with the first, the second with the second.
    fn equal(&mut self) {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, unit) in self.other.units.iter().enumerate().rev() {
            places.entry(unit.key.as_str()).or_default().push(number);
        }
        for (left, unit) in self.one.units.iter().enumerate() {
            let Some(numbers) = places.get_mut(unit.key.as_str()) else { continue };
            let fits = |right: &usize| self.other.units.get(*right).is_some_and(|other| same(unit, other));
            if let Some(at) = numbers.iter().rposition(fits) {
                let right = numbers.remove(at);
                set(&mut self.right_of, left, right);
                set(&mut self.left_of, right, left);
            }
        }
    }

    /// Pairs what may stand for one another, then looks for repetitions.
    fn related(&mut self) {
        let (left, right) = (open(&self.right_of), open(&self.left_of));
        if left.len() > MOST_LEFT || right.len() > MOST_LEFT {
            return;
        }
        let mut found: Vec<(u8, usize, usize)> = Vec::new();
        for l in &left {
            for r in &right {
                let (Some(a), Some(b)) = (self.one.units.get(*l), self.other.units.get(*r)) else { continue };
                if let Some(rank) = relation(a, b) {
                    found.push((rank, *l, *r));
                }
            }
        }
        // Ranked by closeness; ties by how far apart they stand, which does not depend on the side.
        found.sort_by_key(|(rank, l, r)| (*rank, l.abs_diff(*r), l + r, *l.min(r)));
        for (_, l, r) in found {
            if get(&self.right_of, l).is_none() && get(&self.left_of, r).is_none() {
                set(&mut self.right_of, l, r);
                set(&mut self.left_of, r, l);
            }
        }
        self.initials();
        for (units, others, partner, said) in [
            (&self.one.units, &self.other.units, &self.right_of, &mut self.left_said),
            (&self.other.units, &self.one.units, &self.left_of, &mut self.right_said),
        ] {
            for (at, unit) in units.iter().enumerate() {
                if get(partner, at).is_none()
                    && others.iter().any(|other| same(unit, other) || relation(unit, other).is_some())
                    && let Some(flag) = said.get_mut(at)
                {
                    *flag = true;
                }
            }
        }
    }

    /// Pairs an abbreviation with the words whose initials it is made of: `VS` and Visual Studio.
    fn initials(&mut self) {
        for (short, long, from_left) in [(self.one, self.other, true), (self.other, self.one, false)] {
            for (at, unit) in short.units.iter().enumerate() {
                let letters: Vec<char> = unit.key.chars().collect();
                let (mine, theirs) =
                    if from_left { (&self.right_of, &self.left_of) } else { (&self.left_of, &self.right_of) };
                if get(mine, at).is_some()
                    || !(2..=5).contains(&letters.len())
                    || unit.kind != UnitKind::Word
                    || !unit.name
                {
                    continue;
                }
                let Some(start) = (0..long.units.len()).find(|start| {
                    letters.iter().enumerate().all(|(offset, letter)| {
                        long.units
                            .get(start + offset)
                            .is_some_and(|word| word.key.starts_with(*letter) && word.key.len() > 1)
                            && get(theirs, start + offset).is_none()
                    })
                }) else {
                    continue;
                };
                let (mine, theirs) = if from_left {
                    (&mut self.right_of, &mut self.left_of)
                } else {
                    (&mut self.left_of, &mut self.right_of)
                };
                set(mine, at, start);
                for offset in 0..letters.len() {
                    set(theirs, start + offset, at);
                }
            }
        }
    }

    fn left_over(&self) -> Vec<&'a Unit> {
        over(&self.one.units, &self.right_of, &self.left_said)
    }

    fn right_over(&self) -> Vec<&'a Unit> {
        over(&self.other.units, &self.left_of, &self.right_said)
    }

    /// The pairs with numbers on both sides.
    fn pairs(&self) -> impl Iterator<Item = (&'a Unit, &'a Unit)> + '_ {
        self.right_of.iter().enumerate().filter_map(|(left, right)| {
            let right = (*right)?;
            (get(&self.left_of, right) == Some(left)).then_some(())?;
            Some((self.one.units.get(left)?, self.other.units.get(right)?))
        })
    }

    fn judge(&self) -> Option<Rule> {
        let (left, right) = (self.left_over(), self.right_over());
        if left.len() > MOST_LEFT || right.len() > MOST_LEFT {
            return Some(Rule::Doubt);
        }
        None.or_else(|| numbers(&left, &right))
            .or_else(|| self.counted())
            .or_else(|| first(verbatim(&left), verbatim(&right)))
            .or_else(|| negation(self))
            .or_else(|| self.asker())
            .or_else(|| each_pair(&left, &right, opposite))
            .or_else(|| each_pair(&left, &right, clash))
            .or_else(|| first(exact(&left), exact(&right)))
            .or_else(|| self.direction())
            .or_else(|| self.swapped())
            .or_else(|| self.reordered())
            .or_else(|| self.tense())
            .or_else(|| self.asks())
            .or_else(|| each_pair(&left, &right, names))
            .or_else(|| first(full_name(&left), full_name(&right)))
            .or_else(|| lone_name(&left, &right).or_else(|| lone_name(&right, &left)))
            .or_else(|| each_pair(&left, &right, siblings))
            .or_else(|| self.substitution(&left, &right))
            .or_else(|| self.doubt(&left, &right))
    }

    /// Equal numbers that count different things: 3 cups of flour and 2 of sugar.
    fn counted(&self) -> Option<Rule> {
        let next = |units: &'a [Unit], unit: &Unit| {
            units
                .iter()
                .find(|next| next.at == unit.at + 1 && next.kind == UnitKind::Word)
                .filter(|next| !next.light)
        };
        let plain =
            |unit: &Unit| matches!(unit.kind, UnitKind::Number(NumberKind::Plain | NumberKind::Duration));
        let numbers: Vec<_> = self.pairs().filter(|(a, b)| plain(a) && plain(b)).collect();
        let swapped = numbers.windows(2).any(|two| matches!(two, [(_, b), (_, d)] if b.at > d.at));
        if !swapped {
            return None;
        }
        numbers
            .iter()
            .filter_map(|(a, b)| Some((next(&self.one.units, a)?, next(&self.other.units, b)?)))
            .any(|(a, b)| !same(a, b) && relation(a, b).is_none())
            .then_some(Rule::Number)
    }

    fn asker(&self) -> Option<Rule> {
        let ((pair, one), (other_pair, other)) = (self.one.asker?, self.other.asker?);
        (pair == other_pair && one != other).then_some(Rule::Role)
    }

    /// The source of one is the target of the other.
    fn direction(&self) -> Option<Rule> {
        let opposite = |a: &Unit, b: &Unit| a.place == Place::Source && b.place == Place::Target;
        if self.pairs().any(|(a, b)| opposite(a, b) || opposite(b, a)) {
            return Some(Rule::Direction);
        }
        // From x to y against y to x, where only one of the ends is marked.
        let gains = |one: Place, other: Place| one == Place::Target && other != Place::Target;
        let named =
            |unit: &Unit| unit.word.is_none_or(|word| word.parts.contains('n') || word.parts.is_empty());
        let there = self.pairs().any(|(a, b)| gains(a.place, b.place) && b.place != Place::Aside && named(a));
        let back = self.pairs().any(|(a, b)| gains(b.place, a.place) && a.place != Place::Aside && named(b));
        (there && back).then_some(Rule::Direction)
    }

    /// Who does what to whom: two things change their places round the same word.
    fn swapped(&self) -> Option<Rule> {
        let thing = |unit: &Unit| {
            !unit.light
                && unit.kind == UnitKind::Word
                && (unit.name || unit.word.is_none_or(|word| word.parts.starts_with('n')))
                && unit.place != Place::Aside
        };
        let passive = |prompt: &Prepared| prompt.frame.iter().any(|word| word == "by");
        if passive(self.one) != passive(self.other) {
            return None;
        }
        let pairs: Vec<_> = self.pairs().take(MOST_LEFT).collect();
        for (i, (a, b)) in pairs.iter().enumerate().filter(|(_, (a, b))| thing(a) && thing(b)) {
            for (c, d) in pairs.iter().skip(i + 1).filter(|(c, d)| thing(c) && thing(d)) {
                let turned = a.at < c.at && d.at < b.at;
                let pivot = |(x, y): &(&Unit, &Unit)| {
                    a.at < x.at
                        && x.at < c.at
                        && d.at < y.at
                        && y.at < b.at
                        && x.word.is_some_and(|word| word.parts.contains(['v', 'a']))
                };
                if turned && pairs.iter().any(pivot) {
                    return Some(Rule::Role);
                }
            }
        }
        None
    }

    fn tense(&self) -> Option<Rule> {
        let (one, other) = (self.one.tense, self.other.tense);
        let against = |a: bool, b: bool, c: bool, d: bool| a && !b && c && !d;
        (against(one.past, one.future, other.future, other.past)
            || against(other.past, other.future, one.future, one.past)
            || against(one.past, one.present, other.present, other.past)
            || against(other.past, other.present, one.present, one.past))
        .then_some(Rule::Tense)
    }

    fn asks(&self) -> Option<Rule> {
        use Asks::{Count, Duration, Manner, Nothing, Person, Place, Reason, Time, Truth};
        let apart = match (self.one.asks, self.other.asks) {
            (one, other) if one == other => false,
            (Nothing, _) | (_, Nothing) => false,
            // How to do it and where to do it are often one question, and so is whether it can be done.
            (Manner, Place | Truth | Count | Duration) | (Place | Truth | Count | Duration, Manner) => false,
            (Truth, other) | (other, Truth) => other == Reason,
            (Person | Time | Place | Reason | Count | Duration | Manner, _) => true,
        };
        apart.then_some(Rule::Aspect)
    }

    /// Equal sentences in which words have changed places, other than round `and` and `or`.
    fn reordered(&self) -> Option<Rule> {
        let (one, other) = (&self.one.frame, &self.other.frame);
        if one.len() != other.len() {
            return None;
        }
        let sites: Vec<usize> = one
            .iter()
            .zip(other)
            .enumerate()
            .filter(|(_, (a, b))| a != b && !(LEXICON.is_stop(a) && LEXICON.is_stop(b)))
            .map(|(at, _)| at)
            .collect();
        let particle = |(a, b): (&String, &String)| {
            let both = [a.as_str(), b.as_str()];
            PARTICLES.iter().any(|(one, other)| both == [*one, *other] || both == [*other, *one])
        };
        if sites.is_empty() && one.iter().zip(other).any(particle) {
            return Some(Rule::Direction);
        }
        let (first, last) = (*sites.first()?, *sites.last()?);
        let words = |frame: &'a [String]| {
            let mut words: Vec<&str> =
                sites.iter().filter_map(|at| frame.get(*at)).map(String::as_str).collect();
            words.sort_unstable();
            words
        };
        let joins = |word: &String| matches!(word.as_str(), "and" | "or" | "vs" | "versus" | "plus");
        let commutes =
            (first..=last).filter(|at| !sites.contains(at)).filter_map(|at| one.get(at)).all(joins);
        (sites.len() * 2 <= one.len() && !commutes && words(one) == words(other)).then_some(Rule::Role)
    }

    /// One word in place of another, or one more word, in an otherwise equal sentence.
    fn substitution(&self, left: &[&Unit], right: &[&Unit]) -> Option<Rule> {
        let (one, other) = (&self.one.frame, &self.other.frame);
        let head = one.iter().zip(other).take_while(|(a, b)| a == b).count();
        let most = one.len().min(other.len()) - head;
        let tail = one.iter().rev().zip(other.iter().rev()).take(most).take_while(|(a, b)| a == b).count();
        let inside = |unit: &&&Unit, length: usize| !unit.light && unit.at >= head && unit.at < length - tail;
        let (l, r) = (
            left.iter().filter(|unit| inside(unit, one.len())).count(),
            right.iter().filter(|unit| inside(unit, other.len())).count(),
        );
        let longer = one.len().max(other.len());
        if l > 0 && r > 0 && (head + tail) * 2 >= longer {
            return Some(Rule::Substitution);
        }
        // Only a word more: one that narrows what it stands before.
        let narrows = |unit: &&&Unit| unit.word.is_none_or(|word| word.parts != "r");
        let more = left.iter().filter(|unit| inside(unit, one.len())).filter(narrows).count()
            + right.iter().filter(|unit| inside(unit, other.len())).filter(narrows).count();
        (more > 0 && (head + tail) * 3 >= longer * 2).then_some(Rule::Scope)
    }

    /// Too little in common.
    fn doubt(&self, left: &[&Unit], right: &[&Unit]) -> Option<Rule> {
        let heavy = |units: &[&Unit]| units.iter().filter(|unit| !unit.light).count();
        let common = self.pairs().filter(|(a, b)| !(a.light && b.light)).count();
        let (l, r) = (heavy(left), heavy(right));
        (l.min(r) >= common && l.min(r) > 0 || (common == 0 && l + r > 0)).then_some(Rule::Doubt)
    }
}

fn set(list: &mut [Option<usize>], at: usize, value: usize) {
    if let Some(slot) = list.get_mut(at) {
        *slot = Some(value);
    }
}

fn get(list: &[Option<usize>], at: usize) -> Option<usize> {
    list.get(at).copied().flatten()
}

fn open(partners: &[Option<usize>]) -> Vec<usize> {
    partners.iter().enumerate().filter(|(_, partner)| partner.is_none()).map(|(at, _)| at).collect()
}

fn over<'a>(units: &'a [Unit], partners: &[Option<usize>], said: &[bool]) -> Vec<&'a Unit> {
    units
        .iter()
        .enumerate()
        .filter(|(at, _)| get(partners, *at).is_none() && !said.get(*at).copied().unwrap_or_default())
        .map(|(_, unit)| unit)
        .collect()
}

fn each_pair(left: &[&Unit], right: &[&Unit], judge: fn(&Unit, &Unit) -> Option<Rule>) -> Option<Rule> {
    // The smallest rule in order of declaration, so that the answer does not depend on the side.
    left.iter().flat_map(|a| right.iter().filter_map(|b| judge(a, b))).min()
}

/// Whether two units are the same word, number or piece of code.
fn same(one: &Unit, other: &Unit) -> bool {
    let alike = match (one.kind, other.kind) {
        (UnitKind::Number(_), UnitKind::Number(_)) | (UnitKind::Word, UnitKind::Word) => true,
        (a, b) => a == b,
    };
    alike && one.key == other.key && one.turned == other.turned
}

/// How closely two different units can stand for each other, smaller is closer. None: they cannot.
fn relation(one: &Unit, other: &Unit) -> Option<u8> {
    if one.kind != UnitKind::Word || other.kind != UnitKind::Word {
        return None;
    }
    if opposite(one, other).is_some()
        || clash(one, other).is_some()
        || one.turned != other.turned && one.key == other.key
    {
        return None;
    }
    if shares_tag(one, other) {
        return Some(0);
    }
    if one.verbatim.is_some() && other.verbatim.is_some() {
        return None;
    }
    if let (Some(a), Some(b)) = (one.word, other.word)
        && a.is_near(b)
        && !(one.name && other.name)
    {
        return Some(1);
    }
    if is_misspelt(one, other) {
        return Some(2);
    }
    is_shortened(one, other).then_some(3)
}

fn shares_tag(one: &Unit, other: &Unit) -> bool {
    one.tags.iter().any(|a| {
        other.tags.iter().any(|b| match (a, b) {
            (Tag::Pole { axis, first }, Tag::Pole { axis: other_axis, first: other_first }) => {
                axis == other_axis && (*first != one.turned) == (*other_first != other.turned)
            }
            (Tag::Measure(_), _) => false,
            _ => a == b && one.turned == other.turned,
        })
    })
}

/// Whether one is the other with a typing error: an edit or two, and at most one of them a known word.
fn is_misspelt(one: &Unit, other: &Unit) -> bool {
    let known = |unit: &Unit| unit.known;
    if known(one) && known(other) || one.key.contains(' ') || other.key.contains(' ') {
        return false;
    }
    // Two unknown words, or an unknown one with a capital, may be two names.
    if !known(one) && (!known(other) || one.name) || !known(other) && other.name {
        return false;
    }
    let shorter = one.written.chars().count().min(other.written.chars().count());
    let allowed = match shorter {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    };
    allowed > 0 && (edits(&one.written, &other.written, allowed) || edits(&one.key, &other.key, allowed))
}

/// Whether at most `allowed` insertions, deletions, replacements or swaps of neighbours lie between two words.
fn edits(one: &str, other: &str, allowed: usize) -> bool {
    const LONGEST: usize = 40;
    let (a, b): (Vec<char>, Vec<char>) =
        (one.chars().take(LONGEST).collect(), other.chars().take(LONGEST).collect());
    if a.len().abs_diff(b.len()) > allowed {
        return false;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |list: &[usize], index: usize| list.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best =
                (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().is_some_and(|distance| *distance <= allowed)
}

/// Whether one is the beginning of the other and no word itself: `info`, `app`, `postgres`.
fn is_shortened(one: &Unit, other: &Unit) -> bool {
    let (short, long) = if one.key.len() < other.key.len() { (one, other) } else { (other, one) };
    short.key.len() >= 3
        && !short.key.contains(' ')
        && !long.key.contains(' ')
        && long.key.starts_with(&short.key)
        && short.word.is_none()
        && !short.name
}

/// Opposite ends of one axis, or a word and its negating prefix.
fn opposite(one: &Unit, other: &Unit) -> Option<Rule> {
    if one.key == other.key && one.turned != other.turned {
        return Some(Rule::Negation);
    }
    for a in one.tags {
        for b in other.tags {
            match (a, b) {
                (Tag::Pole { axis, first }, Tag::Pole { axis: other_axis, first: other_first })
                    if axis == other_axis && (*first != one.turned) != (*other_first != other.turned) =>
                {
                    return LEXICON.axes.get(usize::from(*axis)).copied();
                }
                (Tag::Role { pair, first }, Tag::Role { pair: other_pair, first: other_first })
                    if pair == other_pair && first != other_first =>
                {
                    return Some(Rule::Role);
                }
                _ => {}
            }
        }
    }
    if one.turned != other.turned {
        return None;
    }
    let listed = one.word.is_some_and(|word| word.opposes(&other.key))
        || other.word.is_some_and(|word| word.opposes(&one.key));
    (listed || is_prefixed(&one.key, &other.key) || is_prefixed(&other.key, &one.key))
        .then_some(Rule::Antonym)
}

/// Small words that turn a sentence round when one stands in place of the other.
const PARTICLES: &[(&str, &str)] = &[
    ("in", "out"),
    ("into", "out"),
    ("on", "off"),
    ("onto", "off"),
    ("up", "down"),
    ("over", "under"),
    ("above", "below"),
    ("to", "from"),
    ("into", "from"),
    ("for", "against"),
    ("inside", "outside"),
    ("and", "or"),
    ("if", "unless"),
    ("before", "after"),
];

/// Pairs of prefixes that turn a word round.
const PREFIXES: &[(&str, &str)] = &[
    ("hyper", "hypo"),
    ("over", "under"),
    ("in", "ex"),
    ("im", "ex"),
    ("inter", "intra"),
    ("up", "down"),
    ("pre", "post"),
    ("macro", "micro"),
    ("max", "min"),
    ("asc", "desc"),
    ("endo", "exo"),
    ("anti", "pro"),
    ("en", "de"),
    ("", "un"),
    ("", "dis"),
    ("", "non"),
    ("", "in"),
    ("", "im"),
    ("", "ir"),
    ("", "il"),
    ("", "de"),
    ("", "anti"),
    ("", "mis"),
    ("", "a"),
];

fn is_prefixed(one: &str, other: &str) -> bool {
    const SHORTEST: usize = 4;
    // Nearly all pairs end differently; this spares them the table.
    if !one.bytes().rev().take(SHORTEST).eq(other.bytes().rev().take(SHORTEST)) {
        return false;
    }
    PREFIXES.iter().any(|(plain, turned)| {
        let (Some(stem), Some(other_stem)) = (one.strip_prefix(plain), other.strip_prefix(turned)) else {
            return false;
        };
        stem == other_stem && stem.len() >= SHORTEST
    })
}

/// Two groups of one class that exclude each other, or two measures.
fn clash(one: &Unit, other: &Unit) -> Option<Rule> {
    let mut found: Option<Rule> = None;
    for a in one.tags {
        for b in other.tags {
            match (a, b) {
                (Tag::Group { class, group }, Tag::Group { class: other_class, group: other_group })
                    if class == other_class =>
                {
                    if group == other_group {
                        return None;
                    }
                    let rule = LEXICON.classes.get(usize::from(*class)).map(|class| class.rule);
                    found = found.into_iter().chain(rule).min_by_key(|rule| telling(*rule));
                }
                (Tag::Measure(measure), Tag::Measure(other_measure)) if measure != other_measure => {
                    found = found.or(Some(Rule::Comparative));
                }
                (Tag::Synonym(x), Tag::Synonym(y)) if x == y => return None,
                _ => {}
            }
        }
    }
    found
}

/// Of several rules the most telling: "German" names a language before it names a place.
fn telling(rule: Rule) -> (bool, Rule) {
    (rule == Rule::Entity, rule)
}

/// A word of a class in which a group on one side alone counts.
fn exact(units: &[&Unit]) -> Option<Rule> {
    units
        .iter()
        .flat_map(|unit| unit.tags)
        .filter_map(|tag| match tag {
            Tag::Group { class, .. } => {
                LEXICON.classes.get(usize::from(*class)).filter(|class| class.exact).map(|class| class.rule)
            }
            _ => None,
        })
        .min_by_key(|rule| telling(*rule))
}

/// Numbers left over on either side.
fn numbers(left: &[&Unit], right: &[&Unit]) -> Option<Rule> {
    let of = |units: &[&Unit]| -> Vec<(NumberKind, String)> {
        units
            .iter()
            .filter_map(|unit| match unit.kind {
                UnitKind::Number(kind) => Some((kind, unit.key.clone())),
                _ => None,
            })
            .collect()
    };
    let (one, other) = (of(left), of(right));
    let strong = |list: &[(NumberKind, String)]| list.iter().any(|(kind, _)| *kind != NumberKind::Weak);
    if !strong(&one) && !strong(&other) {
        return None;
    }
    one.iter()
        .chain(&other)
        .map(|(kind, _)| match kind {
            NumberKind::Plain | NumberKind::Weak => Rule::Number,
            NumberKind::Duration => Rule::Unit,
            NumberKind::Year | NumberKind::Time => Rule::Date,
            NumberKind::Version => Rule::Version,
        })
        .min()
}

/// Code, addresses and quoted words left over.
fn verbatim(units: &[&Unit]) -> Option<Rule> {
    units
        .iter()
        .filter_map(|unit| match (unit.kind, unit.verbatim) {
            (UnitKind::Address, _) => Some(Rule::Address),
            (UnitKind::Code, _) | (_, Some(Verbatim::Code)) => Some(Rule::Code),
            _ => None,
        })
        .min()
}

/// A negation that reaches a word on one side and not on the other.
fn negation(pairing: &Pairing<'_>) -> Option<Rule> {
    let pairs = || pairing.pairs().map(|(a, b)| (a.negated, b.negated));
    if pairs().any(|pair| pair == (true, false)) && pairs().any(|pair| pair == (false, true)) {
        return Some(Rule::Negation);
    }
    let count = |prompt: &Prepared| prompt.units.iter().filter(|unit| unit.negated).count();
    (count(pairing.one) != count(pairing.other)).then_some(Rule::Negation)
}

/// Two different names.
fn names(one: &Unit, other: &Unit) -> Option<Rule> {
    let named = |unit: &Unit| unit.kind == UnitKind::Word && unit.name && !unit.light;
    (named(one) && named(other)).then_some(Rule::Entity)
}

/// A name of several words that the other side lacks altogether.
fn full_name(units: &[&Unit]) -> Option<Rule> {
    let named = |unit: &Unit| unit.kind == UnitKind::Word && unit.name && !unit.light;
    let runs = |two: &[&Unit]| matches!(two, [a, b] if named(a) && named(b) && b.at == a.at + 1);
    units.windows(2).any(runs).then_some(Rule::Entity)
}

/// A name on one side, where the other side has something else in its place.
fn lone_name(left: &[&Unit], right: &[&Unit]) -> Option<Rule> {
    let named = left
        .iter()
        .any(|unit| unit.kind == UnitKind::Word && unit.name && !unit.light && unit.word.is_none());
    (named && right.iter().any(|unit| !unit.light)).then_some(Rule::Entity)
}

/// Different things of one kind, by `WordNet`.
fn siblings(one: &Unit, other: &Unit) -> Option<Rule> {
    let noun = |unit: &Unit| !unit.light && unit.word.is_some_and(|word| word.parts.contains('n'));
    (noun(one) && noun(other) && one.word?.is_sibling(other.word?)).then_some(Rule::Entity)
}
