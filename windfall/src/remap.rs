//! `windfall remap`, and the reading and moving of a group's committed offsets, which `topics accept` uses too.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windfall_runtime::diagnose::Kind;
use windfall_runtime::kafka::groups::{self, CommittedOffset};
use windfall_runtime::kafka::table::{self, TableError};
use windfall_runtime::kafka::{Connection, TopicPartition, log};
use windfall_runtime::log_identity::Position;
use windfall_schemas::topic::CHANGE_PARTITIONS;

use crate::cli::Global;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::scope::Scope;

/// The committed offsets of one group in one topic.
pub(crate) struct GroupOffsets {
    connection: Connection,
    pub(crate) group: String,
    topic: String,
    offsets: Vec<(TopicPartition, Option<CommittedOffset>)>,
}

impl GroupOffsets {
    /// Reads a group's committed offsets. Fails if the group has members, since the offsets are theirs to commit.
    pub(crate) async fn of(context: &Context, group: String, topic: String) -> crate::Result<Self> {
        let connection = context.tool_connection("remap");
        let members = groups::members(&connection, &group).await?;
        if let [first, ..] = members.as_slice() {
            let failure = Failure::new(Kind::Superseded, format!("{first} is at work in the group `{group}`"));
            return Err(failure.help("stop the transformer, and try again ten seconds later").into());
        }
        let all = (0..CHANGE_PARTITIONS).map(|at| TopicPartition::new(topic.as_str(), at)).collect();
        let offsets = groups::committed(&connection, &group, all).await?.into_iter().collect();
        Ok(Self { connection, group, topic, offsets })
    }

    /// Returns whether the offsets belong to another log, or lie before the first record that the log still holds.
    async fn is_gone(&self) -> crate::Result<bool> {
        let positions = self.offsets.iter().filter_map(|(at, known)| Some((at.partition, known.as_ref()?.position)));
        let positions: BTreeMap<i32, Position> = positions.collect();
        match log::check(&self.connection, &self.topic, &positions).await {
            Ok(_) => {}
            Err(TableError::OtherLog(_)) => return Ok(true),
            Err(failure) => return Err(failure.into()),
        }
        let extents = table::ends(&self.connection, &self.topic, positions.keys().copied()).await?;
        Ok(positions.iter().any(|(at, position)| extents.get(at).is_some_and(|held| held.first > position.next_offset)))
    }

    /// Commits what `moved` makes of each offset.
    pub(crate) async fn commit(
        &self,
        moved: impl Fn(Option<&CommittedOffset>) -> Option<CommittedOffset>,
    ) -> crate::Result<()> {
        let moved = self.offsets.iter().filter_map(|(at, known)| Some((at.clone(), moved(known.as_ref())?)));
        Ok(groups::commit(&self.connection, &self.group, moved.collect()).await?)
    }

    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |(at, known): &(TopicPartition, Option<CommittedOffset>)| {
            let position = known.as_ref().map(|known| known.position);
            let offset = position.map_or("-".to_owned(), |position| position.next_offset.to_string());
            let time = position.and_then(|position| chrono::DateTime::from_timestamp_millis(position.log_time?));
            vec![self.group.clone(), at.to_string(), offset, time.map_or("-".to_owned(), |time| time.to_rfc3339())]
        };
        self.offsets.iter().map(row).collect()
    }

    fn answer(&self) -> Value {
        json!({ "group": self.group, "topic": self.topic })
    }
}

pub(crate) fn start(program: Option<&str>) -> CommittedOffset {
    CommittedOffset { position: Position::at(0), program: program.map(str::to_owned) }
}

/// Makes the transformer map a collection again from the start of its sources when it next starts, as after a changed mapping.
///
/// If the contributions topic was recreated, or has lost records that were not merged yet, its offsets are reset too: mapping again
/// fills the topic.
pub(crate) async fn remap(global: &Global, collection: &str) -> crate::Result<Exit> {
    let context = Context::load(global, &Scope::Shared)?;
    context.collection(collection)?;
    let names = &context.names;
    let merge = GroupOffsets::of(&context, names.merge_group(collection), names.contributions(collection)).await?;
    let sources = context.collections.iter().filter(|loaded| loaded.collection.name == collection);
    let mut mapped = Vec::new();
    for source in sources.flat_map(|loaded| loaded.sources()) {
        mapped.push(GroupOffsets::of(&context, names.map_group(collection), names.topic(source)).await?);
    }
    if merge.is_gone().await? {
        merge.commit(|known| known.map(|_| start(None))).await?;
    }
    for reading in &mapped {
        // The log time stays: it shows whether the log is still the same.
        reading.commit(|known| known.map(|known| CommittedOffset { program: None, ..known.clone() })).await?;
    }
    let answer: Vec<Value> = mapped.iter().map(GroupOffsets::answer).collect();
    let rows = mapped.iter().map(|reading| vec![reading.topic.clone(), "is mapped again at the next start".to_owned()]);
    Output::new(global.output).answer(&answer, &["TOPIC", "STATE"], rows.collect())?;
    Ok(Exit::Success)
}
