//! Faults that break the bytes of a body.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::answer::Answer;
use crate::fault::Action;

/// Brackets of a value that no parser should follow by recursion.
const DEPTH: usize = 100_000;

/// Lets faults play that break the bytes of a JSON body.
pub(crate) fn spoil(answer: &mut Answer, actions: &[(Action, String)]) {
    for (action, _) in actions {
        let body = &mut answer.body;
        match action {
            Action::Cut(share) => body.truncate((body.len() as f64 * share) as usize),
            Action::BadUtf8 => {
                // Inside the first text of the document, so that it still looks like JSON.
                let place = body.iter().position(|byte| *byte == b'"').map_or(0, |quote| quote + 1);
                body.insert(place, 0xFF);
            }
            Action::Deep => {
                let value = format!("\"deep\":{}{},", "[".repeat(DEPTH), "]".repeat(DEPTH));
                body.splice(1..1, value.into_bytes());
            }
            Action::DuplicateKeys => {
                body.truncate(body.len().saturating_sub(1));
                body.extend_from_slice(b",\"data\":[]}");
            }
            Action::Bomb(mib) => {
                *body = packed(body, *mib);
                answer.headers.push(("content-encoding", "gzip".to_owned()));
            }
            _ => continue,
        }
        answer.record.readable = false;
    }
}

/// Packs white space and a body; the space is never kept unpacked.
fn packed(body: &[u8], mib: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = io::copy(&mut io::repeat(b' ').take(mib.saturating_mul(1 << 20)), &mut encoder)
        .and_then(|_| encoder.write_all(body))
        .and_then(|()| encoder.finish());
    // Memory takes every byte.
    written.unwrap_or_default()
}
