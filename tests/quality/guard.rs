//! The look-alike guard over labelled pairs, and what must hold for any two prompts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rejoinder::cache::guard::{self, Leaning, Rule, compare, exact_only};
use rejoinder::eval::pairs::{Format, Pair, read};

const SUITE: &str = include_str!("pairs.csv");
const RULES: &str = include_str!("rules.csv");
const GUARD: &str = include_str!("guard.csv");

fn pairs(file: &str) -> Vec<Pair> {
    let read = read(file.as_bytes(), Some(Format::Csv)).unwrap();
    assert_eq!(read.bad, []);
    read.pairs
}

/// Share of each group (the part of the kind before the underscore) that the guard lets pass.
#[test]
fn suite_keeps_its_floors_and_ceilings() {
    let mut groups: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for pair in pairs(SUITE) {
        let group = pair.kind.split('_').next().unwrap().to_owned();
        let entry = groups.entry(group).or_default();
        entry.0 += 1.0;
        entry.1 += f64::from(u8::from(compare(&pair.a, &pair.b).is_alike()));
    }
    let share = |group: &str| groups[group].1 / groups[group].0;
    assert!(share("surface") >= 0.95, "surface {}", share("surface"));
    assert!(share("para") >= 0.90, "para {}", share("para"));
    assert!(share("hard") <= 0.03, "hard {}", share("hard"));
    assert!(share("cross") <= 0.04, "cross {}", share("cross"));
}

/// No kind of look-alike may be a hole behind a good average.
#[test]
fn every_kind_of_look_alike_is_stopped_mostly() {
    let mut kinds: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for pair in pairs(SUITE).into_iter().filter(|pair| !pair.same) {
        let entry = kinds.entry(pair.kind.clone()).or_default();
        entry.0 += 1;
        entry.1 += u32::from(compare(&pair.a, &pair.b).is_alike());
    }
    for (kind, (all, passed)) in kinds {
        assert!(passed * 2 <= all, "{kind}: {passed} of {all} pass");
    }
}

