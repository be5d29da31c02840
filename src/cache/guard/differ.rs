//! Judges what is left over when the units of two prompts are paired.
//!
//! Called by [`super::compare`]. Every judgement is symmetric by construction: it is asked of both sides, or
//! of unordered pairs.

use super::denial::{Denial, denial, quotes_denial};
use super::events::{Times, times};
use super::exchange::{JOINERS, exchanged};
use super::figures::{Numbers, numbers};
use super::lexicon::{LEXICON, Tag};
use super::pair::{MOST_LEFT, Pairing};
use super::prepare::{Asks, NumberKind, Place, Prepared, Unit, UnitKind};
use super::relate::{clash, opposite, relation, same};
use super::verbatim::{self, skeletons, spans};
use super::{Rule, RuleSet, Verdict, spelling};

impl Prepared {
    /// Compares with another prompt; see [`super::compare`].
    pub fn compare(&self, other: &Self) -> Verdict {
        if self.normal == other.normal {
            return Verdict::ALIKE;
        }
        let spelling = spelling::differs(self, other);
        if spelling.is_none() && self.exact == other.exact {
            return Verdict::ALIKE;
        }
        let verdict = Pairing::new(self, other).judge();
        // The words name a difference better, where they see it.
        match verdict.certain.or(spelling) {
            None => verdict,
            certain => Verdict { certain, soft: RuleSet::NONE },
        }
    }
}

/// The first rule in order of declaration, so that the answer does not depend on which prompt is which.
fn first(one: Option<Rule>, other: Option<Rule>) -> Option<Rule> {
    one.into_iter().chain(other).min()
}

/// The most words left over on a side with which a rule of words still decides: where more of the sentence
/// differs, what looks like an opposite is often said the other way round.
pub(super) const NEAR: usize = 2;

/// What has spoken so far.
struct Found {
    certain: Option<Rule>,
    soft: RuleSet,
    /// See [`apart`].
    apart: usize,
}

impl Found {
    fn spoken(&mut self, spoken: Option<(Rule, bool)>) {
        match spoken {
            Some((rule, true)) if rule.is_certain() => self.certain = self.certain.or(Some(rule)),
            Some((rule, _)) => self.soft.insert(rule),
            None => {}
        }
    }

    /// A rule that decides here, though it does not everywhere.
    fn vetoes(&mut self, rule: Rule) {
        self.certain = self.certain.or(Some(rule));
    }

    /// A rule that is sure where the prompts are near.
    fn near(&mut self, rule: Rule) {
        self.spoken(Some((rule, self.is_near())));
    }

    fn is_near(&self) -> bool {
        self.apart <= NEAR
    }

    fn verdict(self) -> Verdict {
        match self.certain {
            Some(_) => Verdict { certain: self.certain, soft: RuleSet::NONE },
            None => Verdict { certain: None, soft: self.soft },
        }
    }
}

/// How much of the prompts differs: the words of weight left over, on the side that has more of them.
fn apart(left: &[&Unit], right: &[&Unit]) -> usize {
    let words =
        |units: &[&Unit]| units.iter().filter(|unit| !unit.light && unit.kind == UnitKind::Word).count();
    words(left).max(words(right))
}

