//! Loop two: contributions become asset records, and disagreements become conflicts.
//!
//! Its memory is the fold of `contributions` up to the committed input offset, of `assets.<collection>` and of `conflicts` to
//! their ends. On assignment every asset of the partition is merged again, and what differs from its last record is
//! published first. Assets of which contributions lie beyond the committed offset are left out: they are merged when these are
//! read, and what lies below may have been compacted away because of them.
//!
//! Where no offset was ever committed but records stand, the offset was lost: the fold goes to the end and only differences
//! are published, so that nothing is repeated.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::{debug, warn};
use windfall_runtime::clock::SharedClock;
use windfall_runtime::failpoint;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::dead_letters::{Refusal, RefusedAt, dead_letter};
use windfall_runtime::kafka::publisher::Committed;
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::table::FoldFailure;
use windfall_runtime::kafka::{Connection, Outgoing, Record, TopicPartition};
use windfall_runtime::metrics::{self as names, label};
use windfall_schemas::asset::{AssetKey, AssetRecord};
use windfall_schemas::conflict::Conflict;
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::topic::Names;
use windfall_schemas::wire::WireError;

use crate::asset::{Applied, Asset, Conclusion, SourceKey};
use crate::codecs::{Codecs, CollectionCodecs, Unreadable, asset_headers};
use crate::collection::CompiledCollection;
use crate::driver::{Stage, Starts, Work};
use crate::error::TransformerError;
use crate::fold::{self, Cached, FoldReport, Own};

/// Contributions of one partition.
#[derive(Debug, Default)]
struct Contributions {
    assets: HashMap<String, BTreeMap<SourceKey, Arc<Contribution>>>,
    /// Assets of which contributions lie beyond the offset that was folded to.
    ahead: HashSet<String>,
}
/// Last records of one partition with their versions; a record that is gone leaves its version behind.
type Lasts = HashMap<String, (Option<Arc<AssetRecord>>, i64)>;
/// Conflicts of one partition, by asset.
type Conflicts = HashMap<String, Vec<Conflict>>;

/// The merge of one collection.
pub(crate) struct MergeStage {
    connection: Connection,
    codecs: Codecs,
    own: CollectionCodecs,
    collection: Arc<CompiledCollection>,
    topics: Topics,
    clock: SharedClock,
    instance: String,
    folding: FoldReport,
    contributions: BTreeMap<i32, Cached<Contributions>>,
    lasts: BTreeMap<i32, Cached<Lasts>>,
    conflicts: BTreeMap<i32, Cached<Conflicts>>,
    /// Assets that are still to be merged again, and where the input is to stand then.
    healing: VecDeque<(i32, String)>,
    moving: Vec<(TopicPartition, i64)>,
}

/// Reads a contribution; `None` is a withdrawal.
fn contribution(
    codecs: &Codecs,
    collection: &CompiledCollection,
    record: &Record,
) -> Result<Option<Contribution>, Unreadable> {
    let Some(value) = &record.value else { return Ok(None) };
    Ok(Some(collection.schema.decode_contribution(&codecs.of(value)?, value)?))
}

/// Full names of the topics.
#[derive(Debug, Clone)]
struct Topics {
    contributions: String,
    assets: String,
    conflicts: String,
    dead_letters: String,
}

/// What moves the merge's memory.
#[derive(Debug, Default)]
pub(crate) struct MergeEffects {
    assets: HashMap<(i32, String), Asset>,
    /// Contributions read, by partition: one past the last.
    consumed: BTreeMap<i32, i64>,
}

/// Assets merged again in one transaction.
const HEALED_AT_ONCE: usize = 2_000;

/// What the merge is made of.
pub(crate) struct MergeParts {
    pub(crate) connection: Connection,
    pub(crate) codecs: Codecs,
    pub(crate) own: CollectionCodecs,
    pub(crate) collection: Arc<CompiledCollection>,
    pub(crate) clock: SharedClock,
    pub(crate) instance: String,
    pub(crate) folding: FoldReport,
}

