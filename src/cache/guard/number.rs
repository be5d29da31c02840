//! Numbers as people write them: digits with marks, words, ordinals, times, amounts with a unit attached.
//!
//! Called by [`super::scan`].

/// A number. Compared by value, as written to fifteen digits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Amount {
    /// The value, where it fits an exact double.
    pub(super) value: Option<f64>,
    /// What was written when no value fits (a version, an address, a long string of digits).
    pub(super) written: String,
    /// Third rather than three.
    pub(super) ordinal: bool,
    /// Written in words, so that `one` may be no number at all.
    pub(super) spelt: bool,
}

/// A piece of a chunk that begins with a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// A number.
    Amount(Amount),
    /// A time of day in minutes since midnight.
    Time(u32),
    /// A unit or currency attached to the number, in lower case.
    Word(String),
}

impl Amount {
    fn of(value: f64) -> Self {
        Self { value: Some(value), written: String::new(), ordinal: false, spelt: false }
    }

    fn literal(text: &str) -> Self {
        Self { value: None, written: text.to_lowercase(), ordinal: false, spelt: false }
    }

    /// Equal for equal numbers, different for different ones.
    pub(super) fn key(&self) -> String {
        match self.value {
            Some(value) if self.ordinal => format!("{value}th"),
            Some(value) => format!("{value}"),
            None => self.written.clone(),
        }
    }

    /// Whether it is written with several points, as versions and addresses are.
    pub(super) fn is_dotted(&self) -> bool {
        self.value.is_none() && self.written.contains('.')
    }
}

/// The numbers of a text, each as text that is equal for equal numbers. Numbers of list items are left out, and so
/// are digits that are part of a name or an id.
pub fn numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let chunks = line.split_whitespace();
        let mut rest = chunks.clone();
        // With nothing after it, it is no item's number but the answer.
        let listed = rest.next().is_some_and(is_list_number) && rest.next().is_some();
        for chunk in chunks.skip(usize::from(listed)) {
            let mark = |c: char| c.is_alphanumeric() || "-$\u{20ac}\u{a3}\u{a5}\u{20b9}%\u{b0}".contains(c);
            let Some(parts) = read(chunk.trim_matches(|c| !mark(c))) else { continue };
            let named = parts
                .iter()
                .any(|part| matches!(part, Part::Word(word) if word.contains(|c: char| c.is_ascii_digit())));
            if named {
                continue;
            }
            found.extend(parts.iter().filter_map(|part| match part {
                Part::Amount(amount) => Some(amount.key()),
                Part::Time(minutes) => Some(format!("{minutes} min")),
                Part::Word(_) => None,
            }));
        }
    }
    found
}

