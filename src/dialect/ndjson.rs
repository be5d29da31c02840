//! NDJSON, one JSON document a line (<https://github.com/ndjson/ndjson-spec>): bytes to lines.
//!
//! Called by the Ollama dialect, to gather a stream. Lines are found in the bytes as they lie together, so it
//! does not matter where they were cut on their way, even inside a character.

/// A line with something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Its bytes, without the line break and without blanks around them.
    pub(crate) bytes: &'a [u8],
    /// Whether a line break ended it. The last line of a stream that was cut has none.
    pub(crate) ended: bool,
}

/// The lines of `body` that are not blank. A line ends with LF or CRLF; the last one may end with the body.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    body.split_inclusive(|byte| *byte == b'\n')
        .map(|line| Line { bytes: line.trim_ascii(), ended: line.ends_with(b"\n") })
        .filter(|line| !line.bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(body: &str) -> Vec<(&str, bool)> {
        lines(body.as_bytes()).map(|line| (std::str::from_utf8(line.bytes).unwrap(), line.ended)).collect()
    }

    #[test]
    fn lines_end_with_lf_or_crlf_and_blank_ones_do_not_count() {
        assert_eq!(found("{}\n[1]\r\n\r\n \t\n{}\n"), [("{}", true), ("[1]", true), ("{}", true)]);
        assert_eq!(found("{}\n{\"cut"), [("{}", true), ("{\"cut", false)]);
        assert_eq!(found(""), []);
        assert_eq!(found("\n\n"), []);
    }

    proptest! {
        #[test]
        fn every_line_is_found(all in prop::collection::vec("[^\\s\\p{Cc}]{1,20}", 0..20), crlf: bool) {
            let end = if crlf { "\r\n" } else { "\n" };
            let body: String = all.iter().flat_map(|line| [line.as_str(), end]).collect();
            prop_assert_eq!(found(&body), all.iter().map(|line| (line.as_str(), true)).collect::<Vec<_>>());
        }
    }
}