impl<'a> Pairing<'a> {
    /// Certain rules first, in the order that names a difference best; all else where none of them speaks.
    fn judge(&self) -> Verdict {
        let (left, right) = (self.left_over(), self.right_over());
        let mut found = Found { certain: None, soft: RuleSet::NONE, apart: apart(&left, &right) };
        found.spoken(spans(self.one, self.other));
        found.spoken(skeletons(self.one, self.other));
        if left.len().max(right.len()) > MOST_LEFT {
            // Too much to be looked through, and so nobody's to judge: each number and each piece of code left over
            // would be looked for in the whole of the other prompt.
            found.vetoes(Rule::Doubt);
            return found.verdict();
        }
        if let Some(Numbers { rule, sure }) = numbers(self, &left, &right, found.apart) {
            found.spoken(Some((rule, sure)));
        }
        found.spoken(self.counted().map(|rule| (rule, true)));
        found.spoken(self.repeated().map(|rule| (rule, true)));
        found.spoken(verbatim::left_over(&left, &right, self.one, self.other));
        match denial(self) {
            Denial::Same => {}
            Denial::Unclear => found.soft.insert(Rule::Negation),
            Denial::Differs => found.near(Rule::Negation),
        }
        let opposites = each_pair(&left, &right, opposite);
        let quoted = quotes_denial(self);
        opposites.iter().filter(|rule| !quoted || *rule != Rule::Negation).for_each(|rule| found.near(rule));
        if opposites.contains(Rule::Role) && found.is_near() {
            // The tenant's rights and the landlord's: little else differs, so the other party is what is asked about.
            found.vetoes(Rule::Role);
        }
        each_pair(&left, &right, clash).iter().for_each(|rule| found.near(rule));
        // A word of a class in which one alone counts, and no other of the class opposite.
        let sure = found.apart <= 1;
        let mut alone: Vec<_> = exact(&left).chain(exact(&right)).collect();
        // In their order, so that the answer does not depend on the side.
        alone.sort_unstable();
        for (rule, said) in alone {
            found.spoken(Some((rule, sure && said)));
        }
        match self.turned_back() {
            // Both ends, however much else differs.
            (true, true) => found.spoken(Some((Rule::Direction, true))),
            (true, false) | (false, true) => found.near(Rule::Direction),
            (false, false) if self.particle() => found.near(Rule::Direction),
            (false, false) if self.retargeted() => {
                found.spoken(Some((Rule::Direction, found.apart == 0)));
            }
            (false, false) => {}
        }
        if exchanged(self.one, self.other) {
            found.vetoes(Rule::Role);
        }
        match times(self.one, self.other) {
            Times::Differ if found.is_near() => found.vetoes(Rule::Tense),
            Times::Differ | Times::Unclear => found.soft.insert(Rule::Tense),
            Times::Alike => {}
        }
        if found.certain.is_some() {
            return found.verdict();
        }
        found.soft.extend(each_pair(&left, &right, names).iter());
        found.soft.extend(each_pair(&left, &right, siblings).iter());
        let others = [
            self.asker(),
            self.swapped(),
            self.reordered(),
            self.tense(),
            self.asks(),
            first(full_name(&left), full_name(&right)),
            lone_name(&left, &right).or_else(|| lone_name(&right, &left)),
            self.substitution(&left, &right),
            self.doubt(&left, &right),
        ];
        found.soft.extend(others.into_iter().flatten());
        found.verdict()
    }

    /// Equal numbers that count different things: 3 cups of flour and 2 of sugar.
    fn counted(&self) -> Option<Rule> {
        let plain = |unit: &Unit| unit.kind == UnitKind::Number(NumberKind::Plain);
        let numbers: Vec<_> = self.pairs().filter(|(a, b)| plain(a) && plain(b)).collect();
        let swapped = numbers.windows(2).any(|two| matches!(two, [(_, b), (_, d)] if b.at > d.at));
        if !swapped || numbers.len() > MOST_LEFT {
            return None;
        }
        let counts = |prompt: &'a Prepared, side: fn(&(&'a Unit, &'a Unit)) -> &'a Unit| {
            let of =
                |number: &(&'a Unit, &'a Unit)| Some((counted(prompt, side(number))?, &side(number).key));
            numbers.iter().filter_map(of).collect::<Vec<_>>()
        };
        let (left, right) = (counts(self.one, |pair| pair.0), counts(self.other, |pair| pair.1));
        let alike = |a: &Unit, b: &Unit| same(a, b) || relation(a, b).is_some();
        // Something of which no count is the other prompt's.
        let differs = |what: &Unit| {
            let mine = || left.iter().filter(|(unit, _)| alike(unit, what));
            let mut theirs = right.iter().filter(|(unit, _)| alike(unit, what)).peekable();
            theirs.peek().is_some() && theirs.all(|(_, count)| !mine().any(|(_, own)| own == count))
        };
        left.iter().any(|(what, _)| differs(what)).then_some(Rule::Number)
    }

    /// Both prompts have the same numbers, and each says one of them again, which is not the same one: of a triangle with
    /// sides of 6 and 8 cm, the angle opposite the side of 6 cm, or of 8 cm.
    fn repeated(&self) -> Option<Rule> {
        let kinds = |units: Vec<&Unit>| -> Vec<NumberKind> {
            let kind = |unit: &Unit| if let UnitKind::Number(kind) = unit.kind { Some(kind) } else { None };
            units.into_iter().filter_map(kind).collect()
        };
        let (left, right) = self.said_again();
        let (left, right) = (kinds(left), kinds(right));
        left.iter().any(|kind| right.contains(kind)).then_some(Rule::Number)
    }

    fn asker(&self) -> Option<Rule> {
        let ((pair, one), (other_pair, other)) = (self.one.asker?, self.other.asker?);
        (pair == other_pair && one != other).then_some(Rule::Role)
    }

    /// Whether the source of the one is the target of the other, and whether its target is the other's source.
    fn turned_back(&self) -> (bool, bool) {
        let opposite = |a: &Unit, b: &Unit| a.place == Place::Source && b.place == Place::Target;
        (self.pairs().any(|(a, b)| opposite(a, b)), self.pairs().any(|(a, b)| opposite(b, a)))
    }

