//! Labelled pairs as people write them down: CSV (RFC 4180) with a header, or one JSON object a line.
//!
//! Called by `cli::eval`. A line that is no pair is named by its number and the reason, and the rest is read.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Deserializer};

/// A labelled pair of prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The prompt whose reply is stored.
    pub a: String,
    /// The prompt that is asked.
    pub b: String,
    /// Whether one reply answers both.
    pub same: bool,
    /// What kind of pair it is; empty where the file does not say.
    pub kind: String,
    /// Where it comes from; empty where the file does not say.
    pub source: String,
    /// The line on which it begins, from 1.
    pub line: u64,
}

/// A line that is no pair.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BadLine {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Why it is none.
    pub reason: String,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct PairFile {
    /// The pairs, in their order.
    pub pairs: Vec<Pair>,
    /// The lines that are none, in theirs.
    pub bad: Vec<BadLine>,
}

/// How pairs are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values, the first line naming the columns `a`, `b`, `label` and, where there are, `kind`
    /// and `source`, in any order; others are ignored
    Csv,
    /// One JSON object a line, with the same names
    Jsonl,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum PairsError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// A column is missing, or there twice.
    #[error("line 1: {0}; the first line must name the columns a, b and label")]
    Header(String),
}

impl Format {
    /// The format that a file's name tells, if it does.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// Reads all pairs. Without a format, a text that begins with a brace is taken for JSON lines, else for CSV.
pub fn read(input: impl Read, format: Option<Format>) -> Result<PairFile, PairsError> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    let first = input.fill_buf()?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let guessed = if first == Some(b'{') { Format::Jsonl } else { Format::Csv };
    match format.unwrap_or(guessed) {
        Format::Csv => csv(input),
        Format::Jsonl => json_lines(input),
    }
}

impl PairFile {
    fn take(&mut self, line: u64, pair: Result<Pair, String>) {
        match pair.and_then(checked) {
            Ok(pair) => self.pairs.push(pair),
            Err(reason) => self.bad.push(BadLine { line, reason }),
        }
    }
}

fn checked(pair: Pair) -> Result<Pair, String> {
    for (name, prompt) in [("a", &pair.a), ("b", &pair.b)] {
        if prompt.trim().is_empty() {
            return Err(format!("{name} is empty"));
        }
    }
    Ok(pair)
}

/// Where the columns are.
struct Columns {
    a: usize,
    b: usize,
    label: usize,
    kind: Option<usize>,
    source: Option<usize>,
}

impl Columns {
    fn of(header: &csv::ByteRecord) -> Result<Self, PairsError> {
        let find = |name: &str| {
            let mut found = header
                .iter()
                .enumerate()
                .filter(|(_, field)| field.trim_ascii().eq_ignore_ascii_case(name.as_bytes()));
            let first = found.next().map(|(at, _)| at);
            match found.next() {
                Some(_) => Err(PairsError::Header(format!("the column {name} is there twice"))),
                None => Ok(first),
            }
        };
        let need = |name: &str| {
            find(name)?.ok_or_else(|| PairsError::Header(format!("the column {name} is missing")))
        };
        Ok(Self {
            a: need("a")?,
            b: need("b")?,
            label: need("label")?,
            kind: find("kind")?,
            source: find("source")?,
        })
    }

    fn pair(&self, record: &csv::ByteRecord, line: u64) -> Result<Pair, String> {
        let text = |at: usize, name: &str| {
            let field = record
                .get(at)
                .ok_or_else(|| format!("it has {} fields, and {name} is field {}", record.len(), at + 1))?;
            std::str::from_utf8(field).map(str::to_owned).map_err(|_| format!("{name} is not UTF-8"))
        };
        let optional = |at: Option<usize>, name| at.map_or_else(|| Ok(String::new()), |at| text(at, name));
        Ok(Pair {
            a: text(self.a, "a")?,
            b: text(self.b, "b")?,
            same: label(&text(self.label, "label")?)?,
            kind: optional(self.kind, "kind")?,
            source: optional(self.source, "source")?,
            line,
        })
    }
}

fn csv(mut input: impl Read) -> Result<PairFile, PairsError> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(bytes.as_slice());
    let mut record = csv::ByteRecord::new();
    let mut read = PairFile::default();
    if !next(&mut reader, &mut record)? {
        return Err(PairsError::Header("the file is empty".to_owned()));
    }
    let columns = Columns::of(&record)?;
    let mut lines = Lines { bytes: &bytes, at: 0, line: 1 };
    while next(&mut reader, &mut record)? {
        let line = lines.of(&record);
        read.take(line, columns.pair(&record, line));
    }
    Ok(read)
}

fn next<R: Read>(reader: &mut csv::Reader<R>, record: &mut csv::ByteRecord) -> io::Result<bool> {
    reader.read_byte_record(record).map_err(io::Error::from)
}

