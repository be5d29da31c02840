//! Numbers as digits, where the standard formatting, which takes several times as long, would be a part of what a hit costs.
//!
//! Called by whoever writes headers, replies and lines of the log.

/// Room for the digits of any number.
pub type Room = [u8; 20];

/// Writes a whole number in decimal.
pub fn decimal(number: u64, room: &mut Room) -> &str {
    // Digits are text.
    std::str::from_utf8(digits(number, room)).unwrap_or_default()
}

/// The same, as bytes.
pub fn digits(number: u64, room: &mut Room) -> &[u8] {
    *room = [b'0'; 20];
    let mut rest = number;
    let mut from = room.len();
    for digit in room.iter_mut().rev() {
        *digit = digit_of(rest % 10);
        rest /= 10;
        from -= 1;
        if rest == 0 {
            break;
        }
    }
    room.get(from..).unwrap_or_default()
}

/// Writes a number of up to `N` digits, with zeros before it.
pub fn padded<const N: usize>(mut number: u32) -> [u8; N] {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = digit_of(u64::from(number % 10));
        number /= 10;
    }
    text
}

#[expect(clippy::cast_possible_truncation, reason = "below 10")]
const fn digit_of(value: u64) -> u8 {
    b'0' + value as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 7, 10, 86_399, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string());
        }
        assert_eq!(padded::<6>(0), *b"000000");
        assert_eq!(padded::<6>(1_020), *b"001020");
        assert_eq!(padded::<4>(9_999), *b"9999");
    }
}