impl MergeStage {
    pub(crate) fn new(parts: MergeParts) -> Self {
        let MergeParts { connection, codecs, own, collection, clock, instance, folding } = parts;
        let names = Names::new(connection.config().topic_prefix.clone());
        let name = &collection.name;
        let contributions = names.contributions(name);
        let topics = Topics {
            dead_letters: names.dead_letters(&contributions, &names.merge_group(name)),
            assets: names.assets(name),
            conflicts: names.conflicts(name),
            contributions,
        };
        Self {
            connection,
            codecs,
            own,
            collection,
            topics,
            clock,
            instance,
            folding,
            contributions: BTreeMap::new(),
            lasts: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            healing: VecDeque::new(),
            moving: Vec::new(),
        }
    }

    /// Gathers what is known of an asset.
    fn asset(&self, partition: i32, asset_id: &str) -> Asset {
        let contributions = self.contributions.get(&partition).and_then(|cached| cached.state.assets.get(asset_id));
        let last = self.lasts.get(&partition).and_then(|cached| cached.state.get(asset_id));
        let conflicts = self.conflicts.get(&partition).and_then(|cached| cached.state.get(asset_id));
        let (last, version) = last.cloned().unwrap_or((None, -1));
        Asset {
            contributions: contributions.cloned().unwrap_or_default(),
            last,
            version,
            conflicts: conflicts.cloned().unwrap_or_default(),
        }
    }

    fn read(&self, record: &Record) -> Result<(ContributionKey, Option<Contribution>), (RefusedAt, Unreadable)> {
        let key = self.codecs.key(record).map_err(|why| (RefusedAt::Key, why))?;
        let contribution =
            contribution(&self.codecs, &self.collection, record).map_err(|why| (RefusedAt::Value, why))?;
        Ok((key, contribution))
    }

    fn refused(&self, record: &Record, stage: RefusedAt, why: &Unreadable) -> Outgoing {
        warn!(topic = %record.topic, partition = record.partition, offset = record.offset, error = %why, "record refused");
        self.count("dlq");
        metrics::counter!(names::DLQ_RECORDS, label::STAGE => "merge").increment(1);
        let refusal = Refusal {
            stage,
            service: format!("windfall-merge-{}", self.collection.name),
            instance: self.instance.clone(),
            component: "merge".to_owned(),
            kind: why.kind().to_owned(),
            message: why.to_string(),
            attempts: 1,
            first_failed_ms: self.clock.now().timestamp_millis(),
        };
        dead_letter(record, &self.topics.dead_letters, &refusal)
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(names::RECORDS, label::STAGE => "merge", label::OUTCOME => outcome).increment(1);
    }

    /// Adds what a conclusion writes: the record, its tombstone, the conflicts.
    fn write(
        &self,
        partition: i32,
        asset_id: &str,
        conclusion: &Conclusion,
        work: &mut Work<MergeEffects>,
    ) -> Result<(), TransformerError> {
        let encode = |topic: &str| {
            let topic = topic.to_owned();
            move |source: WireError| TransformerError::Encode { topic, source }
        };
        let Conclusion { record, tombstone, conflicts } = conclusion;
        if record.is_some() || *tombstone {
            let assets = &self.topics.assets;
            let key = AssetKey { asset_id: asset_id.to_owned() };
            let key = self.own.assets.key.encode(&key).map_err(encode(assets))?;
            let name = &self.collection.name;
            if let Some(record) = record {
                let value =
                    self.collection.schema.encode_asset(&self.own.assets.value, record).map_err(encode(assets))?;
                let headers = asset_headers(name, record, false);
                let outgoing = Outgoing::new(assets.as_str(), key.clone(), value).to_partition(partition);
                work.derived.push(outgoing.with_headers(headers));
            }
            if *tombstone {
                let outgoing = Outgoing::tombstone(assets.as_str(), key).to_partition(partition);
                let headers = record.as_ref().map(|record| asset_headers(name, record, true));
                work.derived.push(outgoing.with_headers(headers.unwrap_or_default()));
            }
        }
        for conflict in conflicts {
            let topic = &self.topics.conflicts;
            let key = self.own.conflicts.key.encode(&conflict.key()).map_err(encode(topic))?;
            let value = self.own.conflicts.value.encode(conflict).map_err(encode(topic))?;
            work.follow_up.push(Outgoing::new(topic.as_str(), key, value).to_partition(partition));
        }
        Ok(())
    }

