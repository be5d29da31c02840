//! Content codings for replies of the simulated upstream. Each encoder flushes after every piece, as a server
//! does that compresses a stream.
#![allow(clippy::unwrap_used, reason = "writing to memory does not fail")]

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use rejoinder::simulated::{Encoder, Encoding};

/// Every coding that the proxy decodes.
pub const ALL: [Encoding; 4] = [GZIP, DEFLATE, BROTLI, ZSTD];

/// RFC 1952
pub const GZIP: Encoding = Encoding { name: "gzip", start: gzip };

/// RFC 1950, which is what RFC 9110 §8.4.1.2 calls `deflate`
pub const DEFLATE: Encoding = Encoding { name: "deflate", start: deflate };

/// RFC 7932
pub const BROTLI: Encoding = Encoding { name: "br", start: brotli };

/// RFC 8878; each piece is a frame of its own, which decoders must read on from
pub const ZSTD: Encoding = Encoding { name: "zstd", start: zstd };

fn gzip() -> Encoder {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::default()));
    Box::new(move |piece| match piece {
        Some(piece) => {
            let encoder = encoder.as_mut().unwrap();
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
            std::mem::take(encoder.get_mut())
        }
        None => encoder.take().unwrap().finish().unwrap(),
    })
}

fn deflate() -> Encoder {
    let mut encoder = Some(ZlibEncoder::new(Vec::new(), Compression::default()));
    Box::new(move |piece| match piece {
        Some(piece) => {
            let encoder = encoder.as_mut().unwrap();
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
            std::mem::take(encoder.get_mut())
        }
        None => encoder.take().unwrap().finish().unwrap(),
    })
}

fn brotli() -> Encoder {
    let mut encoder = Some(brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22));
    Box::new(move |piece| match piece {
        Some(piece) => {
            let encoder = encoder.as_mut().unwrap();
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
            std::mem::take(encoder.get_mut())
        }
        None => encoder.take().unwrap().into_inner(),
    })
}

fn zstd() -> Encoder {
    Box::new(|piece| match piece {
        Some(piece) => ruzstd::encoding::compress_to_vec(piece, ruzstd::encoding::CompressionLevel::Fastest),
        None => Vec::new(),
    })
}

/// Bodies that are small and decode to far more than may be held, by content coding.
pub fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let zeros = vec![b' '; 8 << 20];
    let mut bombs: Vec<_> = ALL
        .iter()
        .map(|encoding| {
            let mut encode = (encoding.start)();
            // Half a gigabyte of one stream, or of one frame after another.
            let mut bomb = Vec::new();
            for _ in 0..8 {
                bomb.extend(encode(Some(&zeros)));
            }
            bomb.extend(encode(None));
            (encoding.name, bomb)
        })
        .collect();
    let gzip = bombs.iter().find(|(name, _)| *name == "gzip").unwrap().1.clone();
    bombs.push(("gzip", gzip.repeat(16)));
    // One frame with a window of `exponent`, and blocks that each repeat one byte 128 KiB times (RFC 8878 §3.1.1).
    let frame = |exponent: u8, blocks: usize| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (exponent - 10) << 3];
        for block in 0..blocks {
            let header = (128u32 << 10 << 3) | (1 << 1) | u32::from(block + 1 == blocks);
            frame.extend(&header.to_le_bytes()[..3]);
            frame.push(b' ');
        }
        frame
    };
    bombs.push(("zstd", frame(23, 8192)));
    bombs.push(("zstd", frame(27, 8192)));
    bombs.push(("zstd", frame(31, 8192)));
    // Skippable frames that claim to be far longer than they are, and a million empty ones.
    bombs.push(("zstd", b"\x50\x2a\x4d\x18\xff\xff\xff\xffx".to_vec()));
    bombs.push(("zstd", b"\x50\x2a\x4d\x18\0\0\0\0".repeat(100_000)));
    bombs
}
