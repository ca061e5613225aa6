//! A compact form of values, for memory alone: the process that packs a value is the one that unpacks it.

/// Takes the bytes of packed values: a buffer keeps them, [`Comparison`] compares them.
pub(crate) trait Output {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Output for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// What remains of packed bytes after values that were equal to those in front; `None` after the first that differs.
pub(crate) struct Comparison<'a>(pub(crate) Option<&'a [u8]>);

impl Output for Comparison<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.0 = match (self.0, bytes) {
            // Half of what is put are single bytes, lengths above all.
            (Some([known, rest @ ..]), [byte]) => (known == byte).then_some(rest),
            (known, bytes) => known.and_then(|known| known.strip_prefix(bytes)),
        };
    }
}

/// A value that can be packed behind others. Its bytes tell where it ends.
pub(crate) trait Pack: Sized {
    /// Writes the value.
    fn pack(&self, out: &mut impl Output);
    /// Reads a value from the front of `bytes`, which must begin with a packed one.
    fn unpack(bytes: &mut &[u8]) -> Self;
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
impl Pack for usize {
    fn pack(&self, out: &mut impl Output) {
        let mut left = *self;
        while left >= 0x80 {
            out.put(&[(left & 0x7f) as u8 | 0x80]);
            left >>= 7;
        }
        out.put(&[left as u8]);
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let (mut value, mut shift) = (0, 0);
        loop {
            let [byte] = take(bytes);
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }
}

/// The length and the bytes.
impl Pack for String {
    fn pack(&self, out: &mut impl Output) {
        self.len().pack(out);
        out.put(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let length = usize::unpack(bytes);
        text(bytes, length)
    }
}

/// One more than the length, and the bytes; 0 stands for none.
impl Pack for Option<String> {
    fn pack(&self, out: &mut impl Output) {
        self.as_ref().map_or(0, |text| text.len() + 1).pack(out);
        self.iter().for_each(|text| out.put(text.as_bytes()));
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        usize::unpack(bytes).checked_sub(1).map(|length| text(bytes, length))
    }
}

fn text(bytes: &mut &[u8], length: usize) -> String {
    let (packed, rest) = bytes.split_at(length);
    *bytes = rest;
    str::from_utf8(packed).expect("it was packed from a text").to_owned()
}

/// One more than the number of its texts; 0 stands for none.
impl Pack for Option<Vec<String>> {
    fn pack(&self, out: &mut impl Output) {
        self.as_ref().map_or(0, |texts| texts.len() + 1).pack(out);
        self.iter().flatten().for_each(|text| text.pack(out));
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let length = usize::unpack(bytes).checked_sub(1)?;
        Some((0..length).map(|_| String::unpack(bytes)).collect())
    }
}

impl Pack for i64 {
    fn pack(&self, out: &mut impl Output) {
        out.put(&self.to_le_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        Self::from_le_bytes(take(bytes))
    }
}

impl Pack for bool {
    fn pack(&self, out: &mut impl Output) {
        out.put(&[u8::from(*self)]);
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        take(bytes) != [0]
    }
}

/// A byte that says whether there is one.
macro_rules! pack_option {
    ($($kind:ty),+) => {
        $(impl Pack for Option<$kind> {
            fn pack(&self, out: &mut impl Output) {
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
        fn what_is_packed_is_unpacked_and_equals_itself_alone(
            texts: Option<Vec<String>>, text: Option<String>, number: Option<i64>, other: Option<String>,
        ) {
            let mut bytes = Vec::new();
            texts.pack(&mut bytes);
            text.pack(&mut bytes);
            number.pack(&mut bytes);
            let mut left = &*bytes;
            prop_assert_eq!(Option::<Vec<String>>::unpack(&mut left), texts.clone());
            prop_assert_eq!(Option::<String>::unpack(&mut left), text.clone());
            prop_assert_eq!(Option::<i64>::unpack(&mut left), number);
            prop_assert!(left.is_empty());

            let mut same = Comparison(Some(&bytes));
            texts.pack(&mut same);
            other.pack(&mut same);
            prop_assert_eq!(same.0.is_some(), other == text);
        }
    }
}
