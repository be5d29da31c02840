//! OpenAI's endpoints (<https://platform.openai.com/docs/api-reference>), as its official clients and the
//! servers that imitate it use them.
//!
//! One file an endpoint; [`request`] and [`reply`] hold what they share, [`borrowed`] a document as it is judged, [`fold`] and
//! [`chunks`] what the two endpoints with streams of chunks share, [`usage`] the usage that the proxy asks for on a client's
//! behalf.

mod borrowed;
pub mod chat;
mod chunks;
pub mod completions;
pub mod embeddings;
mod fold;
mod reply;
mod request;
mod response_events;
pub mod responses;
#[cfg(test)]
mod tests;
pub mod usage;
