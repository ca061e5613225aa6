//! Loop one: source changes become contributions, and links remember which.
//!
//! Its memory is folded from `links`, partition by partition; a link lies in the partition number of its source record.
//!
//! A source record that cannot be read goes to the dead letters once, in the transaction of its input offset. What it contributed
//! before stays until the next record of its key, since nobody knows what it says now.

mod memory;
mod remap;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tracing::{debug, info};
use windfall_runtime::failpoint;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::dead_letters::RefusedAt;
use windfall_runtime::kafka::groups::CommittedOffset;
use windfall_runtime::kafka::publisher;
use windfall_runtime::kafka::{Outgoing, Record, TopicPartition, log, table};
use windfall_runtime::log_identity::{self, ACCEPTED};
use windfall_runtime::reader::Unreadable;
use windfall_runtime::worker::{Stage, Starts, Taken, Work};
use windfall_schemas::asset::AssetKey;
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::link::{Link, LinkKey};
use windfall_schemas::partition;
use windfall_schemas::topic::CHANGE_PARTITIONS;
use windfall_schemas::wire::WireError;

use crate::contribution::{MapStep, SourceRecord, map};
use crate::error::TransformerError;
use crate::event::{DecodedRow, SourceEvent};
use crate::fold::TopicState;
use crate::links::SourcePosition;
use crate::mapping::Program;
use crate::parts::Parts;
use memory::PartitionLinks;
use remap::Remap;

/// Links written again in one transaction.
const RECONCILED_AT_ONCE: usize = 2_000;

/// How far the clocks of two partition leaders may differ.
const CLOCKS_MS: i64 = 1_000;

/// Added to the offsets of a source topic each time the topic was created again and accepted by an operator, so that everything
/// that was mapped from the old topic is older than the records of the new one.
const GENERATION: i64 = 1 << 40;

/// The map of one collection.
pub(crate) struct MapStage {
    parts: Parts,
    /// By topic, the table's name and the mapping that reads it.
    programs: HashMap<String, (Arc<str>, Arc<Program>)>,
    links: TopicState<PartitionLinks>,
    /// Links that are still to be written, each with the assets that are withdrawn with it.
    pending: VecDeque<(i32, Link, Vec<String>)>,
    /// The identity of the collection and its mappings.
    program: String,
    /// The records that another program has mapped before and that are mapped again.
    remap: Remap,
    /// By partition and source, what is added to the offsets: see [`GENERATION`].
    generations: HashMap<(i32, String), i64>,
}

/// What moves the map's memory.
#[derive(Debug, Default)]
pub(crate) struct MapEffects {
    /// The links written.
    links: Vec<(i32, Link)>,
    /// Records that were mapped again.
    again: Vec<(TopicPartition, u128)>,
}

/// A record that cannot be mapped, and where that showed.
struct Refused {
    stage: RefusedAt,
    why: Unreadable,
}

impl MapStage {
    pub(crate) fn new(parts: Parts) -> Self {
        let programs = parts.loaded.mappings.iter().map(|mapping| {
            let table = mapping.program.table.name.as_str();
            (parts.names.topic(table), (table.into(), Arc::clone(&mapping.program)))
        });
        Self {
            programs: programs.collect(),
            links: TopicState::new(&parts.own.links),
            pending: VecDeque::new(),
            program: parts.loaded.program(),
            remap: Remap::default(),
            generations: HashMap::new(),
            parts,
        }
    }

    fn decode(&self, source: Arc<str>, record: &Record) -> Result<SourceRecord, Refused> {
        let refused = |stage| move |why| Refused { stage, why };
        let key: DecodedRow = self.parts.decoder.key(record).map_err(refused(RefusedAt::Key))?;
        let source_key = key.0.iter().map(|(_, value)| value.to_text()).collect::<Vec<_>>().join("/");
        let event: Option<SourceEvent> = self.parts.decoder.value(record).map_err(refused(RefusedAt::Value))?;
        let generation = self.generations.get(&(record.partition, source.to_string())).copied().unwrap_or(0);
        let at = SourcePosition { partition: record.partition, offset: generation + record.offset };
        Ok(SourceRecord { source, source_key, at, event })
    }

