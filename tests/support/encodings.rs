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
