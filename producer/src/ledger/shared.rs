//! One reading of a topic for all sources of a process.
//!
//! Every source needs the records of its own organization, and all of them stand in the same topics. The first source that is
//! taken over reads a topic for all that are expected; each other one reads only what has come since. The order of a take-over
//! holds for each of them: a source has fenced its predecessor before it asks for the ends, and gets its state only when the
//! reading has reached them.
//!
//! | organization | what is kept of it |
//! | --- | --- |
//! | expected: its source has started, or has thrown its writer away | its state as far as the topic was read |
//! | taken: its source works | nothing; the source keeps it |
//! | forgotten: its source stands by, or has ended | nothing; a take-over reads the topic from its beginning |

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest, Folded, Keys};
use windfall_schemas::topic::{CHANGE_PARTITIONS, Names, SINGLE_PARTITION};

use super::fold::{Folds, Taken};
use super::{Cluster, LedgerError};
use crate::checkpoint::Scans;
use crate::fleet::{Fleet, Servers};

/// The producer's topics, as far as sources that are not taken over yet need them.
pub struct Topics {
    pub(super) devices: Shared<Fleet>,
    pub(super) servers: Shared<Servers>,
    pub(super) scans: Shared<Scans>,
}

impl Topics {
    pub(crate) fn new(names: &Names) -> Self {
        Self {
            devices: Shared::new(names.devices(), CHANGE_PARTITIONS),
            servers: Shared::new(names.servers(), SINGLE_PARTITION),
            scans: Shared::new(names.scans(), SINGLE_PARTITION),
        }
    }

    /// Announces that the source of an organization will be taken over soon.
    pub fn expect(&self, org: &str) {
        self.devices.lock().expected.insert(org.to_owned());
        self.servers.lock().expected.insert(org.to_owned());
        self.scans.lock().expected.insert(org.to_owned());
    }

    /// Tells that it will not be.
    pub fn forget(&self, org: &str) {
        self.devices.lock().forget(org);
        self.servers.lock().forget(org);
        self.scans.lock().forget(org);
    }
}

/// One topic.
pub(super) struct Shared<S> {
    topic: String,
    partitions: i32,
    /// Held by the take-over that reads.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<Waiting<S>>,
    /// How far the present reading has come, for all who wait for it.
    progress: watch::Sender<FoldProgress>,
}

/// The organizations that are expected, and what was read of the topic for them up to `next_offsets`.
struct Waiting<S> {
    expected: BTreeSet<String>,
    states: States<S>,
    keys: BTreeMap<i32, Keys>,
    next_offsets: BTreeMap<i32, i64>,
}

/// What was folded, by organization.
type States<S> = BTreeMap<String, Taken<S>>;

impl<S> Waiting<S> {
    fn forget(&mut self, org: &str) {
        self.expected.remove(org);
        self.states.remove(org);
    }
}

/// What a take-over gets of a topic.
pub(super) struct Share<S> {
    pub(super) state: Taken<S>,
    /// Up to where the topic was read.
    pub(super) next_offsets: BTreeMap<i32, i64>,
    /// How many records were read for it; what another take-over has read is not counted again.
    pub(super) records: u64,
    /// How many records have keys that cannot be read.
    pub(super) passed_over: u64,
}

impl<S: Folds> Shared<S> {
    fn new(topic: String, partitions: i32) -> Self {
        let (expected, states) = (BTreeSet::new(), States::new());
        let waiting = Waiting { expected, states, keys: BTreeMap::new(), next_offsets: BTreeMap::new() };
        let (turn, waiting, progress) = (tokio::sync::Mutex::default(), Mutex::new(waiting), watch::Sender::default());
        Self { topic, partitions, turn, waiting, progress }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<S>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an organization's state over, read to the ends that the topic has now or later. Its predecessor must be fenced.
    pub(super) async fn take(
        &self,
        cluster: &Cluster,
        org: &str,
        report: impl Fn(&FoldProgress),
    ) -> Result<Share<S>, LedgerError> {
        let mut progress = self.progress.subscribe();
        let mut reading = pin!(self.read(cluster, org));
        loop {
            tokio::select! {
                share = &mut reading => return share,
                Ok(()) = progress.changed() => report(&progress.borrow_and_update()),
            }
        }
    }

    async fn read(&self, cluster: &Cluster, org: &str) -> Result<Share<S>, LedgerError> {
        let _turn = self.turn.lock().await;
        let (states, keys, next_offsets) = self.lock().begin(org);
        let request = match next_offsets.is_empty() {
            true => FoldRequest::whole(&self.topic, 0..self.partitions),
            false => FoldRequest::tail(&self.topic, &next_offsets),
        };
        let request = request.reporting(self.progress.clone());
        let decoder = cluster.codecs.decoder.clone();
        let on_record = move |states: &mut States<S>, key: S::Key, record: &Record| {
            if let Some(state) = states.get_mut(S::names(&key).0) {
                state.take(&decoder, key, record);
            }
        };
        let decoder = &cluster.codecs.decoder;
        let folded = table::fold_keyed(&cluster.connection, decoder, request, (states, keys), on_record).await?;
        let Folded { state: (mut states, keys), next_offsets, records } = folded;
        let passed_over = keys.values().map(|keys| keys.passed_over).sum();
        let state = states.remove(org).unwrap_or_default();
        let mut waiting = self.lock();
        waiting.expected.remove(org);
        states.retain(|org, _| waiting.expected.contains(org));
        (waiting.states, waiting.keys, waiting.next_offsets) = (states, keys, next_offsets.clone());
        Ok(Share { state, next_offsets, records, passed_over })
    }
}

impl<S: Folds> Waiting<S> {
    /// Returns what is read already. An organization that is not part of it needs the whole topic, and then all others that
    /// are expected get it as well. Where the reading fails, the next one begins anew.
    fn begin(&mut self, org: &str) -> (States<S>, BTreeMap<i32, Keys>, BTreeMap<i32, i64>) {
        self.expected.insert(org.to_owned());
        let read = (mem::take(&mut self.states), mem::take(&mut self.keys), mem::take(&mut self.next_offsets));
        if read.0.contains_key(org) {
            return read;
        }
        let states = self.expected.iter().map(|org| (org.clone(), Taken::default())).collect();
        (states, BTreeMap::new(), BTreeMap::new())
    }
}