    fn merge_all(&self, records: &[Record]) -> Result<Work<MergeEffects>, TransformerError> {
        let now_ms = self.clock.now().timestamp_millis();
        let mut work: Work<MergeEffects> = Work::empty();
        for record in records {
            let partition = record.partition;
            let folded = self.contributions.get(&partition).map_or(0, |cached| cached.next_offset);
            work.effects.consumed.insert(partition, record.offset + 1);
            if record.offset < folded {
                self.count("stale");
                continue;
            }
            let (key, contribution) = match self.read(record) {
                Ok(read) => read,
                Err((stage, why)) => {
                    work.derived.push(self.refused(record, stage, &why));
                    work.dead_letters += 1;
                    continue;
                }
            };
            let ContributionKey { asset_id, source, source_key } = key;
            let place = (partition, asset_id);
            let mut asset = work.effects.assets.remove(&place).unwrap_or_else(|| self.asset(partition, &place.1));
            if asset.apply((source, source_key), contribution) == Applied::Stale {
                self.count("stale");
            } else {
                let conclusion = asset.conclude(&self.collection, &place.1, record.offset, now_ms);
                self.count(if conclusion.is_empty() { "noop" } else { "ok" });
                self.write(partition, &place.1, &conclusion, &mut work)?;
            }
            work.effects.assets.insert(place, asset);
        }
        debug!(records = records.len(), derived = work.derived.len(), "batch merged");
        Ok(work)
    }

    /// Folds contributions up to the offsets given, and notes the assets that lie ahead.
    async fn fold_contributions(&mut self, upto: BTreeMap<i32, i64>) -> Result<(), TransformerError> {
        let (codecs, runtime, collection) = (self.codecs.clone(), Handle::current(), Arc::clone(&self.collection));
        let limits = upto.clone();
        let fold_one = move |state: &mut Contributions, record: Record| -> Result<(), FoldFailure> {
            codecs.fetch_blocking(&runtime, &record)?;
            // What cannot be read was put into the dead letters when it was first met, or will be when it is.
            let Ok(key) = codecs.key::<ContributionKey>(&record) else { return Ok(()) };
            if limits.get(&record.partition).is_some_and(|upto| record.offset >= *upto) {
                state.ahead.insert(key.asset_id);
                return Ok(());
            }
            let Ok(contribution) = contribution(&codecs, &collection, &record) else { return Ok(()) };
            let known = state.assets.remove(&key.asset_id).unwrap_or_default();
            let mut asset = Asset { contributions: known, ..Asset::default() };
            asset.apply((key.source, key.source_key), contribution);
            if !asset.contributions.is_empty() {
                state.assets.insert(key.asset_id, asset.contributions);
            }
            Ok(())
        };
        let topic = self.topics.contributions.clone();
        let own = Own { topic: &topic, key_schema: self.own.contributions.key.id() };
        let numbers: BTreeSet<i32> = upto.keys().copied().collect();
        let known: BTreeMap<i32, i64> =
            numbers.iter().filter_map(|number| Some((*number, self.contributions.get(number)?.next_offset))).collect();
        for number in &numbers {
            if let Some(cached) = self.contributions.get_mut(number) {
                cached.state.ahead.clear();
            }
        }
        fold::partitions(&self.connection, own, numbers, &mut self.contributions, &self.folding, fold_one).await?;
        for (number, upto) in upto {
            if let Some(cached) = self.contributions.get_mut(&number) {
                // What lies ahead was looked at, not taken in.
                let folded = known.get(&number).copied().unwrap_or(0).max(upto);
                cached.next_offset = cached.next_offset.min(folded);
            }
        }
        Ok(())
    }

