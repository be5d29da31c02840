//! What a `PromQL` query asks for, read by a small tokenizer: metrics with the labels that select them, and the labels by
//! which results are grouped.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

/// What a query names.
#[derive(Debug, Default)]
pub struct Query {
    pub metrics: Vec<Selector>,
    /// Labels of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`, and those that functions are given.
    pub grouped: Vec<String>,
}

/// A metric and what selects its series.
#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    /// Numbers, durations, operators, brackets.
    Sign(String),
}

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken = if first == '"' {
            let end = rest[1..].find('"').unwrap_or_else(|| panic!("an open string in {query}")) + 2;
            tokens.push(Token::Text(rest[1..end - 1].to_owned()));
            end
        } else if first.is_ascii_alphabetic() || first == '_' {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            let end = rest.find(|c| !name(c)).unwrap_or(rest.len());
            tokens.push(Token::Name(rest[..end].to_owned()));
            end
        } else if first == '[' {
            // A range: a duration, or a variable of Grafana's.
            rest.find(']').unwrap_or_else(|| panic!("an open range in {query}")) + 1
        } else if first.is_ascii_digit() {
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len())
        } else {
            let end = if ["=~", "!~", "!=", "==", ">=", "<="].iter().any(|sign| rest.starts_with(sign)) {
                2
            } else {
                1
            };
            tokens.push(Token::Sign(rest[..end].to_owned()));
            end
        };
        rest = rest[taken..].trim_start();
    }
    tokens
}

/// Reads a query. Fails the test where it is not of the kind written here.
pub fn read(query: &str) -> Query {
    const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    let tokens = tokens(query);
    let sign = |at: usize, wanted: &str| matches!(tokens.get(at), Some(Token::Sign(sign)) if sign == wanted);
    let name = |at: usize| match tokens.get(at) {
        Some(Token::Name(name)) => name.clone(),
        other => panic!("{other:?} where a name belongs in {query}"),
    };
    let mut read = Query::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Name(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        at += 1;
        if GROUPING.contains(&word.as_str()) && sign(at, "(") {
            at += 1;
            while !sign(at, ")") {
                read.grouped.push(name(at));
                at += if sign(at + 1, ",") { 2 } else { 1 };
            }
        } else if word == "label_values" {
            // Grafana's own: a metric, and the label whose values are wanted.
            let end = tokens.len() - 2;
            read.grouped.push(name(end));
            let inner = query[query.find('(').unwrap() + 1..query.rfind(',').unwrap()].to_owned();
            read.metrics.extend(self::read(&inner).metrics);
            break;
        } else if matches!(tokens.get(at), Some(Token::Name(next)) if GROUPING.contains(&next.as_str()))
            && !WORDS.contains(&word.as_str())
        {
            // An aggregation: `sum by (…)`.
        } else if !sign(at, "(") && !WORDS.contains(&word.as_str()) {
            let mut selector = Selector { metric: word.clone(), matchers: Vec::new() };
            if sign(at, "{") {
                at += 1;
                while !sign(at, "}") {
                    let (Some(Token::Sign(operator)), Some(Token::Text(value))) =
                        (tokens.get(at + 1), tokens.get(at + 2))
                    else {
                        panic!("no matcher at {:?} in {query}", tokens.get(at));
                    };
                    selector.matchers.push((name(at), operator.clone(), value.clone()));
                    at += if sign(at + 3, ",") { 4 } else { 3 };
                }
            }
            read.metrics.push(selector);
        }
    }
    read
}
