//! An error with its causes in one line: the first often says no more than "client error".
//!
//! Called by whoever speaks to another server and has to say why that failed.

use std::error::Error;

/// An error and its causes, outermost first.
pub(crate) fn causes(error: &dyn Error) -> String {
    let chain = std::iter::successors(Some(error), |&error: &&dyn Error| {
        error.source().map(|source| source as &dyn Error)
    });
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct NoAnswer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_said() {
        assert_eq!(causes(&NoAnswer(std::io::Error::other("refused"))), "no answer: refused");
    }
}
