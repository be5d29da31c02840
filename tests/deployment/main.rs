//! The files of deploy/ and the packages, held to what the program does.

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod files;
mod load_balancer;
mod packaging;
