//! The conformance suite over every store of ours.

use crate::subjects::{MemorySubject, PostgresSubject, SqliteSubject};

windfall_sink::conformance!(memory, MemorySubject::new().await);
windfall_sink::conformance!(sqlite, SqliteSubject::new().await);
windfall_sink::conformance!(postgres, PostgresSubject::new().await);
