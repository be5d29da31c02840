//! What an exact hit allocates, held to a number: a count does not depend on the machine or its load.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

mod support;

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{proxy, upstream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The most allocations that an exact hit may take: as many as a bare hyper server takes. `benches/profile.py` says where they
/// are.
const MOST: usize = 7;

const HITS: usize = 500;

/// What goes on beside the hits meanwhile may allocate so often: a tenth of one more each.
const BESIDE: usize = HITS / 10;

/// One request and its reply on a kept connection, into the same memory each time.
fn ask(connection: &mut TcpStream, request: &[u8], reply: &mut [u8]) -> usize {
    connection.write_all(request).unwrap();
    let mut read = 0;
    loop {
        read += connection.read(&mut reply[read..]).unwrap();
        let Some(head) = reply[..read].windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&reply[..head]).unwrap();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if read >= head + 4 + length.parse::<usize>().unwrap() {
            return read;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_hit_allocates_no_more_than_it_did() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    let body = r#"{"model": "llama3.2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\nuser-agent: tests\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = proxy.address();
    let count = tokio::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_nodelay(true).unwrap();
        let mut reply = vec![0; 1 << 16];
        for _ in 0..HITS {
            ask(&mut connection, request.as_bytes(), &mut reply);
        }
        let region = Region::new(ALLOCATOR);
        let mut read = 0;
        for _ in 0..HITS {
            read = ask(&mut connection, request.as_bytes(), &mut reply);
        }
        let change = region.change();
        let text = String::from_utf8_lossy(&reply[..read]);
        assert!(text.contains("; hit; "), "{text}");
        change.allocations + change.reallocations
    });
    let each = count.await.unwrap().saturating_sub(BESIDE).div_ceil(HITS);
    println!("{each} allocations an exact hit");
    assert!(each <= MOST, "{each} allocations an exact hit, and no more than {MOST} are allowed");
}
