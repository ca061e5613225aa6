//! Where journal lines go: nowhere, into memory, into a file.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Line, Record};

/// Where the journal goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JournalMode {
    /// Nowhere.
    #[default]
    Off,
    /// Into memory, to be taken from the handle.
    Memory,
    /// Into a file, one JSON object a line; each line is written whole before the answer's last byte leaves.
    File(PathBuf),
}

/// What the journal keeps of a served resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    Digests,
    Attributes,
}

/// The journal of a running simulator.
#[derive(Debug)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
    pub(crate) keep: Keep,
}

#[derive(Debug)]
struct Inner {
    seq: u64,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Off,
    Memory(Vec<Line>),
    File(File),
}

impl Journal {
    /// Opens the journal; a file that exists is emptied.
    pub(crate) fn open(mode: &JournalMode, digests_only: bool) -> std::io::Result<Self> {
        let target = match mode {
            JournalMode::Off => Target::Off,
            JournalMode::Memory => Target::Memory(Vec::new()),
            JournalMode::File(path) => Target::File(File::create(path)?),
        };
        let keep = match target {
            Target::Off => Keep::Nothing,
            _ if digests_only => Keep::Digests,
            _ => Keep::Attributes,
        };
        Ok(Self { inner: Mutex::new(Inner { seq: 0, target }), keep })
    }

    /// Writes one record. A file that refuses it is reported in the log; serving goes on.
    pub(crate) fn write(&self, record: Record) {
        let mut inner = self.lock();
        inner.seq += 1;
        let line = Line { seq: inner.seq, record };
        match &mut inner.target {
            Target::Off => {}
            Target::Memory(lines) => lines.push(line),
            Target::File(file) => {
                if let Err(error) = write_line(file, &line) {
                    tracing::error!(%error, seq = line.seq, "journal line not written");
                }
            }
        }
    }

    /// Returns the lines kept in memory.
    pub(crate) fn lines(&self) -> Vec<Line> {
        match &self.lock().target {
            Target::Memory(lines) => lines.clone(),
            Target::Off | Target::File(_) => Vec::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_line(file: &mut File, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}