#[test]
fn each_rule_stops_its_pairs_and_passes_its_paraphrases() {
    let mut wrong = Vec::new();
    for pair in pairs(RULES) {
        let verdict = compare(&pair.a, &pair.b);
        if verdict.is_alike() != pair.same {
            wrong.push(format!("{}: {:?} {:?} gave {verdict:?}", pair.kind, pair.a, pair.b));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What only a soft rule stops is no veto, so it passes here.
#[test]
fn each_certain_rule_vetoes_its_pairs_and_no_paraphrase_of_them() {
    let mut wrong = Vec::new();
    let mut rows = BTreeMap::new();
    for row in csv::Reader::from_reader(GUARD.as_bytes()).deserialize::<(String, String, String, String)>() {
        let (name, expected, a, b) = row.unwrap();
        let rule = Rule::from_name(&name).unwrap();
        let certain = compare(&a, &b).certain;
        let stops = expected == "stop";
        assert!(stops || expected == "pass", "{expected}");
        *rows.entry((rule, stops)).or_insert(0) += 1;
        if certain != stops.then_some(rule) {
            wrong.push(format!("{name} {expected}: {a:?} {b:?} gave {certain:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for rule in Rule::ALL.iter().filter(|rule| rule.is_certain()) {
        for stops in [true, false] {
            assert!(rows.get(&(*rule, stops)).is_some_and(|count| *count >= 4), "{rule} {stops}");
        }
    }
}

#[test]
fn the_rule_that_speaks_is_the_one_that_applies() {
    for (a, b, rule) in [
        ("Name 5 rivers", "Name 6 rivers", Rule::Number),
        ("Set a timer of 10 minutes", "Set a timer of 10 seconds", Rule::Unit),
        ("Is it open on Monday?", "Is it open on Friday?", Rule::Date),
        ("Install Redis 7.2.1", "Install Redis 7.2.4", Rule::Version),
        ("Which plants like shade?", "Which plants do not like shade?", Rule::Negation),
        ("Sort the list in ascending order", "Sort the list in descending order", Rule::Antonym),
        ("Trains from Lyon to Nice", "Trains from Nice to Lyon", Rule::Direction),
        ("The fastest animal", "The heaviest animal", Rule::Comparative),
        ("What may a landlord ask for?", "What may a tenant ask for?", Rule::Role),
        ("The capital of Chad", "The capital of Mali", Rule::Entity),
        ("Spell \"stationary\"", "Spell \"stationery\"", Rule::Quoted),
        ("Explain `rm -r`", "Explain `rm -f`", Rule::Code),
        ("Read https://a.example/x", "Read https://a.example/y", Rule::Address),
        ("Reverse a string in Ruby", "Reverse a string in PHP", Rule::ProgrammingLanguage),
        ("Say hello in Swahili", "Say hello in Zulu", Rule::HumanLanguage),
        ("List the seas as JSON", "List the seas as YAML", Rule::Format),
        ("Explain tides briefly", "Explain tides in detail", Rule::Length),
        ("Is the shop closed?", "Was the shop closed?", Rule::Tense),
        ("Who built the Colosseum?", "When was the Colosseum built?", Rule::Aspect),
    ] {
        assert_eq!(compare(a, b).first(), Some(rule), "{a:?} {b:?}");
    }
}

#[test]
fn prompts_that_lean_on_what_they_do_not_say() {
    for (prompt, leaning) in [
        ("continue", Leaning::Context),
        ("Why?", Leaning::Context),
        ("What about the second one?", Leaning::Context),
        ("Can you elaborate, please?", Leaning::Context),
        ("Is this sentence grammatically correct?", Leaning::Context),
        ("Quick question: is this sentence correct?", Leaning::Context),
        ("Hi there,\n\nis this sentence correct?", Leaning::Context),
        ("Can anyone help me with this physics problem?", Leaning::Context),
        ("What will be the output of the following program?", Leaning::Context),
        ("Which sentence below is correct?", Leaning::Context),
        ("What is the fallacy of the following?", Leaning::Context),
        ("Summarize the following text:", Leaning::Context),
        ("Summarize this article in 3 sentences", Leaning::Context),
        ("What is the weather in Oslo?", Leaning::Moment),
        ("Who is in the news today?", Leaning::Moment),
        ("What is the latest version of Go?", Leaning::Moment),
        ("What should I wear this month?", Leaning::Moment),
        ("\"continue\"", Leaning::Context),
        ("Please show my invoices", Leaning::Person),
        ("Why was my payment rejected?", Leaning::Person),
        ("Where is the nearest pharmacy?", Leaning::Person),
        ("Give me another example", Leaning::Variety),
        ("Where is my order?", Leaning::Person),
        ("When will my package arrive?", Leaning::Person),
        ("Tell me another joke", Leaning::Variety),
        ("Give me a random number", Leaning::Variety),
        ("Flip a coin", Leaning::Variety),
    ] {
        assert_eq!(exact_only(prompt), Some(leaning), "{prompt:?}");
    }
    for prompt in [
        "What does 'today' mean?",
        "Make this polite: 'I can't come tonight, it's my last day.'",
        "Where should my commas go in \"The latest news, today\"?",
        "Rank Mars, Venus and Earth from nearest to farthest from the sun",
        "How do I generate a random integer in C#?",
        "Move a folder into another directory in Linux",
        "Merge two dicts in Python so that the second one wins for keys that both have",
        "What was your first job?",
        "Fix the author of the latest commit in git",
        "Is my bread done when it sounds hollow?",
        "What is a random forest?",
        "Why does my PC randomly restart?",
        "If I roll two dice, what is the probability of a sum of 7?",
        "Generate a UUID in Go",
        "Explain k nearest neighbors",
        "Which planet is nearest to the sun?",
        "What is the nearest star to the sun?",
        "Who wrote the Beatles song Yesterday?",
        "How do I update Node to the latest version?",
        "In SQL, get the latest row per customer",
        "Why is Shakespeare still relevant today?",
        "What is the capital of France?",
        "How do I track my order?",
        "How do I change my password?",
        "Explain why the sky is blue",
        "What does it mean when a dog yawns?",
        "What is the time complexity of quicksort?",
        "How many days are left until Easter if today is March 1?",
        "Translate the following sentence to German: The train is late.",
        "Put this text into French: The train is late.",
        "Solve this equation for x, 3x + 5 = 20",
        "Find the largest element in a given list",
        "Check if a given word is a palindrome",
        "How do I open attached files in Outlook?",
        "Fix this code: `print(x`",
        "Make this function faster:\ndef f(n):\n    return f(n - 1)",
        "Classify the sentiment of this review \"The food was cold\"",
        "Can I take this medicine with alcohol?",
        "How do I write a good cover letter?",
        "",
    ] {
        assert_eq!(exact_only(prompt), None, "{prompt:?}");
    }
}

#[test]
fn names_of_rules_are_stable_and_distinct() {
    for rule in Rule::ALL {
        assert_eq!(Rule::from_name(rule.name()), Some(*rule));
        assert!(rule.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    }
    for leaning in Leaning::ALL {
        assert_eq!(Leaning::from_name(leaning.name()), Some(*leaning));
    }
}

#[test]
fn long_prompts_that_differ_at_the_end_differ() {
    let text = "the quick brown fox jumps over the lazy dog and runs away ".repeat(2_000);
    assert_eq!(compare(&format!("{text} 41"), &format!("{text} 42")).certain, Some(Rule::Number));
    let other = (0..5_000).map(|number| format!("word{number}")).collect::<Vec<_>>().join(" ");
    assert!(!compare(&text, &other).is_alike());
}

/// Inputs made to be slow where the work grows with the square of the length; 128 KiB each.
#[test]
fn hostile_prompts_cost_no_more_than_their_length() {
    for piece in [
        "not x ",
        "( ",
        "((((",
        "`",
        "\"",
        "\u{ab}",
        "\u{201e}",
        "' a",
        "1-",
        "1 ",
        "`a` ",
        "a-",
        "free x ",
        "\u{4e2d}",
        "from a to b ",
        "if ",
    ] {
        let long = piece.repeat((1 << 17) / piece.len());
        let other = format!("{long} end");
        let _ = compare(&long, &other);
        let _ = compare(&other, "What is the capital of France?");
        let _ = exact_only(&long);
    }
}

fn prompt() -> impl Strategy<Value = String> {
    let suite: Vec<String> = pairs(SUITE).into_iter().flat_map(|pair| [pair.a, pair.b]).collect();
    prop_oneof![4 => proptest::sample::select(suite), 1 => any::<String>(), 1 => "[a-zA-Z0-9 '\"`.,/$%€:-]{0,60}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_prompt_is_alike_with_itself(prompt in prompt()) {
        prop_assert!(compare(&prompt, &prompt).is_alike());
        let prepared = (guard::Prepared::new(&prompt), guard::Prepared::new(&prompt));
        prop_assert!(prepared.0.compare(&prepared.1).is_alike());
    }

    #[test]
    fn comparing_is_symmetric(one in prompt(), other in prompt()) {
        prop_assert_eq!(compare(&one, &other), compare(&other, &one));
    }

    #[test]
    fn labelled_pairs_are_judged_symmetrically(number in 0_usize..438) {
        let pair = &pairs(SUITE)[number];
        prop_assert_eq!(compare(&pair.a, &pair.b), compare(&pair.b, &pair.a));
    }

    /// A number that neither prompt has, on one side only, always tells them apart: it never helps.
    #[test]
    fn a_number_on_one_side_never_helps(number in 0_usize..438, added in 70_001_u32..79_999) {
        let pair = &pairs(SUITE)[number];
        let longer = format!("{} {added}", pair.a);
        prop_assert!(!compare(&longer, &pair.b).is_alike());
        prop_assert!(!compare(&pair.b, &longer).is_alike());
        // Behind indented code it is part of the code.
        let rule = if pair.a.contains('\n') { Rule::Code } else { Rule::Number };
        for certain in [compare(&longer, &pair.a).certain, compare(&pair.a, &longer).certain] {
            prop_assert!(certain == Some(rule) || certain == Some(Rule::Number), "{certain:?}");
        }
    }

    #[test]
    fn politeness_says_nothing(number in 0_usize..438) {
        let prompt = &pairs(SUITE)[number].a;
        // Behind indented code, a word is part of the code.
        prop_assume!(!prompt.contains('\n'));
        let polite = format!("Hello! {prompt} Thanks a lot!");
        prop_assert!(compare(prompt, &polite).is_alike());
    }

    #[test]
    fn nothing_panics(one in any::<String>(), other in any::<String>()) {
        let _ = compare(&one, &other);
        let _ = exact_only(&one);
    }
}