    /// Where contributions to an asset lie: in the partition that the asset has in the flat topic.
    fn partition_of(&self, asset_id: &str) -> Result<i32, WireError> {
        let key = self.parts.own.assets.key.encode(&AssetKey { asset_id: asset_id.to_owned() })?;
        Ok(partition::for_key(&key, CHANGE_PARTITIONS))
    }

    fn withdrawal(&self, key: &ContributionKey) -> Result<Outgoing, WireError> {
        self.parts.own.contributions.tombstone(key, self.partition_of(&key.asset_id)?)
    }

    fn contribution(&self, contribution: &Contribution) -> Result<Outgoing, WireError> {
        let own = &self.parts.own.contributions;
        let value = self.parts.collection().schema.encode_contribution(&own.value, contribution)?;
        own.record(&contribution.key(), value, self.partition_of(&contribution.asset_id)?)
    }

    fn link(&self, partition: i32, link: &Link) -> Result<Outgoing, TransformerError> {
        let own = &self.parts.own.links;
        let outgoing = own.value.encode(link).and_then(|value| own.record(&link.key(), value, partition));
        outgoing.map_err(|source| own.failed(source))
    }

    /// Maps a record, after the links that earlier records of the batch have changed; says what follows and what is to be derived.
    /// A contribution that is too large to be written is the record's own fault.
    fn step(
        &self,
        source: &Arc<str>,
        program: &Program,
        record: &Record,
        changed: &BTreeMap<(i32, LinkKey), Link>,
    ) -> Result<(MapStep, Vec<Outgoing>), Refused> {
        let decoded = self.decode(Arc::clone(source), record)?;
        let key = (record.partition, decoded.link_key());
        let folded = || self.links.get(key.0)?.known.get(&key.1);
        let step = map(program, changed.get(&key).cloned().or_else(folded).as_ref(), decoded);
        let withdrawn = step.withdrawals.iter().map(|key| self.withdrawal(key));
        let said = step.contribution.iter().map(|contribution| self.contribution(contribution));
        let derived: Result<Vec<Outgoing>, WireError> = withdrawn.chain(said).collect();
        let derived = derived.map_err(|error| Refused { stage: RefusedAt::Transformation, why: error.into() })?;
        Ok((step, derived))
    }

    fn map_all(&self, records: Vec<Record>) -> Result<Work<MapEffects>, TransformerError> {
        let (mut derived, mut letters) = (Vec::new(), Vec::new());
        let mut links: BTreeMap<(i32, LinkKey), Link> = BTreeMap::new();
        let mut effects = MapEffects::default();
        for record in &records {
            let Some((source, program)) = self.programs.get(&*record.topic) else { continue };
            if self.remap.is_overtaken(record) {
                self.parts.count("overtaken");
                continue;
            }
            effects.again.extend(self.remap.is_under_way().then(|| (record.topic_partition(), remap::hash(record))));
            match self.step(source, program, record, &links) {
                Ok((step, written)) => {
                    derived.extend(written);
                    links.extend(step.link.map(|link| ((record.partition, link.key()), link)));
                    self.parts.count(step.outcome.as_str());
                }
                Err(Refused { stage, why }) => letters.push(self.parts.refused(record, stage, &why)),
            }
        }
        let dead_letters = u64::try_from(letters.len()).unwrap_or(u64::MAX);
        derived.extend(letters);
        let mut follow_up = Vec::with_capacity(links.len());
        for ((partition, _), link) in links {
            follow_up.push(self.link(partition, &link)?);
            effects.links.push((partition, link));
        }
        debug!(records = records.len(), derived = derived.len(), links = follow_up.len(), "batch mapped");
        Ok(Work { derived, follow_up, next_offsets: Vec::new(), dead_letters, effects })
    }

