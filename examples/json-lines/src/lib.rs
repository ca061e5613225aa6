//! A store of one's own: assets in a file of JSON Lines, each line one transaction.
//!
//! The last line that names an asset or a partition counts. A line is written under the file's lock, so a crash leaves all of
//! it or a piece without an end, which the next transaction cuts off. The whole file is read for each transaction: this is an
//! example of the contract and not made for speed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use windfall_sink::asset::{AssetChange, FieldValue};
use windfall_sink::store::{
    Applied, AssetStore, Cause, Claimed, Folded, Identity, Owned, Span, StoreError, fold, may_take,
};
use windfall_sink::table::Table;

/// A row: the place of the record that it was written from (generation, partition, offset), and what that says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The guard.
    pub guard: (i64, i32, i64),
    /// Whether the asset is gone.
    pub deleted: bool,
    /// The fields by name.
    pub fields: Map<String, Value>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Position {
    epoch: i64,
    next_offset: i64,
    as_of: Option<DateTime<Utc>>,
    log_time: Option<i64>,
}

/// What one line says, and what all of them come to.
#[derive(Default, Serialize, Deserialize)]
struct State {
    owner: Option<(String, String)>,
    positions: BTreeMap<i32, Position>,
    rows: BTreeMap<String, Row>,
}

/// One sink's handle on the file.
pub struct JsonLines {
    path: PathBuf,
    identity: Identity,
    columns: Vec<String>,
    epochs: BTreeMap<i32, i64>,
}

impl JsonLines {
    /// Makes a store whose file is opened by the first call.
    #[must_use]
    pub fn new(path: PathBuf, identity: Identity, table: &Table) -> Self {
        let columns = table.columns.iter().map(|column| column.name.to_string()).collect();
        Self { path, identity, columns, epochs: BTreeMap::new() }
    }

    /// Reads every row of the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rows(&self) -> Result<BTreeMap<String, Row>, StoreError> {
        Ok(self.locked()?.1.rows)
    }

    /// Reads the file and keeps it locked until the answer is dropped. Refuses a file that another sink fills.
    fn locked(&self) -> Result<(File, State), StoreError> {
        let (file, state) = self.read().map_err(|error| StoreError::environment(Cause::Io, error))?;
        let table = self.path.display().to_string();
        let owner = state.owner.clone().map(|(sink, topic)| Owned { table: table.clone(), sink, topic });
        may_take(owner.as_slice(), &self.identity, &table)?;
        Ok((file, state))
    }

    fn read(&self) -> io::Result<(File, State)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        file.lock()?;
        let (mut text, mut state) = (String::new(), State::default());
        file.read_to_string(&mut text)?;
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        file.set_len(text.len() as u64)?;
        for line in text.lines() {
            let State { owner, positions, rows } = serde_json::from_str(line)?;
            state.owner = owner.or(state.owner);
            state.positions.extend(positions);
            state.rows.extend(rows);
        }
        Ok((file, state))
    }
}

fn commit(mut file: &File, line: &State) -> Result<(), StoreError> {
    let written = file.write_all(format!("{}\n", json!(line)).as_bytes()).and_then(|()| file.sync_data());
    written.map_err(|error| StoreError::environment(Cause::Io, error))
}

fn value(field: &FieldValue) -> Value {
    match field {
        FieldValue::Timestamp(_) => json!(field.to_string()),
        other => other.to_json(),
    }
}

impl AssetStore for JsonLines {
    async fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        let (file, mut state) = self.locked()?;
        let Identity { sink, topic } = self.identity.clone();
        let mut line = State { owner: Some((sink, topic)), ..State::default() };
        let mut claimed = Vec::new();
        for &partition in partitions {
            let mut position = state.positions.remove(&partition).unwrap_or_default();
            position.epoch += 1;
            let Position { epoch, next_offset, as_of, log_time } = position;
            self.epochs.insert(partition, epoch);
            claimed.push(Claimed { partition, generation: 1, next_offset, as_of, log_time });
            line.positions.insert(partition, position);
        }
        commit(&file, &line)?;
        Ok(claimed)
    }

    async fn apply(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        let (file, mut state) = self.locked()?;
        let mut line = State::default();
        for &Span { partition, from, to, as_of, log_time } in spans {
            let ours = state.positions.remove(&partition);
            let mut position = ours
                .filter(|position| self.epochs.get(&partition) == Some(&position.epoch))
                .ok_or(StoreError::Fenced { partition })?;
            if position.next_offset != from {
                return Err(StoreError::Advanced { partition, expected: from, found: position.next_offset });
            }
            position.next_offset = to;
            position.as_of = position.as_of.max(Some(as_of));
            position.log_time = position.log_time.max(log_time);
            line.positions.insert(partition, position);
        }
        let Folded { upserts, tombstones, overtaken } = fold(batch);
        let mut applied = Applied { folded: overtaken, ..Applied::default() };
        for upsert in &upserts {
            let guard = (1, upsert.partition, upsert.offset);
            if state.rows.get(upsert.asset_id).is_some_and(|row| row.guard >= guard) {
                applied.stale += 1;
                continue;
            }
            *(if upsert.deleted { &mut applied.deleted } else { &mut applied.applied }) += 1;
            let fields = self.columns.iter().cloned().zip(upsert.fields.iter().map(value)).collect();
            line.rows.insert(upsert.asset_id.to_owned(), Row { guard, deleted: upsert.deleted, fields });
        }
        for tombstone in &tombstones {
            let guard = (1, tombstone.partition, tombstone.offset);
            let older = state.rows.remove(tombstone.asset_id).filter(|row| !row.deleted && row.guard < guard);
            *(if older.is_some() { &mut applied.deleted } else { &mut applied.unchanged }) += 1;
            line.rows.extend(older.map(|row| (tombstone.asset_id.to_owned(), Row { guard, deleted: true, ..row })));
        }
        commit(&file, &line)?;
        Ok(applied)
    }

    async fn check(&mut self) -> Result<Vec<String>, StoreError> {
        if self.path.exists() {
            self.locked()?;
            return Ok(Vec::new());
        }
        Ok(vec![format!("make {}", self.path.display())])
    }
}
