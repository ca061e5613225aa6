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

impl Pack for String {
    fn pack(&self, out: &mut Vec<u8>) {
        self.len().pack(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        let length = usize::unpack(bytes);
        text(bytes, length)
    }
}

fn text(bytes: &mut &[u8], length: usize) -> String {
    let (text, rest) = bytes.split_at(length);
    *bytes = rest;
    str::from_utf8(text).expect("it was packed from a text").to_owned()
}

/// One more than its length; 0 stands for none.
impl Pack for Option<String> {
    fn pack(&self, out: &mut Vec<u8>) {
        let text = self.as_deref();
        text.map_or(0, |text| text.len() + 1).pack(out);
        out.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Self {
        usize::unpack(bytes).checked_sub(1).map(|length| text(bytes, length))
    }
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