    /// Finds what is added to the offsets of each source; it grows where an operator has accepted a topic that was created again.
    fn count_generations(&mut self, committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>) {
        self.generations.clear();
        for link in memory::all(&self.links) {
            let generation = link.source_offset.max(0) / GENERATION * GENERATION;
            let known = self.generations.entry((link.source_partition, link.source.clone())).or_default();
            *known = generation.max(*known);
        }
        for (at, _) in committed.iter().filter(|(_, committed)| is_accepted(committed.as_ref())) {
            let Some((source, _)) = self.programs.get(&*at.topic) else { continue };
            let generation = self.generations.entry((at.partition, source.to_string())).or_default();
            *generation += GENERATION;
            // This link keeps the number in the topic, whatever the other links hold.
            let link = Link {
                source: source.to_string(),
                source_key: String::new(),
                source_partition: at.partition,
                source_offset: *generation,
                assets: Vec::new(),
            };
            self.pending.push_back((at.partition, link, Vec::new()));
        }
    }

    /// Refuses a source topic that is not the log that the links were written from.
    ///
    /// A broker forgets a group's offsets together with the topic, and after a week without members. Without a committed offset
    /// the time of the newest link is taken for the time of its source record.
    async fn check_links(
        &self,
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
    ) -> Result<(), TransformerError> {
        let mut by_topic: BTreeMap<Arc<str>, BTreeMap<i32, log_identity::Position>> = BTreeMap::new();
        for (at, committed) in committed {
            let Some((source, _)) = self.programs.get(&*at.topic) else { continue };
            let links = self.links.get(at.partition);
            let Some(newest) = links.and_then(|links| links.newest.get(&**source)) else { continue };
            let generation = self.generations.get(&(at.partition, source.to_string())).copied().unwrap_or(0);
            let log_time = newest.log_time.filter(|_| committed.is_none()).map(|time| time + CLOCKS_MS);
            let next_offset = (newest.next_offset - generation).max(0);
            let position = log_identity::Position { next_offset, log_time: log_time.filter(|_| next_offset > 0) };
            by_topic.entry(Arc::clone(&at.topic)).or_default().insert(at.partition, position);
        }
        for (topic, positions) in by_topic {
            log::check(&self.parts.connection, &topic, &positions).await?;
        }
        Ok(())
    }

    /// Refuses an empty topic of links if this program has committed offsets and the topic of contributions is not empty: links
    /// are written together with contributions, so the topic was deleted and created again. Without its links nothing would be
    /// withdrawn any more.
    async fn refuse_lost_links(
        &self,
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
    ) -> Result<(), TransformerError> {
        let ours =
            |known: &CommittedOffset| known.program.as_ref() == Some(&self.program) && known.position.next_offset > 0;
        if memory::all(&self.links).next().is_some() || !committed.values().flatten().any(ours) {
            return Ok(());
        }
        let (links, contributions) = (&*self.parts.own.links.name, &*self.parts.own.contributions.name);
        let written = |ends: BTreeMap<i32, table::Extent>| ends.values().any(|extent| extent.end > 0);
        if written(table::ends(&self.parts.connection, links, 0..CHANGE_PARTITIONS).await?)
            || !written(table::ends(&self.parts.connection, contributions, 0..CHANGE_PARTITIONS).await?)
        {
            return Ok(());
        }
        let (links, contributions) = (links.to_string(), contributions.to_string());
        Err(TransformerError::LostLinks { links, contributions, collection: self.parts.collection().name.clone() })
    }

