//! Values in few bytes, for memory alone: what is packed is unpacked by the same process.

/// A field that can be packed behind others.
pub(crate) trait Pack: Sized {
    fn pack(&self, out: &mut Vec<u8>);
    /// Takes the field from the front of `bytes`, which begin with a packed one.
    fn unpack(bytes: &mut &[u8]) -> Self;
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
impl Pack for usize {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut left = *self;
        while left >= 0x80 {
            out.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let [byte] = take(bytes);
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
}

/// A text whose every letter is a digit, as of a number or an address, takes half a byte for each.
impl Pack for String {
    fn pack(&self, out: &mut Vec<u8>) {
        head(self).pack(out);
        body(self, out);
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let head = usize::unpack(bytes);
        text(bytes, head)
    }
}

/// One more than its head; 0 stands for none.
impl Pack for Option<String> {
    fn pack(&self, out: &mut Vec<u8>) {
        self.as_deref().map_or(0, |text| head(text) + 1).pack(out);
        body(self.as_deref().unwrap_or_default(), out);
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        usize::unpack(bytes).checked_sub(1).map(|head| text(bytes, head))
    }
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

fn digit(letter: u8) -> u8 {
    if letter <= b'9' { letter - b'0' } else { letter - b'A' + 10 }
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|letter| matches!(letter, b'0'..=b'9' | b'A'..=b'F'))
}

/// Returns twice the length, and one more where all are digits.
fn head(text: &str) -> usize {
    text.len() << 1 | usize::from(all_digits(text))
}

fn body(text: &str, out: &mut Vec<u8>) {
    if all_digits(text) {
        out.extend(
            text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | pair.get(1).map_or(0, |low| digit(*low))),
        );
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

fn text(bytes: &mut &[u8], head: usize) -> String {
    let (length, digits) = (head >> 1, head & 1 == 1);
    let (packed, rest) = bytes.split_at(if digits { length.div_ceil(2) } else { length });
    *bytes = rest;
    if digits {
        let both = packed.iter().flat_map(|pair| [pair >> 4, pair & 0xf]);
        return both.take(length).map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
    }
    str::from_utf8(packed).expect("it was packed from a text").to_owned()
}

/// One more than the number of its texts; 0 stands for none.
impl Pack for Option<Vec<String>> {
    fn pack(&self, out: &mut Vec<u8>) {
        self.as_ref().map_or(0, |texts| texts.len() + 1).pack(out);
        self.iter().flatten().for_each(|text| text.pack(out));
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let length = usize::unpack(bytes).checked_sub(1)?;
        Some((0..length).map(|_| String::unpack(bytes)).collect())
    }
}

impl Pack for i64 {
    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        Self::from_le_bytes(take(bytes))
    }
}

impl Pack for bool {
    fn pack(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        take(bytes) != [0]
    }
}

/// A byte that says whether there is one.
macro_rules! pack_option {
    ($($kind:ty),+) => {
        $(impl Pack for Option<$kind> {
            fn pack(&self, out: &mut Vec<u8>) {
                self.is_some().pack(out);
                self.iter().for_each(|value| value.pack(out));
            }

            fn unpack(bytes: &mut &[u8]) -> Self {
                bool::unpack(bytes).then(|| Pack::unpack(bytes))
            }
        })+
    };
}

pack_option!(i64, bool);

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (front, rest) = bytes.split_first_chunk().expect("it was packed whole");
    *bytes = rest;
    *front
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(texts: Option<Vec<String>>, digits: Option<Vec<u64>>, text in "([0-9A-F]{0,9}|.*)") {
            let digits = digits.map(|digits| digits.iter().map(|number| format!("{number:X}")).collect::<Vec<_>>());
            let packed = (texts, Some(text), digits);
            let mut bytes = Vec::new();
            packed.0.pack(&mut bytes);
            packed.1.pack(&mut bytes);
            packed.2.pack(&mut bytes);
            let mut left = &*bytes;
            let unpacked: (Option<Vec<String>>, Option<String>, Option<Vec<String>>) =
                (Pack::unpack(&mut left), Pack::unpack(&mut left), Pack::unpack(&mut left));
            prop_assert_eq!(unpacked, packed);
            prop_assert!(left.is_empty());
        }
    }
}
