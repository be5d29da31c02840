//! Judges what is left over when the units of two prompts are paired.
//!
//! Called by [`super::compare`]. Every judgement is symmetric by construction: it is asked of both sides, or
//! of unordered pairs.

use super::lexicon::{LEXICON, Tag};
use super::pair::{MOST_LEFT, Pairing};
use super::prepare::{Asks, NumberKind, Place, Prepared, Unit, UnitKind, flat};
use super::relate::{clash, opposite, relation, same};
use super::scan::{Span, Verbatim};
use super::{Rule, RuleSet, Verdict};

impl Prepared {
    /// Compares with another prompt; see [`super::compare`].
    pub fn compare(&self, other: &Self) -> Verdict {
        if self.exact == other.exact {
            return Verdict::ALIKE;
        }
        match spans(self, other) {
            Some(rule) => Verdict { certain: Some(rule), soft: RuleSet::NONE },
            None => Pairing::new(self, other).judge(),
        }
    }
}

/// A verbatim span of one prompt must stand in the other, marked or not, and marked ones in the same order.
fn spans(one: &Prepared, other: &Prepared) -> Option<Rule> {
    if one.spans.len().max(other.spans.len()) > MOST_LEFT && one.spans != other.spans {
        return Some(Rule::Code);
    }
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

impl<'a> Pairing<'a> {
    /// Certain rules first, in the order that names a difference best; soft ones where none of them speaks.
    fn judge(&self) -> Verdict {
        let (left, right) = (self.left_over(), self.right_over());
        let certain = numbers(&left, &right)
            .or_else(|| self.counted())
            .or_else(|| first(verbatim(&left), verbatim(&right)));
        if certain.is_none() && left.len().max(right.len()) > MOST_LEFT {
            return Verdict { certain, soft: RuleSet::from_iter([Rule::Doubt]) };
        }
        let mut opposites = RuleSet::NONE;
        let mut exclusive = RuleSet::NONE;
        let certain = certain
            .or_else(|| negation(self))
            .or_else(|| {
                opposites = each_pair(&left, &right, opposite);
                opposites.certain()
            })
            .or_else(|| {
                exclusive = each_pair(&left, &right, clash);
                exclusive.extend(exact(&left).chain(exact(&right)));
                exclusive.certain()
            })
            .or_else(|| self.direction())
            .or_else(|| self.particle());
        if certain.is_some() {
            return Verdict { certain, soft: RuleSet::NONE };
        }
        let mut soft = opposites.soft();
        soft.extend(exclusive.soft().iter());
        soft.extend(each_pair(&left, &right, names).iter());
        soft.extend(each_pair(&left, &right, siblings).iter());
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
        soft.extend(others.into_iter().flatten());
        Verdict { certain: None, soft }
    }

    /// Equal numbers that count different things: 3 cups of flour and 2 of sugar.
    fn counted(&self) -> Option<Rule> {
        let next = |units: &'a [Unit], unit: &Unit| {
            let at = units.binary_search_by_key(&(unit.at + 1), |next| next.at).ok()?;
            units.get(at).filter(|next| next.kind == UnitKind::Word && !next.light)
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
    fn particle(&self) -> Option<Rule> {
        let (one, other) = (&self.one.frame, &self.other.frame);
        let particle = |(a, b): (&String, &String)| {
            let both = [a.as_str(), b.as_str()];
            PARTICLES.iter().any(|(one, other)| both == [*one, *other] || both == [*other, *one])
        };
        let framing = |(a, b): (&String, &String)| a == b || LEXICON.is_stop(a) && LEXICON.is_stop(b);
        (one.len() == other.len()
            && one.iter().zip(other).all(framing)
            && one.iter().zip(other).any(particle))
        .then_some(Rule::Direction)
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

/// Words of a class in which a group on one side alone counts.
fn exact(units: &[&Unit]) -> impl Iterator<Item = Rule> {
    units.iter().flat_map(|unit| unit.tags).filter_map(|tag| match tag {
        Tag::Group { class, .. } => {
            LEXICON.classes.get(usize::from(*class)).filter(|class| class.exact).map(|class| class.rule)
        }
        _ => None,
    })
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