    /// Returns where reading begins: at the committed offset, or at the start if another program committed it, or none.
    async fn begin(
        &mut self,
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
        read_once: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Starts, TransformerError> {
        let (mut starts, mut stretches, mut others) = (Starts::new(), BTreeMap::new(), 0);
        for (at, committed) in committed {
            let ours = committed.as_ref().filter(|committed| committed.program.as_ref() == Some(&self.program));
            let start = Start::from(ours);
            others += usize::from(committed.is_some() && ours.is_none());
            if let Some(read_once) = read_once.get(at).filter(|read_once| start.number() < **read_once) {
                stretches.insert(at.clone(), (start, *read_once));
            }
            starts.insert(at.clone(), start);
        }
        if others > 0 {
            info!(
                collection = self.parts.collection().name,
                partitions = others,
                "mapping again from the start: the program is another one"
            );
        }
        // Also under the same program: a process that ended half-way may have left some of them.
        self.withdraw_unmapped();
        self.remap = Remap::find(&self.parts.connection, stretches).await?;
        Ok(starts)
    }

    /// Withdraws the contributions of sources that no mapping names any more.
    fn withdraw_unmapped(&mut self) {
        let mapped: BTreeSet<&str> = self.programs.values().map(|(source, _)| &**source).collect();
        let unmapped =
            memory::all(&self.links).filter(|link| !link.assets.is_empty() && !mapped.contains(&*link.source));
        let withdrawn = unmapped.map(|link| {
            let assets = link.assets.iter().map(|linked| linked.asset_id.clone()).collect();
            (link.source_partition, Link { assets: Vec::new(), ..link.clone() }, assets)
        });
        self.pending.extend(withdrawn.collect::<Vec<_>>());
    }
}

fn is_accepted(committed: Option<&CommittedOffset>) -> bool {
    committed.is_some_and(|committed| committed.program.as_deref() == Some(ACCEPTED))
}

impl Stage for MapStage {
    type Effects = MapEffects;
    type Error = TransformerError;

    fn name(&self) -> &'static str {
        "map"
    }

    async fn take_over(
        &mut self,
        partitions: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
        read_once: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Taken, TransformerError> {
        let numbers: BTreeSet<i32> = partitions.iter().map(|at| at.partition).collect();
        memory::fold(&mut self.links, &self.parts, &numbers).await?;
        let rebuilt = memory::rebuild(&self.links, &self.parts, &numbers).await?;
        self.pending = rebuilt.into_iter().map(|(partition, link)| (partition, link, Vec::new())).collect();
        self.count_generations(committed);
        self.check_links(committed).await?;
        self.refuse_lost_links(committed).await?;
        let starts = self.begin(committed, read_once).await?;
        self.parts.show_passed_over([self.links.passed_over()]);
        Ok(Taken::From(starts))
    }

    fn reconcile(&mut self) -> Result<Option<Work<MapEffects>>, TransformerError> {
        // Contributions need no comparison: they are committed with the input offsets, and what was not committed is read again.
        if self.pending.is_empty() {
            return Ok(None);
        }
        let mut work: Work<MapEffects> = Work::default();
        let now: Vec<_> = self.pending.drain(..self.pending.len().min(RECONCILED_AT_ONCE)).collect();
        for (partition, link, withdrawn) in now {
            for asset_id in withdrawn {
                let (source, source_key) = (link.source.clone(), link.source_key.clone());
                let withdrawal = self.withdrawal(&ContributionKey { asset_id, source, source_key });
                work.derived.push(withdrawal.map_err(|source| self.parts.own.contributions.failed(source))?);
            }
            work.follow_up.push(self.link(partition, &link)?);
            work.effects.links.push((partition, link));
        }
        Ok(Some(work))
    }

    async fn compute(&mut self, records: Vec<Record>) -> Result<Work<MapEffects>, TransformerError> {
        self.parts.decoder.learn(&records).await?;
        self.map_all(records)
    }

    fn program(&self) -> Option<String> {
        Some(self.program.clone())
    }

    fn settle(&mut self, effects: MapEffects, committed: &publisher::Committed) {
        if self.remap.is_under_way() {
            self.remap.done(effects.again.into_iter());
            self.parts.part.at(self.remap.progress());
        }
        for (partition, link) in effects.links {
            let links = self.links.entry(partition);
            links.unreadable.remove(&link.key());
            links.known.insert(&link);
        }
        self.links.delivered(&committed.follow_up);
        self.parts.show_passed_over([self.links.passed_over()]);
    }

    fn before_commit(&self) {
        failpoint!("transformer.map.commit.before");
    }

    fn after_commit(&self) {
        failpoint!("transformer.map.commit.after");
    }
}
