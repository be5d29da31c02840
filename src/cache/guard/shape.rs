//! The shapes of what stands between blanks: contractions, sentence marks, addresses, code.
//!
//! Called by [`super::scan`].

/// Words behind which `'s` is `is` rather than a possessive.
pub(super) const IS_AFTER: &[&str] =
    &["what", "who", "where", "when", "how", "why", "it", "that", "there", "here", "he", "she"];

/// Contractions that no rule of suffixes covers, and frequent spellings without the apostrophe.
pub(super) const CONTRACTIONS: &[(&str, &str)] = &[
    ("can't", "can not"),
    ("cannot", "can not"),
    ("cant", "can not"),
    ("won't", "will not"),
    ("wont", "will not"),
    ("shan't", "shall not"),
    ("ain't", "is not"),
    ("dont", "do not"),
    ("doesnt", "does not"),
    ("didnt", "did not"),
    ("isnt", "is not"),
    ("arent", "are not"),
    ("wasnt", "was not"),
    ("werent", "were not"),
    ("havent", "have not"),
    ("hasnt", "has not"),
    ("shouldnt", "should not"),
    ("couldnt", "could not"),
    ("wouldnt", "would not"),
    ("whats", "what is"),
    ("hows", "how is"),
    ("wheres", "where is"),
    ("whos", "who is"),
    ("im", "i am"),
    ("ive", "i have"),
    ("thats", "that is"),
    ("lets", "let us"),
    ("let's", "let us"),
    ("gonna", "going to"),
    ("wanna", "want to"),
    ("gotta", "got to"),
    ("w/o", "without"),
    ("u", "you"),
    ("ur", "your"),
    ("teh", "the"),
];

/// Shorthand that is written with digits or a slash and is neither a number nor a choice.
const SHORTHAND: &[(&str, &str)] = &[
    ("w/o", "without"),
    ("w/out", "without"),
    ("w/", "with"),
    ("w/in", "within"),
    ("b/c", "because"),
    ("b/w", "between"),
    ("b4", "before"),
    ("xcept", "except"),
    ("excpt", "except"),
    ("4ever", "forever"),
    ("2day", "today"),
    ("2nite", "tonight"),
    ("2moro", "tomorrow"),
    ("in2", "into"),
    ("24/7", "always"),
    ("and/or", "or"),
];

/// What shorthand is short for.
pub(super) fn shorthand(core: &str) -> Option<&'static str> {
    let lower = core.to_lowercase();
    SHORTHAND.iter().find(|(short, _)| *short == lower).map(|(_, full)| *full)
}

/// Year, name of the month and day of `2021-03-04`.
pub(super) fn iso_date(core: &str) -> Option<(&str, &'static str, &str)> {
    let (year, rest) = core.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return None;
    }
    let number: usize = month.parse().ok()?;
    MONTHS.get(number.checked_sub(1)?).map(|month| (year, *month, day))
}

/// The months in full.
pub(super) const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Takes sentence marks and lone brackets off a chunk; the flag tells whether a sentence or clause ends there.
pub(super) fn trim(chunk: &str) -> (&str, bool) {
    // Nothing people write is longer; a run of brackets would cost its square.
    const LONGEST: usize = 256;
    if chunk.len() > LONGEST {
        return (chunk, false);
    }
    let mut core = chunk;
    let mut ends = false;
    loop {
        let before = core;
        for (open, close) in [('(', ')'), ('[', ']'), ('{', '}')] {
            let (opened, closed) = (core.matches(open).count(), core.matches(close).count());
            if core.starts_with(open)
                && (opened > closed || (core.ends_with(close) && opened == 1 && core.len() > 2))
            {
                core = core.get(1..).unwrap_or_default();
            }
            if core.ends_with(close) && core.matches(close).count() > core.matches(open).count() {
                core = core.get(..core.len() - 1).unwrap_or_default();
            }
        }
        if let Some(shorter) =
            core.strip_suffix(['.', '!', '?', ':', ';', '\u{2026}', '\u{3002}', '\u{ff1f}', '\u{ff01}'])
        {
            if !is_dotted(core) {
                ends = true;
            }
            core = shorter;
        } else if let Some(shorter) = core.strip_suffix([',', '\u{3001}', '\u{ff0c}', '\'', '"']) {
            core = shorter;
        }
        core = core.strip_prefix(['\'', '"', '\u{bf}', '\u{a1}']).unwrap_or(core);
        if core == before {
            return (core, ends);
        }
    }
}

/// Whether the last dot belongs to an abbreviation.
fn is_dotted(chunk: &str) -> bool {
    let lower = chunk.to_lowercase();
    [
        "a.m.", "p.m.", "u.s.", "u.k.", "e.g.", "i.e.", "mt.", "st.", "dr.", "mr.", "mrs.", "ms.", "vs.",
        "no.", "approx.",
    ]
    .contains(&lower.as_str())
}

/// Top-level domains that mark a bare host name.
const DOMAINS: &[&str] = &[
    "com", "org", "net", "edu", "gov", "io", "dev", "ai", "app", "co", "info", "de", "uk", "fr", "eu", "jp",
    "cn", "ru", "in",
];

/// Endings that mark a bare file name.
const FILES: &[&str] = &[
    "txt", "py", "rs", "js", "ts", "jsx", "tsx", "java", "c", "h", "cpp", "cs", "go", "rb", "php", "sh",
    "sql", "csv", "json", "yaml", "yml", "toml", "xml", "html", "css", "md", "pdf", "docx", "xlsx", "png",
    "jpg", "jpeg", "gif", "zip", "gz", "tar", "log", "exe", "dll", "so", "conf", "ini", "env", "lock",
    "ipynb",
];

pub(super) fn is_address(core: &str) -> bool {
    if core.contains("://") || core.starts_with("www.") {
        return true;
    }
    if let Some((user, host)) = core.split_once('@') {
        return !user.is_empty() && host.contains('.');
    }
    if core.len() > 1
        && (core.starts_with('/')
            || core.starts_with("./")
            || core.starts_with("../")
            || core.starts_with("~/"))
    {
        return true;
    }
    if core.get(1..3) == Some(":\\") || core.starts_with("\\\\") {
        return true;
    }
    let plain = core.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    let last = core.rsplit('.').next().unwrap_or_default();
    let named = plain
        && core.starts_with(char::is_alphanumeric)
        && core.contains('.')
        && !core.starts_with(|c: char| c.is_ascii_digit());
    if named && core.contains('/') {
        return true;
    }
    // "Node.js" and its like are products, written with a capital.
    let lower = core.to_lowercase();
    let product = [
        "node.js",
        "next.js",
        "vue.js",
        "react.js",
        "express.js",
        "nuxt.js",
        "three.js",
        "d3.js",
        "asp.net",
        "vb.net",
    ];
    named
        && !product.contains(&lower.as_str())
        && (DOMAINS.contains(&last) || FILES.contains(&last))
        && core.len() > last.len() + 2
}

pub(super) fn is_code(core: &str) -> bool {
    let lower = core.to_lowercase();
    if matches!(lower.as_str(), "c++" | "c#" | "f#" | "at&t" | "r&d" | "q&a" | "w/o" | "tl;dr") {
        return false;
    }
    if core.starts_with("--") || (core.starts_with('-') && core.len() > 1) {
        return true;
    }
    core.contains("::") || core.contains(|c: char| "_()[]{}=<>;\\^*|+#$@~\"".contains(c))
}
