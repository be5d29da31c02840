//! Bytes as hexadecimal digits: in ids of entries and requests, the names of keys and records of Redis, and in exports.

/// Writes bytes as lower-case hexadecimal digits into room for two of each; what is over stays.
pub(crate) fn fill(room: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in room.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Appends bytes as lower-case hexadecimal digits.
pub(crate) fn write(text: &mut String, bytes: &[u8]) {
    text.reserve(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(digit(byte >> 4)));
        text.push(char::from(digit(byte & 15)));
    }
}

const fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' - 10 + value }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn digits(bytes: &[u8]) -> String {
    let mut text = String::new();
    write(&mut text, bytes);
    text
}

/// The bytes that pairs of hexadecimal digits are for; `None` where a digit is over, or others are among them.
pub(crate) fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect()
}

/// The 32 bytes that 64 hexadecimal digits are for; `None` where there are not so many, or others among them.
pub(crate) fn hash(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    bytes(text)?.try_into().ok()
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_give_their_bytes_back_and_nothing_else_does(content: [u8; 32], at in 0_usize..64, other: u8) {
            let mut text = digits(&content);
            prop_assert_eq!(hash(text.as_bytes()), Some(content));
            prop_assert_eq!(hash(text.to_uppercase().as_bytes()), Some(content));
            let mut changed = text.clone().into_bytes();
            changed[at] = other;
            prop_assert_eq!(hash(&changed).is_some(), other.is_ascii_hexdigit());
            prop_assert_eq!(hash(&text.as_bytes()[1..]), None);
            text.push('0');
            prop_assert_eq!(hash(text.as_bytes()), None);
            prop_assert_eq!(bytes(text.as_bytes()), None);
        }
    }
}