/// Counts lines. A record's own position is where the one before ended, which is a line too early behind CRLF
/// and blank lines.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    fn of(&mut self, record: &csv::ByteRecord) -> u64 {
        let end = record.position().and_then(|position| usize::try_from(position.byte()).ok());
        let end = end.unwrap_or(self.at);
        while let Some(byte) = self.bytes.get(self.at) {
            if self.at >= end && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(*byte == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// What is read of a line of JSON.
#[derive(Deserialize)]
struct Line {
    a: String,
    b: String,
    label: Label,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    source: Option<String>,
}

struct Label(bool);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        label(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

fn json_lines(mut input: impl BufRead) -> Result<PairFile, PairsError> {
    let mut read = PairFile::default();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let pair = serde_json::from_slice::<Line>(&bytes).map_err(|error| reason(&error));
        read.take(
            line,
            pair.map(|pair| Pair {
                a: pair.a,
                b: pair.b,
                same: pair.label.0,
                kind: pair.kind.unwrap_or_default(),
                source: pair.source.unwrap_or_default(),
                line,
            }),
        );
    }
    Ok(read)
}

/// The reason without its place: that is in the line, whose number stands before it.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    if error.is_data() { text.to_owned() } else { format!("no JSON object: {text}") }
}

fn label(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => {
            let shown: String = text.chars().take(40).collect();
            Err(format!("label {shown:?} is neither 1 nor 0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(a: &str, b: &str, same: bool, line: u64) -> Pair {
        Pair { a: a.into(), b: b.into(), same, kind: String::new(), source: String::new(), line }
    }

    #[test]
    fn columns_stand_in_any_order_and_fields_hold_what_they_like() {
        let text = "\u{feff}Label ,x,b,kind,a\r\n1,-,\"two\nlines\",para,\"say \"\"hi\"\", now\"\r\n\r\nfalse,,q,,p\r\n";
        let read = read(text.as_bytes(), None).unwrap();
        assert_eq!(read.bad, []);
        let first = Pair { kind: "para".into(), ..pair("say \"hi\", now", "two\nlines", true, 2) };
        assert_eq!(read.pairs[0], first);
        assert_eq!((read.pairs[1].a.as_str(), read.pairs[1].same, read.pairs[1].line), ("p", false, 5));
    }

    #[test]
    fn a_line_of_json_has_the_same_names() {
        let text = "{\"a\": \"x\", \"b\": \"y\", \"label\": 1, \"more\": []}\n\n{\"label\": false, \"b\": \"q\", \"a\": \"p\"}";
        let read = read(text.as_bytes(), None).unwrap();
        assert_eq!(read.bad, []);
        assert_eq!(read.pairs, [pair("x", "y", true, 1), pair("p", "q", false, 3)]);
    }

    #[test]
    fn a_bad_line_is_named_with_its_reason() {
        let text = b"a,b,label\nx,y\nx,y,maybe\n ,y,1\n\xff,y,1\nx,y,0\n";
        let csv = read(&text[..], Some(Format::Csv)).unwrap();
        assert_eq!(csv.pairs, [pair("x", "y", false, 6)]);
        let bad: Vec<_> = csv.bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
        assert_eq!(
            bad,
            [
                (2, "it has 2 fields, and label is field 3"),
                (3, "label \"maybe\" is neither 1 nor 0"),
                (4, "a is empty"),
                (5, "a is not UTF-8"),
            ]
        );
        let text = "{\"a\": \"x\", \"b\": \"y\"}\n[\n{\"a\": 1, \"b\": \"y\", \"label\": 1}\n{\"a\": \"x\", \"b\": \"y\", \"label\": 2}";
        let json = read(text.as_bytes(), Some(Format::Jsonl)).unwrap();
        let bad: Vec<_> = json.bad.iter().map(|bad| (bad.line, bad.reason.as_str())).collect();
        assert_eq!(bad[0], (1, "missing field `label`"));
        assert_eq!(bad[1].0, 2);
        assert!(bad[1].1.starts_with("no JSON object: "), "{bad:?}");
        assert_eq!(bad[2], (3, "invalid type: integer `1`, expected a string"));
        assert_eq!(bad[3], (4, "label \"2\" is neither 1 nor 0"));
    }

    #[test]
    fn a_header_without_its_columns_is_an_error() {
        for (text, reason) in [
            ("", "the file is empty"),
            ("a,label\n", "the column b is missing"),
            ("a,b,A,label\n", "the column a is there twice"),
        ] {
            let error = read(text.as_bytes(), Some(Format::Csv)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_name_tells_the_format() {
        assert_eq!(Format::of_path(Path::new("x/PAIRS.CSV")), Some(Format::Csv));
        assert_eq!(Format::of_path(Path::new("pairs.ndjson")), Some(Format::Jsonl));
        assert_eq!(Format::of_path(Path::new("-")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), jsonl in any::<bool>()) {
            let format = if jsonl { Format::Jsonl } else { Format::Csv };
            let _ = read(bytes.as_slice(), Some(format));
            let with_header = [b"a,b,label\n".as_slice(), &bytes].concat();
            let _ = read(with_header.as_slice(), Some(Format::Csv));
        }

        #[test]
        fn what_is_written_is_read(a in "\\PC*[a-z]\\PC*", b in "[ -~\n\"]*[a-z]", same in any::<bool>()) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["a", "b", "label"]).unwrap();
            writer.write_record([a.as_str(), b.as_str(), if same { "1" } else { "0" }]).unwrap();
            let bytes = writer.into_inner().unwrap();
            prop_assert_eq!(read(bytes.as_slice(), None).unwrap().pairs, [pair(&a, &b, same, 2)]);
        }
    }
}
