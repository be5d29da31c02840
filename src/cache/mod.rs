//! The heart of the program, free of HTTP: what is one and the same question, and when an
//! earlier reply may answer a new one.

pub mod guard;
