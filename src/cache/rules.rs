//! The rules by which a prompt is never matched by meaning, as configured.
//!
//! Called by [`super`], before it looks for neighbours and before it lets others find a prompt as one. The exact
//! layer serves such prompts as any other.

use std::time::Duration;

use super::guard::{Leaning, Leanings, leanings};

/// Which of the rules hold, and what else follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The rules in force.
    pub exact_only: Leanings,
    /// The longest that the reply to a prompt about the moment lives, where that rule is in force.
    pub moment_ttl: Duration,
}

impl Rules {
    /// All rules, and five minutes for prompts about the moment.
    pub const DEFAULT: Self = Self { exact_only: Leanings::ALL, moment_ttl: Duration::from_mins(5) };

    /// What a prompt leans on, of the rules in force. `repeated` says that its conversation has it before.
    pub fn of(&self, prompt: &str, repeated: bool) -> Leanings {
        if self.exact_only.is_empty() {
            return Leanings::NONE;
        }
        let mut found = leanings(prompt);
        if repeated {
            found.insert(Leaning::Repeat);
        }
        found.and(self.exact_only)
    }

    /// How long a reply may live at most, by what its prompt leans on; `None` leaves it to the configured time.
    pub fn ttl(&self, leanings: Leanings) -> Option<Duration> {
        leanings.contains(Leaning::Moment).then_some(self.moment_ttl)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_off_says_nothing() {
        let prompt = "Where is my order, and what is the latest?";
        let all = Rules::DEFAULT.of(prompt, true);
        for leaning in [Leaning::Moment, Leaning::Person, Leaning::Repeat] {
            assert!(all.contains(leaning), "{leaning}: {all:?}");
            let rules = Rules { exact_only: Leanings::ALL.without(leaning), ..Rules::DEFAULT };
            let rest = rules.of(prompt, true);
            assert_eq!(rest, all.without(leaning), "the others speak on");
            assert_eq!(rules.ttl(rest).is_some(), leaning != Leaning::Moment);
        }
        let none = Rules { exact_only: Leanings::NONE, ..Rules::DEFAULT };
        assert_eq!(none.of(prompt, true), Leanings::NONE);
    }
}
