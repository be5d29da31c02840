//! OpenAI's endpoints (<https://platform.openai.com/docs/api-reference>), as its official clients and the
//! servers that imitate it use them.

pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod responses;
