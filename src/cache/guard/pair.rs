//! Pairs the units of two prompts that are, or can stand for, the same.
//!
//! Called by [`super::differ`], which judges what is left without a partner.

use std::collections::HashMap;
use std::ops::Range;

use super::prepare::{Prepared, Unit, UnitKind};
use super::relate::{identity, relation, same};

/// More words left over than this on one side are not judged one by one: in doubt a miss. Keeps the
/// cost bounded for long prompts.
pub(super) const MOST_LEFT: usize = 48;

/// The units of both prompts and which of them belong together.
pub(super) struct Pairing<'a> {
    pub(super) one: &'a Prepared,
    pub(super) other: &'a Prepared,
    /// For each unit of the first prompt its partner's number in the second.
    right_of: Vec<Option<usize>>,
    /// And the other way.
    left_of: Vec<Option<usize>>,
    /// Units without a partner of their own that repeat what is said elsewhere in the other prompt.
    left_said: Vec<bool>,
    right_said: Vec<bool>,
}

impl<'a> Pairing<'a> {
    pub(super) fn new(one: &'a Prepared, other: &'a Prepared) -> Self {
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
        let mut places: HashMap<_, Vec<usize>> = HashMap::new();
        for (number, unit) in self.other.units.iter().enumerate().rev() {
            places.entry(identity(unit)).or_default().push(number);
        }
        for (left, unit) in self.one.units.iter().enumerate() {
            if let Some(right) = places.get_mut(&identity(unit)).and_then(Vec::pop) {
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
            let glossed = glosses(units);
            for (at, unit) in units.iter().enumerate() {
                if get(partner, at).is_none()
                    && glossed.iter().any(|gloss| gloss.contains(&at))
                    && let Some(flag) = said.get_mut(at)
                {
                    *flag = true;
                }
                if get(partner, at).is_none()
                    && others.iter().any(|other| same(unit, other) || relation(unit, other).is_some())
                    && let Some(flag) = said.get_mut(at)
                {
                    *flag = true;
                }
            }
        }
    }

    /// Pairs an abbreviation with the words whose initials it is made of, `VS` and Visual Studio, and a compound with its words. Where an abbreviation of
    /// one side is among the words of the other's, neither is one, so that it does not matter which is looked at first.
    fn initials(&mut self) {
        let mut lefts = initials(self.one, self.other, &self.right_of, &self.left_of);
        let mut rights = initials(self.other, self.one, &self.left_of, &self.right_of);
        compounds(&mut lefts, &self.one.units, &self.other.units, &self.right_of, &self.left_of);
        compounds(&mut rights, &self.other.units, &self.one.units, &self.left_of, &self.right_of);
        let crossed = |one: &Initials, other: &Initials| {
            one.words.contains(&other.short) || other.words.contains(&one.short)
        };
        for found in lefts.iter().filter(|found| !rights.iter().any(|other| crossed(found, other))) {
            found.pair(&mut self.right_of, &mut self.left_of);
        }
        for found in rights.iter().filter(|found| !lefts.iter().any(|other| crossed(found, other))) {
            found.pair(&mut self.left_of, &mut self.right_of);
        }
    }

    pub(super) fn left_over(&self) -> Vec<&'a Unit> {
        over(&self.one.units, &self.right_of, &self.left_said)
    }

    pub(super) fn right_over(&self) -> Vec<&'a Unit> {
        over(&self.other.units, &self.left_of, &self.right_said)
    }

    /// Units of either side without a partner that repeat what is said elsewhere.
    pub(super) fn said_again(&self) -> (Vec<&'a Unit>, Vec<&'a Unit>) {
        let again = |units: &'a [Unit], said: &[bool]| {
            units.iter().zip(said).filter(|(_, said)| **said).map(|(unit, _)| unit).collect()
        };
        (again(&self.one.units, &self.left_said), again(&self.other.units, &self.right_said))
    }

    /// The pairs with numbers on both sides.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'a Unit, &'a Unit)> + '_ {
        self.right_of.iter().enumerate().filter_map(|(left, right)| {
            let right = (*right)?;
            (get(&self.left_of, right) == Some(left)).then_some(())?;
            Some((self.one.units.get(left)?, self.other.units.get(right)?))
        })
    }
}

