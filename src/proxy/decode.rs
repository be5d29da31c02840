//! Content codings (RFC 9110 §8.4.1) undone, for storing what was relayed as it came.
//!
//! Called by [`super::fetch`]. Output is bounded: a small body may decode to a very large one.

use std::io::Read;

use bytes::Bytes;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// Why a body is not decoded, and so not stored.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A coding that is not known here, or several.
    #[error("content coding {0:?} is not decoded here")]
    Unknown(String),
    /// Not of the coding it claims, or cut short.
    #[error("the body is not of its content coding: {0}")]
    Corrupt(#[from] std::io::Error),
    /// Larger than the limit once decoded.
    #[error("the decoded body is larger than {0} bytes")]
    TooLarge(usize),
}

/// Decodes a whole body of at most `limit` bytes decoded. No coding, or `identity`, gives it back as it is.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(coding: Option<&str>, body: &Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let coding = coding.map_or("", str::trim);
    match coding.to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body.clone()),
        "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(body.as_ref()), limit),
        // "deflate" means the zlib format, and many senders leave its envelope out.
        "deflate" => match read(flate2::read::ZlibDecoder::new(body.as_ref()), limit) {
            Err(DecodeError::Corrupt(_)) => read(flate2::read::DeflateDecoder::new(body.as_ref()), limit),
            other => other,
        },
        "br" => read(brotli_decompressor::Decompressor::new(body.as_ref(), 4096), limit),
        "zstd" => zstd(body, limit),
        other => Err(DecodeError::Unknown(other.to_owned())),
    }
}

/// The largest window of a zstd frame, which the decoder keeps in memory before it gives anything out: no sender may
/// use a larger one as a content coding (RFC 9659 §3).
const ZSTD_WINDOW: u64 = 8 << 20;

fn read(coded: impl Read, limit: usize) -> Result<Bytes, DecodeError> {
    let mut out = Vec::new();
    append(coded, &mut out, limit)?;
    Ok(out.into())
}

fn append(coded: impl Read, out: &mut Vec<u8>, limit: usize) -> Result<(), DecodeError> {
    let room = limit.saturating_sub(out.len());
    coded.take(room as u64 + 1).read_to_end(out)?;
    if out.len() > limit { Err(DecodeError::TooLarge(limit)) } else { Ok(()) }
}

/// Decodes every frame, one after the other (RFC 8878 §3.1): a sender that compresses a stream piece by piece
/// may make each piece a frame. Skippable frames hold no content.
fn zstd(mut rest: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    let corrupt = |error: String| DecodeError::Corrupt(std::io::Error::other(error));
    let mut out = Vec::new();
    while !rest.is_empty() {
        match StreamingDecoder::new_with_max_window_size(&mut rest, ZSTD_WINDOW) {
            Ok(frame) => append(frame, &mut out, limit)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                rest = rest.get(length..).ok_or_else(|| corrupt("a frame is cut short".to_owned()))?;
            }
            Err(error) => return Err(corrupt(error.to_string())),
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(data: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn each_coding_is_undone() {
        let text = b"hello hello hello";
        assert_eq!(decode(Some("GZip"), &gzip(text), 100).unwrap().as_ref(), text);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(text).unwrap();
        assert_eq!(decode(Some("deflate"), &zlib.finish().unwrap().into(), 100).unwrap().as_ref(), text);
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(text).unwrap();
        assert_eq!(decode(Some("deflate"), &raw.finish().unwrap().into(), 100).unwrap().as_ref(), text);
        // `printf 'hello' | brotli`, and the empty-block-free frame of `printf 'hello' | zstd`.
        let brotli = Bytes::from_static(b"\x0b\x02\x80hello\x03");
        assert_eq!(decode(Some("br"), &brotli, 100).unwrap().as_ref(), b"hello");
        let zstd = ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest);
        // A skippable frame of two bytes, then two frames with content.
        let frames = [b"\x50\x2a\x4d\x18\x02\0\0\0xx".as_slice(), &zstd, &zstd].concat();
        assert_eq!(decode(Some("zstd"), &zstd.into(), 100).unwrap().as_ref(), text);
        assert_eq!(decode(Some("zstd"), &frames.clone().into(), 100).unwrap(), text.repeat(2));
        assert!(matches!(decode(Some("zstd"), &frames.into(), 20), Err(DecodeError::TooLarge(20))));
        assert_eq!(decode(None, &Bytes::from_static(text), 1).unwrap().as_ref(), text);
        assert!(matches!(decode(Some("gzip, br"), &gzip(text), 100), Err(DecodeError::Unknown(_))));
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_a_cut_is_an_error() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(matches!(decode(Some("gzip"), &bomb, 1000), Err(DecodeError::TooLarge(1000))));
        let cut = gzip(b"hello hello hello");
        assert!(matches!(
            decode(Some("gzip"), &cut.slice(..cut.len() - 4), 1000),
            Err(DecodeError::Corrupt(_))
        ));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in any::<Vec<u8>>(), coding in "gzip|deflate|br|zstd") {
            let _ = decode(Some(&coding), &body.into(), 10_000);
        }
    }
}