    async fn fold_assets(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let (codecs, runtime, collection) = (self.codecs.clone(), Handle::current(), Arc::clone(&self.collection));
        let fold_one = move |state: &mut Lasts, record: Record| -> Result<(), FoldFailure> {
            codecs.fetch_blocking(&runtime, &record)?;
            let key: AssetKey = codecs.key(&record)?;
            let entry = state.entry(key.asset_id).or_insert((None, -1));
            match &record.value {
                None => entry.0 = None,
                Some(value) => {
                    let record = collection.schema.decode_asset(&codecs.of(value)?, value)?;
                    *entry = (None, record.version);
                    entry.0 = Some(Arc::new(record));
                }
            }
            Ok(())
        };
        let topic = self.topics.assets.clone();
        let own = Own { topic: &topic, key_schema: self.own.assets.key.id() };
        fold::partitions(&self.connection, own, numbers, &mut self.lasts, &self.folding, fold_one).await
    }

    async fn fold_conflicts(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let (codecs, runtime) = (self.codecs.clone(), Handle::current());
        let fold_one = move |state: &mut Conflicts, record: Record| -> Result<(), FoldFailure> {
            codecs.fetch_blocking(&runtime, &record)?;
            let Some(conflict) = codecs.value::<Conflict>(&record)? else { return Ok(()) };
            let known = state.entry(conflict.asset_id.clone()).or_default();
            known.retain(|known| known.subject != conflict.subject);
            known.push(conflict);
            Ok(())
        };
        let topic = self.topics.conflicts.clone();
        let own = Own { topic: &topic, key_schema: self.own.conflicts.key.id() };
        fold::partitions(&self.connection, own, numbers, &mut self.conflicts, &self.folding, fold_one).await
    }

    /// Up to where contributions are taken in before anything is computed.
    fn input_offset(&self, at: &TopicPartition, committed: &BTreeMap<TopicPartition, Option<i64>>) -> i64 {
        let recorded = self.lasts.get(&at.partition).is_some_and(|cached| !cached.state.is_empty());
        match committed.get(at).copied().flatten() {
            Some(offset) => offset,
            None if recorded => i64::MAX,
            None => 0,
        }
    }

    /// Notes every asset of the partitions, so that it is merged again.
    fn plan_healing(&mut self, numbers: &BTreeSet<i32>) {
        self.healing.clear();
        for number in numbers {
            let mut assets: BTreeSet<&String> = BTreeSet::new();
            let contributions = self.contributions.get(number).map(|cached| &cached.state);
            assets.extend(contributions.into_iter().flat_map(|state| state.assets.keys()));
            let lasts = self.lasts.get(number).into_iter().flat_map(|cached| &cached.state);
            assets.extend(lasts.filter(|(_, (last, _))| last.is_some()).map(|(asset_id, _)| asset_id));
            assets.extend(self.conflicts.get(number).into_iter().flat_map(|cached| cached.state.keys()));
            assets.retain(|asset_id| !contributions.is_some_and(|state| state.ahead.contains(*asset_id)));
            self.healing.extend(assets.into_iter().map(|asset_id| (*number, asset_id.clone())));
        }
    }

    fn show_conflicts(&self) {
        let open: usize = self
            .conflicts
            .values()
            .flat_map(|cached| cached.state.values())
            .flatten()
            .filter(|conflict| conflict.state == crate::merge::OPEN)
            .count();
        #[allow(clippy::cast_precision_loss)] // A gauge is a float.
        metrics::gauge!(names::CONFLICTS_OPEN, label::COLLECTION => self.collection.name.clone()).set(open as f64);
    }

    /// Puts an asset back into the memory of its partition.
    fn remember(&mut self, partition: i32, asset_id: String, asset: Asset) {
        let Asset { contributions, last, version, conflicts } = asset;
        let known = &mut self.contributions.entry(partition).or_default().state.assets;
        if contributions.is_empty() {
            known.remove(&asset_id);
        } else {
            known.insert(asset_id.clone(), contributions);
        }
        if !conflicts.is_empty() {
            self.conflicts.entry(partition).or_default().state.insert(asset_id.clone(), conflicts);
        }
        self.lasts.entry(partition).or_default().state.insert(asset_id, (last, version));
    }
}