/// Whether a line's first chunk is the number of a list item: `1.`, `2)`.
fn is_list_number(chunk: &str) -> bool {
    let digits = chunk.strip_suffix(['.', ')']).unwrap_or_default();
    (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a chunk that begins with a digit, a sign or a currency mark. None: it is no number.
pub(super) fn read(chunk: &str) -> Option<Vec<Part>> {
    // Bounds the depth of nested ranges; no number people write is longer.
    const LONGEST: usize = 64;
    if chunk.len() > LONGEST {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = chunk;
    for mark in ['$', '\u{20ac}', '\u{a3}', '\u{a5}', '\u{20b9}'] {
        if let Some(after) = rest.strip_prefix(mark) {
            parts.push(Part::Word(mark.to_string()));
            rest = after;
        }
    }
    let version =
        rest.strip_prefix(['v', 'V']).filter(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    rest = version.unwrap_or(rest);
    let negative = rest.strip_prefix('-').filter(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    rest = negative.unwrap_or(rest);
    let fraction =
        rest.strip_prefix('.').is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    if !fraction && !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Some(time) = clock(rest) {
        parts.push(Part::Time(time));
        return Some(parts);
    }
    if let Some(part) = FRACTIONS.iter().find(|(written, _)| *written == rest).map(|(_, value)| *value) {
        parts.push(Part::Amount(Amount::of(part)));
        return Some(parts);
    }
    // A range, a date or a telephone number: each number counts.
    if let Some((first, second)) =
        rest.split_once(['-', '/']).filter(|(_, second)| second.starts_with(|c: char| c.is_ascii_digit()))
    {
        parts.extend(read(first)?);
        parts.extend(read(second)?);
        return Some(parts);
    }
    let digits =
        rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | '_'))).unwrap_or(rest.len());
    let (figures, suffix) = rest.split_at_checked(digits)?;
    let mut amount = figure(figures);
    let suffix = suffix.trim_start_matches('-').to_lowercase();
    // 1950's.
    let suffix = if suffix == "'s" { "s".to_owned() } else { suffix };
    if let (Some(value), Some(_)) = (amount.value, negative) {
        amount.value = Some(-value);
    }
    match suffix.as_str() {
        "" => parts.push(Part::Amount(amount)),
        "st" | "nd" | "rd" | "th" => parts.push(Part::Amount(Amount { ordinal: true, ..amount })),
        "am" | "pm" | "a.m" | "p.m" => parts.push(half_day(amount.value?, suffix.starts_with('p'))?),
        "k" | "bn" | "mn" | "mio" if figures != "401" => {
            let scale = match suffix.as_str() {
                "k" => 1e3,
                "bn" => 1e9,
                _ => 1e6,
            };
            parts.push(Part::Amount(Amount { value: amount.value.map(|value| value * scale), ..amount }));
        }
        other
            if other.chars().all(|c| {
                c.is_alphabetic() || matches!(c, '%' | '\u{b0}' | '\u{20ac}' | '\u{a3}' | '$' | '/')
            }) =>
        {
            parts.push(Part::Amount(amount));
            parts.push(Part::Word(other.to_owned()));
        }
        other if other.split('-').all(|word| word.chars().all(char::is_alphanumeric)) => {
            parts.push(Part::Amount(amount));
            parts.extend(
                other.split('-').filter(|word| !word.is_empty()).map(|word| Part::Word(word.to_owned())),
            );
        }
        _ => return None,
    }
    Some(parts)
}

/// Digits with decimal and thousands marks.
fn figure(text: &str) -> Amount {
    let text = text.trim_end_matches(['.', ',', '_']);
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let groups: Vec<&str> = plain.split(',').collect();
    let thousands = groups.len() > 1
        && groups.iter().skip(1).all(|group| group.split('.').next().is_some_and(|whole| whole.len() == 3));
    let unmarked = if thousands {
        plain.replace(',', "")
    } else if plain.matches(',').count() == 1 && !plain.contains('.') {
        plain.replace(',', ".")
    } else {
        plain
    };
    let digits = unmarked.chars().filter(char::is_ascii_digit).count();
    match unmarked.parse::<f64>() {
        Ok(value) if digits <= 15 => Amount::of(value),
        _ => Amount::literal(text),
    }
}

/// `15:00`, `3:30pm`.
fn clock(text: &str) -> Option<u32> {
    let (hours, rest) = text.split_once(':')?;
    let minutes = rest.get(..2)?;
    let hour: u32 = hours.parse().ok().filter(|hour| *hour < 25)?;
    let minute: u32 = minutes.parse().ok().filter(|minute| *minute < 60)?;
    match rest.get(2..)?.to_lowercase().as_str() {
        "" => Some(hour * 60 + minute),
        "am" | "a.m" => Some(hour % 12 * 60 + minute),
        "pm" | "p.m" => Some((hour % 12 + 12) * 60 + minute),
        _ => None,
    }
}

/// An hour with `am` or `pm`.
pub(super) fn half_day(hour: f64, afternoon: bool) -> Option<Part> {
    // Minutes may follow a point: 2.30 p.m.
    let (hours, minutes) = (1..=12_u32)
        .flat_map(|hours| (0..60_u32).map(move |minutes| (hours, minutes)))
        .find(|(hours, minutes)| (f64::from(*hours) + f64::from(*minutes) / 100.0 - hour).abs() < 1e-9)?;
    Some(Part::Time((hours % 12 + if afternoon { 12 } else { 0 }) * 60 + minutes))
}

/// A number word.
pub(super) fn word(text: &str) -> Option<Amount> {
    if let Some((_, value)) = CARDINALS.iter().find(|(name, _)| *name == text) {
        return Some(Amount { spelt: true, ..Amount::of(*value) });
    }
    let (_, value) = ORDINALS.iter().find(|(name, _)| *name == text)?;
    Some(Amount { spelt: true, ordinal: true, ..Amount::of(*value) })
}

/// A Roman numeral of two letters or more, in capitals.
pub(super) fn roman(text: &str) -> Option<Amount> {
    const NUMERALS: &[&str] = &[
        "II", "III", "IV", "VI", "VII", "VIII", "IX", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII",
        "XVIII",
    ];
    const VALUES: &[f64] =
        &[2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0];
    let (_, value) = NUMERALS.iter().zip(VALUES).find(|(numeral, _)| **numeral == text)?;
    Some(Amount::of(*value))
}

/// Joins number words that follow one another: twenty five, two hundred, forty million. None: they do
/// not join.
pub(super) fn join(first: &Amount, second: &Amount) -> Option<Amount> {
    let (left, right) = (first.value?, second.value?);
    if first.ordinal {
        return None;
    }
    if first.spelt && second.spelt && first.value == Some(1.0) && right < 1.0 {
        // One half.
        return Some(second.clone());
    }
    let spelt = first.spelt && second.spelt;
    let ends = |step: f64| left >= step && left % step == 0.0;
    // Twenty five, two hundred ten; in between a scale multiplies.
    let adds = (ends(10.0) && (20.0..100.0).contains(&left) && (1.0..10.0).contains(&right))
        || (ends(100.0) && right < 100.0);
    let joined = if second.spelt && right >= 100.0 && left < right {
        left * right
    } else if spelt && adds {
        left + right
    } else {
        return None;
    };
    Some(Amount { value: Some(joined), written: String::new(), ordinal: second.ordinal, spelt: true })
}

/// Fractions that are no dates.
const FRACTIONS: &[(&str, f64)] =
    &[("1/2", 0.5), ("1/3", 1.0 / 3.0), ("2/3", 2.0 / 3.0), ("1/4", 0.25), ("3/4", 0.75)];

const CARDINALS: &[(&str, f64)] = &[
    ("zero", 0.0),
    ("one", 1.0),
    ("two", 2.0),
    ("three", 3.0),
    ("four", 4.0),
    ("five", 5.0),
    ("six", 6.0),
    ("seven", 7.0),
    ("eight", 8.0),
    ("nine", 9.0),
    ("ten", 10.0),
    ("eleven", 11.0),
    ("twelve", 12.0),
    ("thirteen", 13.0),
    ("fourteen", 14.0),
    ("fifteen", 15.0),
    ("sixteen", 16.0),
    ("seventeen", 17.0),
    ("eighteen", 18.0),
    ("nineteen", 19.0),
    ("twenty", 20.0),
    ("thirty", 30.0),
    ("forty", 40.0),
    ("fifty", 50.0),
    ("sixty", 60.0),
    ("seventy", 70.0),
    ("eighty", 80.0),
    ("ninety", 90.0),
    ("hundred", 100.0),
    ("thousand", 1e3),
    ("million", 1e6),
    ("billion", 1e9),
    ("trillion", 1e12),
    ("dozen", 12.0),
    ("half", 0.5),
    ("twice", 2.0),
    ("thrice", 3.0),
    ("couple", 2.0),
    ("quarter", 0.25),
];

const ORDINALS: &[(&str, f64)] = &[
    ("first", 1.0),
    ("second", 2.0),
    ("third", 3.0),
    ("fourth", 4.0),
    ("fifth", 5.0),
    ("sixth", 6.0),
    ("seventh", 7.0),
    ("eighth", 8.0),
    ("ninth", 9.0),
    ("tenth", 10.0),
    ("eleventh", 11.0),
    ("twelfth", 12.0),
    ("thirteenth", 13.0),
    ("fifteenth", 15.0),
    ("twentieth", 20.0),
    ("thirtieth", 30.0),
    ("hundredth", 100.0),
    ("thousandth", 1e3),
];
