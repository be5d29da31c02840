//! An error with its causes in one line: the first often says no more than "client error".
//!
//! Called by whoever speaks to another server and has to say why that failed.

use std::error::Error;

/// An error and its causes, outermost first. One that an error before it has said already is not said again.
pub(crate) fn causes(error: &dyn Error) -> String {
    let chain = std::iter::successors(Some(error), |&error: &&dyn Error| {
        error.source().map(|source| source as &dyn Error)
    });
    chain.map(ToString::to_string).fold(String::new(), |mut said, cause| {
        if said.is_empty() {
            return cause;
        }
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
        said
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct NoAnswer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot be read: {0}")]
    struct Unreadable(#[source] std::io::Error);

    #[test]
    fn every_cause_is_said_once() {
        assert_eq!(causes(&NoAnswer(std::io::Error::other("refused"))), "no answer: refused");
        assert_eq!(causes(&Unreadable(std::io::Error::other("gone"))), "cannot be read: gone");
    }
}