    /// From x to y against y to x, where only one of the ends is marked.
    fn retargeted(&self) -> bool {
        let gains = |one: Place, other: Place| one == Place::Target && other != Place::Target;
        let named =
            |unit: &Unit| unit.word.is_none_or(|word| word.parts.contains('n') || word.parts.is_empty());
        let there = self.pairs().any(|(a, b)| gains(a.place, b.place) && b.place != Place::Aside && named(a));
        let back = self.pairs().any(|(a, b)| gains(b.place, a.place) && a.place != Place::Aside && named(b));
        there && back
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
        // In the first part of both prompts, whichever is which.
        let pairs: Vec<_> = self.pairs().filter(|(a, b)| a.at.max(b.at) < 2 * MOST_LEFT).collect();
        let turns = |unit: &Unit| unit.word.is_some_and(|word| word.parts.contains(['v', 'a']));
        let pivots: Vec<_> = pairs.iter().filter(|(x, y)| turns(x) || turns(y)).collect();
        for (i, (a, b)) in pairs.iter().enumerate().filter(|(_, (a, b))| thing(a) && thing(b)) {
            for (c, d) in pairs.iter().skip(i + 1).filter(|(c, d)| thing(c) && thing(d)) {
                let turned = a.at < c.at && d.at < b.at;
                let between =
                    |(x, y): &(&Unit, &Unit)| a.at < x.at && x.at < c.at && d.at < y.at && y.at < b.at;
                if turned && pivots.iter().any(|pivot| between(pivot)) {
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
            // How to do it and where to do it are often one question, and so is whether it can be done.
            (Nothing, _)
            | (_, Nothing)
            | (Manner, Place | Truth | Count | Duration)
            | (Place | Truth | Count | Duration, Manner) => false,
            (Truth, other) | (other, Truth) => other == Reason,
            (Person | Time | Place | Reason | Count | Duration | Manner, _) => true,
        };
        apart.then_some(Rule::Aspect)
    }

    /// Equal sentences but for a small word that turns them round.
    fn particle(&self) -> bool {
        let (one, other) = (&self.one.frame, &self.other.frame);
        let particle = |(a, b): (&String, &String)| {
            let both = [a.as_str(), b.as_str()];
            PARTICLES.iter().any(|(one, other)| both == [*one, *other] || both == [*other, *one])
        };
        let framing = |(a, b): (&String, &String)| a == b || LEXICON.is_stop(a) && LEXICON.is_stop(b);
        let sorted = |frame: &'a [String]| {
            let mut words: Vec<&String> = frame.iter().collect();
            words.sort_unstable();
            words
        };
        one.len() == other.len()
            && one.iter().zip(other).all(framing)
            && one.iter().zip(other).any(particle)
            && sorted(one) != sorted(other)
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
        if sites.len() > MOST_LEFT {
            return Some(Rule::Doubt);
        }
        let (first, last) = (*sites.first()?, *sites.last()?);
        let words = |frame: &'a [String]| {
            let mut words: Vec<&str> =
                sites.iter().filter_map(|at| frame.get(*at)).map(String::as_str).collect();
            words.sort_unstable();
            words
        };
        let joins = |word: &String| JOINERS.contains(&word.as_str());
        let commutes = (first..=last)
            .filter(|at| !sites.contains(at))
            .flat_map(|at| [one, other].into_iter().filter_map(move |frame| frame.get(at)))
            .all(joins);
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

/// What a number counts: the first word of weight behind it that is no unit, with no more than an `of` between.
fn counted<'a>(prompt: &'a Prepared, number: &Unit) -> Option<&'a Unit> {
    let measures = |unit: &Unit| {
        unit.tags.iter().any(|tag| match tag {
            Tag::Group { class, .. } => {
                LEXICON.classes.get(usize::from(*class)).is_some_and(|class| class.rule == Rule::Unit)
            }
            _ => false,
        })
    };
    let behind = prompt.units.partition_point(|unit| unit.at <= number.at);
    let (mut last, mut at) = (number, number.at + 1);
    for unit in prompt.units.iter().skip(behind) {
        if prompt.frame.get(at).is_some_and(|word| word == "of") {
            at += 1;
        }
        if last.comma || unit.kind != UnitKind::Word || unit.at != at {
            return None;
        }
        if !measures(unit) {
            return Some(unit).filter(|unit| !unit.light);
        }
        (last, at) = (unit, unit.at + 1);
    }
    None
}

/// All that speak of a pair of what is left over, so that the answer does not depend on the side.
fn each_pair(left: &[&Unit], right: &[&Unit], judge: fn(&Unit, &Unit) -> Option<Rule>) -> RuleSet {
    left.iter().flat_map(|a| right.iter().filter_map(|b| judge(a, b))).collect()
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

/// Words of a class in which a group on one side alone counts, and whether this one would have to be said.
fn exact(units: &[&Unit]) -> impl Iterator<Item = (Rule, bool)> {
    units.iter().flat_map(|unit| unit.tags).filter_map(|tag| match tag {
        Tag::Group { class, group } => {
            let class = LEXICON.classes.get(usize::from(*class)).filter(|class| class.exact)?;
            Some((class.rule, class.implied != Some(*group)))
        }
        _ => None,
    })
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