impl Stage for MergeStage {
    type Effects = MergeEffects;

    fn name(&self) -> &'static str {
        "merge"
    }

    async fn take_over(
        &mut self,
        partitions: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<i64>>,
    ) -> Result<Starts, TransformerError> {
        let numbers: BTreeSet<i32> = partitions.iter().map(|at| at.partition).collect();
        self.fold_assets(numbers.clone()).await?;
        self.fold_conflicts(numbers.clone()).await?;
        let upto = partitions.iter().map(|at| (at.partition, self.input_offset(at, committed))).collect();
        self.fold_contributions(upto).await?;
        self.plan_healing(&numbers);
        self.show_conflicts();
        self.moving.clear();
        let mut starts = Starts::new();
        for at in partitions {
            let folded = self.contributions.get(&at.partition).map_or(0, |cached| cached.next_offset);
            let committed = committed.get(at).copied().flatten();
            if committed.unwrap_or(0) < folded {
                self.moving.push((at.clone(), folded));
            }
            starts.insert(at.clone(), if folded == 0 { Start::Beginning } else { Start::At(folded) });
        }
        Ok(starts)
    }

    fn heal(&mut self) -> Result<Option<Work<MergeEffects>>, TransformerError> {
        let now_ms = self.clock.now().timestamp_millis();
        let mut work: Work<MergeEffects> = Work::empty();
        while work.derived.len() + work.follow_up.len() < HEALED_AT_ONCE {
            let Some((partition, asset_id)) = self.healing.pop_front() else {
                work.next_offsets = std::mem::take(&mut self.moving);
                break;
            };
            let mut asset = self.asset(partition, &asset_id);
            // No record caused this; the position that the fold has reached is past all that could have.
            let cause = self.contributions.get(&partition).map_or(0, |cached| cached.next_offset - 1);
            let conclusion = asset.conclude(&self.collection, &asset_id, cause, now_ms);
            if !conclusion.is_empty() {
                self.count("healed");
                self.write(partition, &asset_id, &conclusion, &mut work)?;
                work.effects.assets.insert((partition, asset_id), asset);
            }
        }
        let idle = work.derived.is_empty() && work.follow_up.is_empty() && work.next_offsets.is_empty();
        Ok((!idle).then_some(work))
    }

    async fn compute(&mut self, records: Vec<Record>) -> Result<Work<MergeEffects>, TransformerError> {
        self.codecs.fetch(&records).await?;
        self.merge_all(&records)
    }

    fn settle(&mut self, effects: MergeEffects, committed: &Committed) {
        let MergeEffects { assets, consumed } = effects;
        for ((partition, asset_id), asset) in assets {
            self.remember(partition, asset_id, asset);
        }
        for (partition, next_offset) in consumed {
            let cached = self.contributions.entry(partition).or_default();
            cached.next_offset = cached.next_offset.max(next_offset);
        }
        let written = |topic: &str, delivered: &[Delivered]| {
            let of_topic = delivered.iter().filter(|delivered| *delivered.topic == *topic);
            of_topic.map(|delivered| (delivered.partition, delivered.offset + 1)).collect::<Vec<_>>()
        };
        for (partition, next_offset) in written(&self.topics.assets, &committed.derived) {
            let cached = self.lasts.entry(partition).or_default();
            cached.next_offset = cached.next_offset.max(next_offset);
        }
        for (partition, next_offset) in written(&self.topics.conflicts, &committed.follow_up) {
            let cached = self.conflicts.entry(partition).or_default();
            cached.next_offset = cached.next_offset.max(next_offset);
        }
        if !committed.follow_up.is_empty() {
            self.show_conflicts();
        }
    }

    fn before_commit(&self) {
        failpoint!("transformer.merge.commit.before");
    }

    fn after_commit(&self) {
        failpoint!("transformer.merge.commit.after");
    }
}