/// An abbreviation in one prompt, and the words of the other whose initials it is made of; or a compound, and its words.
struct Initials {
    short: usize,
    words: Range<usize>,
}

impl Initials {
    /// Notes them as partners, on the short side and on the words'.
    fn pair(&self, mine: &mut [Option<usize>], theirs: &mut [Option<usize>]) {
        set(mine, self.short, self.words.start);
        self.words.clone().for_each(|word| set(theirs, word, self.short));
    }
}

/// The words that only spell out an abbreviation beside them: CBT (cognitive behavioral therapy).
fn glosses(units: &[Unit]) -> Vec<Range<usize>> {
    let spelt = |unit: &Unit, range: Range<usize>| {
        let words = units.get(range.clone())?;
        let begins = |(word, letter): (&Unit, char)| word.key.starts_with(letter) && word.key.len() > 1;
        words.iter().zip(unit.key.chars()).all(begins).then_some(range)
    };
    let short = |(_, unit): &(usize, &Unit)| {
        unit.name && unit.kind == UnitKind::Word && (2..=5).contains(&unit.key.len()) && unit.key.is_ascii()
    };
    units
        .iter()
        .enumerate()
        .filter(short)
        .filter_map(|(at, unit)| {
            let length = unit.key.len();
            let before = at.checked_sub(length).and_then(|start| spelt(unit, start..at));
            before.or_else(|| spelt(unit, at + 1..at + 1 + length))
        })
        .collect()
}

/// Adds words of `mine` that words of `theirs` standing together make up, among units that have no partner yet: webhook and web hook.
fn compounds(
    found: &mut Vec<Initials>,
    mine: &[Unit],
    theirs: &[Unit],
    partners: &[Option<usize>],
    others: &[Option<usize>],
) {
    const SHORTEST: usize = 6;
    const PARTS: usize = 3;
    let starts = open(others);
    for at in open(partners) {
        let Some(whole) = mine.get(at) else { continue };
        if whole.kind != UnitKind::Word
            || whole.key.len() < SHORTEST
            || found.iter().any(|other| other.short == at)
        {
            continue;
        }
        let is_free = |number: usize| {
            get(others, number).is_none() && !found.iter().any(|other| other.words.contains(&number))
        };
        let made = starts.iter().find_map(|start| {
            let (mut rest, mut written) = (whole.key.as_str(), whole.written.as_str());
            let parts = theirs.get(*start..).unwrap_or_default().iter().take(PARTS).zip(*start..);
            for ((part, number), place) in parts.zip(theirs.get(*start)?.at..) {
                if part.at != place || part.kind != UnitKind::Word || !is_free(number) {
                    return None;
                }
                if number > *start && (rest == part.key || written == part.written) {
                    return Some(*start..number + 1);
                }
                rest = rest.strip_prefix(part.written.as_str()).unwrap_or_default();
                written = written.strip_prefix(part.written.as_str())?;
            }
            None
        });
        if let Some(words) = made {
            found.push(Initials { short: at, words });
        }
    }
}

/// The abbreviations of `short` for words of `long`, among units that have no partner yet; no word counts twice.
fn initials(
    short: &Prepared,
    long: &Prepared,
    mine: &[Option<usize>],
    theirs: &[Option<usize>],
) -> Vec<Initials> {
    let mut found: Vec<Initials> = Vec::new();
    for (at, unit) in short.units.iter().enumerate() {
        let letters: Vec<char> = unit.key.chars().collect();
        if get(mine, at).is_some()
            || !(2..=5).contains(&letters.len())
            || unit.kind != UnitKind::Word
            || !unit.name
        {
            continue;
        }
        let stands_for = |(place, letter): (usize, &char)| {
            let begins = |word: &Unit| word.key.starts_with(*letter) && word.key.len() > 1;
            long.units.get(place).is_some_and(begins)
                && get(theirs, place).is_none()
                && !found.iter().any(|other| other.words.contains(&place))
        };
        let start = (0..long.units.len()).find(|start| (*start..).zip(&letters).all(stands_for));
        if let Some(start) = start {
            found.push(Initials { short: at, words: start..start + letters.len() });
        }
    }
    found
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
