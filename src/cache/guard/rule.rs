//! What a comparison finds: the rules, sets of them, and the verdict.
//!
//! Made by [`super::differ`]; read by the reuse decision.

use super::named;

/// What a comparison found. At most one of its two parts says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The first certain rule that speaks, in the order in which they are asked: the prompts differ.
    pub certain: Option<Rule>,
    /// The rules that speak without deciding: soft ones, and certain ones that see their difference but are not sure
    /// of it, since much else differs as well. Empty where a certain one decides.
    pub soft: RuleSet,
}

impl Verdict {
    /// No difference that carries meaning was found.
    pub const ALIKE: Self = Self { certain: None, soft: RuleSet::NONE };

    /// The same where nobody can judge what the soft rules doubt: each of them then is as good as certain.
    #[must_use]
    pub fn in_doubt(self) -> Self {
        self.first().map_or(self, |rule| Self { certain: Some(rule), soft: RuleSet::NONE })
    }

    /// Whether no rule speaks.
    pub const fn is_alike(self) -> bool {
        self.certain.is_none() && self.soft.is_empty()
    }

    /// The rule by which a difference is named: the certain one, else the first of the soft ones.
    pub fn first(self) -> Option<Rule> {
        self.certain.or_else(|| self.soft.first())
    }
}

named! {
    /// Why two prompts differ. The names are stable. Some are certain, see [`Rule::is_certain`].
    Rule {
        /// Another count, amount or ordinal.
        Number = "number",
        /// The same amount in another unit, or another unit asked for.
        Unit = "unit",
        /// Another date, weekday, month, season, year, time of day or time zone.
        Date = "date",
        /// Another version of something.
        Version = "version",
        /// A negation on one side, or one that reaches another word.
        Negation = "negation",
        /// Opposites: ascending and descending, enable and disable.
        Antonym = "antonym",
        /// From A to B against from B to A.
        Direction = "direction",
        /// Another measure or the other end of it: cheapest and fastest, largest and smallest.
        Comparative = "comparative",
        /// The parties of an exchange swapped: buyer and seller, who does what to whom.
        Role = "role",
        /// Another person, place, product, animal, substance: one name or kind against another.
        Entity = "entity",
        /// Another quoted text.
        Quoted = "quoted",
        /// Another piece of code, identifier, literal or operator.
        Code = "code",
        /// Another URL, e-mail address or path.
        Address = "address",
        /// Another programming language or framework.
        ProgrammingLanguage = "programming_language",
        /// Another human language.
        HumanLanguage = "human_language",
        /// Another form of reply asked for: JSON and a table, a haiku and a limerick.
        Format = "format",
        /// Another length of reply asked for.
        Length = "length",
        /// What was against what will be.
        Tense = "tense",
        /// Another reader or receiver: a child and a graduate.
        Audience = "audience",
        /// Wider or narrower: any and every, all and only some kind.
        Scope = "scope",
        /// Another side of the same thing: causes and symptoms, opening and closing hours.
        Aspect = "aspect",
        /// Another thing to be done: track and return.
        Action = "action",
        /// One word in place of another, in an otherwise equal sentence, and no known synonym of it.
        Substitution = "substitution",
        /// Too little in common to tell.
        Doubt = "doubt",
    }
}

impl Rule {
    /// Whether the rule can decide alone. One that does names a difference no reply can answer both sides of; it
    /// vetoes a reuse whatever else speaks for it. The others (doubt, substitution, entity and their like) miss what
    /// they do not know and stop much that is alike: evidence for a verifier, and decisive only where there is none.
    pub const fn is_certain(self) -> bool {
        match self {
            Self::Number
            | Self::Unit
            | Self::Date
            | Self::Version
            | Self::Negation
            | Self::Antonym
            | Self::Direction
            | Self::Quoted
            | Self::Code
            | Self::Address
            | Self::ProgrammingLanguage
            | Self::HumanLanguage
            | Self::Format
            | Self::Length => true,
            Self::Comparative
            | Self::Role
            | Self::Entity
            | Self::Tense
            | Self::Audience
            | Self::Scope
            | Self::Aspect
            | Self::Action
            | Self::Substitution
            | Self::Doubt => false,
        }
    }
}

/// A set of [`Rule`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RuleSet(u32);

impl RuleSet {
    /// None of them.
    pub const NONE: Self = Self(0);

    const fn bit(rule: Rule) -> u32 {
        1 << rule as u32
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether this one is in it.
    pub const fn contains(self, rule: Rule) -> bool {
        self.0 & Self::bit(rule) != 0
    }

    /// Puts one in.
    pub const fn insert(&mut self, rule: Rule) {
        self.0 |= Self::bit(rule);
    }

    /// Those in it, in the order of [`Rule::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Rule> {
        Rule::ALL.iter().copied().filter(move |rule| self.contains(*rule))
    }

    /// The first in the order of [`Rule::ALL`].
    pub fn first(self) -> Option<Rule> {
        self.iter().next()
    }
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Extend<Rule> for RuleSet {
    fn extend<I: IntoIterator<Item = Rule>>(&mut self, rules: I) {
        rules.into_iter().for_each(|rule| self.insert(rule));
    }
}

impl FromIterator<Rule> for RuleSet {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        let mut set = Self::NONE;
        set.extend(rules);
        set
    }
}
