//! What a worker does while it waits: for brokers, in its back-off, for the end of a reconciliation.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use windfall_schemas::topic::Names;

use tokio::time::timeout;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::health::StatusRegistry;
use crate::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use crate::kafka::consumer::{BatchLimits, Group, Start};
use crate::kafka::groups::CommittedOffset;
use crate::kafka::publisher::{self, Publisher, Transaction};
use crate::kafka::table::FoldRequest;
use crate::kafka::topics::TopicSpec;
use crate::kafka::{Membership, Outgoing, Record};
use crate::kafka::{table, topics};

const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: usize = 3;

/// A stage that computes nothing, and whose reconciliation takes as many rounds as it is told.
#[derive(Default)]
struct Idle {
    /// Why it is held.
    held: Option<&'static str>,
    /// Rounds still to be gone.
    rounds: u32,
    /// The round in which the process is told to stop.
    stop_at: Option<(u32, CancellationToken)>,
    /// What a round of reconciliation writes.
    differences: Vec<Outgoing>,
    /// How many batches fail.
    fails: u32,
}

impl Stage for Idle {
    type Effects = ();
    type Error = WorkerError;

    fn name(&self) -> &'static str {
        "idle"
    }

    async fn take_over(
        &mut self,
        _: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
        _: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Taken, WorkerError> {
        if let Some(reason) = self.held.take() {
            return Ok(Taken::Held(reason.to_owned()));
        }
        Ok(Taken::From(committed.iter().map(|(at, known)| (at.clone(), Start::from(known.as_ref()))).collect()))
    }

    fn reconcile(&mut self) -> Result<Option<Work<()>>, WorkerError> {
        if let Some((_, stop)) = self.stop_at.as_ref().filter(|(round, _)| *round == self.rounds) {
            stop.cancel();
        }
        self.rounds = self.rounds.saturating_sub(1);
        Ok((self.rounds > 0).then(|| Work { derived: self.differences.clone(), ..Work::default() }))
    }

    async fn compute(&mut self, _: Vec<Record>) -> Result<Work<()>, WorkerError> {
        if self.fails > 0 {
            self.fails -= 1;
            let why = "it fails".to_owned();
            return Err(publisher::PublishError::Dead { transactional_id: "idle".to_owned(), why }.into());
        }
        Ok(Work::default())
    }

    fn settle(&mut self, (): (), _: &publisher::Committed) {}
}

/// A worker over a topic of one partition with three records, driven by hand.
struct Bench {
    worker: Worker<Transactional<Idle>>,
    consumer: GroupConsumer,
    group: Group,
    status: StatusRegistry,
}

fn connection(servers: &str, prefix: &str) -> Connection {
    let mut kafka = KafkaConfig::new(servers, SchemaRegistryConfig::embedded(None));
    kafka.topic_prefix = prefix.to_owned();
    kafka.replication_factor = 1;
    Connection::new(&kafka, "idle", "one")
}

impl Bench {
    async fn new(name: &str) -> Self {
        Self::member(name, Membership::Dynamic).await
    }

    async fn member(name: &str, membership: Membership) -> Self {
        let servers = tokio::task::spawn_blocking(windfall_services::kafka).await.unwrap();
        let prefix = format!("{name}-{}-{}.", std::process::id(), Utc::now().timestamp_micros());
        let (connection, names) = (connection(servers, &prefix), Names::new(&*prefix));
        let declared = names.base_topics().into_iter().find(|spec| spec.name == names.rejects()).unwrap();
        let topic = names.topic("idle");
        let spec = TopicSpec { name: topic.clone(), partitions: 1, ..declared };
        topics::ensure(&connection, &[spec], ManageTopics::Create).await.unwrap();
        let options = GroupOptions {
            group: names.topic("group"),
            topics: vec![topic],
            membership,
            limits: BatchLimits::default(),
        };
        let status = StatusRegistry::new("one", SystemClock::shared());
        let consumer = GroupConsumer::start(&connection, options.clone()).unwrap();
        let stage = Transactional::new(Idle::default(), connection.clone(), names.topic("loop"));
        let options = WorkerOptions { group: options, labels: Vec::new(), once: false };
        let part = status.part("idle", SILENCE);
        let worker = Worker::new(stage, connection, options, part, CancellationToken::new());
        let bench = Self { worker, group: consumer.group(), consumer, status };
        bench.publish().await;
        bench
    }

    /// Writes three records and, behind them, their transaction's marker.
    async fn publish(&self) {
        let names = Names::new(&*self.worker.connection.config().topic_prefix);
        let mut publisher = Publisher::start(&self.worker.connection, &names.topic("writer")).await.unwrap();
        let derived = vec![Outgoing::new(names.topic("idle"), &b"key"[..], &b"value"[..]); RECORDS];
        publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    }

    async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.consumer.next()).await.expect("something comes")
    }

    /// Waits for the assignment.
    async fn join(&mut self) -> Assignment {
        let Event::Assigned(assignment) = self.event().await else { panic!("an assignment comes first") };
        self.worker.assignment = Some(assignment.clone());
        assignment
    }

    async fn take_over(&mut self) -> Result<Option<Event>, WorkerError> {
        let take_over = self.worker.take_over(&mut self.consumer, &self.group);
        timeout(PATIENCE, take_over).await.expect("a take-over ends by itself")
    }

    async fn beat(&mut self) -> Option<Event> {
        let beat = self.worker.beat(&mut self.consumer);
        timeout(PATIENCE, beat).await.expect("a beat ends by itself").unwrap()
    }

    /// Hands batches on until `enough`.
    async fn process_until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let Event::Batch(batch) = self.event().await else { panic!("nothing else happens") };
            self.worker.process(batch).await.unwrap();
        }
    }

    fn position(&self) -> i64 {
        *self.worker.positions.values().next().unwrap()
    }

    /// Leaves one record behind for the next take-over.
    fn leave_one_difference(&mut self) {
        let record = Outgoing::new(self.worker.options.group.topics[0].as_str(), &b"key"[..], &b"difference"[..]);
        self.stage().rounds = 2;
        self.stage().differences = vec![record];
    }

    fn stage(&mut self) -> &mut Idle {
        self.worker.handler.stage()
    }

    /// Counts what readers of committed records see in the topic.
    async fn written(&self) -> usize {
        let request = FoldRequest::whole(self.worker.options.group.topics[0].as_str(), 0..1);
        let count = |seen: &mut usize, _| {
            *seen += 1;
            Ok(())
        };
        table::fold(&connection(windfall_services::kafka(), ""), request, 0, count).await.unwrap().state
    }

    /// Lets the worker, but not its consumer, ask a broker that accepts and never answers.
    fn silence_brokers(&mut self) -> TcpListener {
        let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
        self.worker.connection = connection(&deaf.local_addr().unwrap().to_string(), "");
        deaf
    }

    fn part(&self) -> crate::health::PartStatus {
        self.status.snapshot().parts["idle"].clone()
    }
}

/// The end of the topic: the marker behind the records is an offset, too.
const END: i64 = RECORDS as i64 + 1;

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_counts_what_is_not_durable_also_while_nothing_can_be_done() {
    let mut bench = Bench::new("lag").await;
    bench.join().await;
    bench.take_over().await.unwrap();
    bench.process_until(|bench| bench.position() == END).await;
    let before = bench.part().progress_at;
    assert!(bench.beat().await.is_none());
    assert!(bench.part().progress_at > before, "to be at the end is progress");
    assert_eq!(bench.part().details["lag_records"], 0);
    assert_eq!(bench.part().details["partitions"], 1);
    bench.stage().fails = 1;
    bench.publish().await;
    bench.process_until(|bench| bench.worker.again_at.is_some()).await;
    assert_eq!(bench.part().state, PartState::Paused);
    bench.beat().await;
    assert_eq!(bench.part().details["lag_records"], END, "read, but not durable");
    let paused_at = bench.part().progress_at;
    bench.take_over().await.unwrap();
    assert_eq!(bench.part().state, PartState::Paused, "what failed is only read again");
    bench.process_until(|bench| bench.position() == 2 * END).await;
    assert!(bench.part().state == PartState::Running && bench.part().progress_at > paused_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hears_nothing_any_more_makes_no_progress() {
    let mut bench = Bench::new("deaf").await;
    let assignment = bench.join().await;
    // No partition is named, so that none flows.
    bench.worker.begin(&bench.group, &assignment, Starts::new()).await.unwrap();
    let began = bench.part().progress_at;
    for _ in 0..2 {
        assert!(bench.beat().await.is_none());
        assert_eq!(bench.part().details["lag_records"], END);
        assert_eq!(bench.part().progress_at, began, "that brokers answer is none");
    }
    bench.worker.lag = Some(100);
    bench.beat().await;
    assert!(bench.part().progress_at > began, "to have come nearer is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_brokers_hold_up_loses_no_batch_and_gives_way_to_a_rebalance_and_to_a_shutdown() {
    let mut bench = Bench::new("held-up").await;
    bench.join().await;
    bench.take_over().await.unwrap();
    let _deaf = bench.silence_brokers();
    assert!(bench.beat().await.is_none());
    assert_eq!(bench.part().details.get("lag_records"), None, "what was not told is not shown");
    bench.process_until(|bench| bench.position() == END).await;
    let options = bench.worker.options.group.clone();
    let second = GroupConsumer::start(&connection(windfall_services::kafka(), ""), options).unwrap();
    let revoked = async {
        loop {
            if let Some(Event::Revoked(revoked)) = bench.beat().await {
                break revoked;
            }
        }
    };
    let revoked = timeout(PATIENCE, revoked).await.expect("the rebalance is seen");
    assert_eq!(revoked.partitions.len(), 1);
    revoked.ack();
    second.close().await;
    bench.worker.stop.cancel();
    assert!(bench.beat().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_held_says_why_and_is_asked_again() {
    let mut bench = Bench::new("held").await;
    bench.join().await;
    bench.stage().held = Some("too much would be deleted");
    bench.take_over().await.unwrap();
    assert!(bench.worker.session.is_none() && bench.worker.again_at.is_some());
    let part = bench.part();
    assert_eq!((part.state, part.ready), (PartState::Held, false));
    assert_eq!(part.details["reason"], "too much would be deleted");
    bench.take_over().await.unwrap();
    assert_eq!(bench.part().state, PartState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_given_up_moves_no_more_until_the_assignment_is_taken_over_again() {
    let mut bench = Bench::new("given-up").await;
    let assignment = bench.join().await;
    bench.take_over().await.unwrap();
    let Event::Batch(batch) = bench.event().await else { panic!("a batch comes next") };
    bench.worker.give_up(&bench.group, &assignment.partitions);
    assert_eq!(bench.part().details["given_up"], serde_json::json!([0]));
    bench.worker.process(batch).await.unwrap();
    assert_eq!(bench.position(), 0);
    assert!(bench.worker.again_at.is_some_and(|again_at| again_at > Instant::now() + connection::SESSION_TIMEOUT));
    bench.take_over().await.unwrap();
    assert_eq!(bench.part().details.get("given_up"), None);
    bench.process_until(|bench| bench.position() == END).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciliation_that_a_shutdown_meets_is_left_for_the_next_take_over() {
    let mut bench = Bench::new("reconciling").await;
    let stop = bench.worker.stop.clone();
    *bench.stage() = Idle { rounds: 10, stop_at: Some((7, stop)), ..Idle::default() };
    let assignment = bench.join().await;
    bench.worker.begin(&bench.group, &assignment, Starts::new()).await.unwrap();
    assert_eq!(bench.stage().rounds, 6, "no round was begun after the shutdown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciliation_moves_no_position() {
    let mut bench = Bench::new("in-office").await;
    let assignment = bench.join().await;
    bench.leave_one_difference();
    assert!(bench.take_over().await.unwrap().is_none());
    assert_eq!(bench.written().await, RECORDS + 1);
    let at = assignment.partitions[0].clone();
    let group = bench.group.clone();
    let position = || async {
        let committed = group.committed(&assignment.partitions).await.unwrap();
        committed[&at].as_ref().map(|committed| committed.position.next_offset)
    };
    assert_eq!(position().await, Some(0), "where reading begins, as none was ever committed");
    let epoch = bench.worker.session.as_ref().unwrap().epoch;
    group.commit(epoch, &[(at.clone(), 2)]).await.unwrap();
    bench.leave_one_difference();
    assert!(bench.take_over().await.unwrap().is_none());
    assert_eq!(bench.written().await, RECORDS + 2);
    assert_eq!(position().await, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_another_has_replaced_publishes_no_differences() {
    let mut bench = Bench::member("replaced", Membership::Static { instance: "one".to_owned() }).await;
    bench.join().await;
    // As after a long stop: the group has given the place away, and this member has not heard of it yet.
    let servers = connection(windfall_services::kafka(), "");
    let mut heir = GroupConsumer::start(&servers, bench.worker.options.group.clone()).unwrap();
    let event = timeout(PATIENCE, heir.next()).await.expect("the heir is served");
    assert!(matches!(event, Event::Assigned(_)), "{event:?}");
    bench.leave_one_difference();
    let _ = bench.take_over().await;
    assert_eq!(bench.written().await, RECORDS, "nothing was written behind the heir");
    assert!(bench.worker.session.is_none());
    heir.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_that_waits_gives_way_to_a_shutdown() {
    let mut bench = Bench::new("take-over").await;
    let deaf = bench.silence_brokers();
    bench.worker.handler = Transactional::new(Idle::default(), bench.worker.connection.clone(), "loop".to_owned());
    bench.join().await;
    let stop = bench.worker.stop.clone();
    // The writer finds no broker; the test's own broker has long answered when the shutdown comes.
    let group = bench.group.clone();
    let taken = async {
        let stopping = async {
            group.committed(&[]).await.unwrap();
            stop.cancel();
        };
        tokio::join!(bench.take_over(), stopping).0
    };
    assert!(taken.await.unwrap().is_none());
    assert!(bench.worker.session.is_none());
    drop(deaf);
}

#[tokio::test]
async fn work_is_given_up_after_its_session_has_ended_and_never_before() {
    let options = GroupOptions {
        group: "group".to_owned(),
        topics: vec!["idle".to_owned()],
        membership: Membership::Dynamic,
        limits: BatchLimits::default(),
    };
    let consumer = GroupConsumer::start(&connection("127.0.0.1:1", ""), options).unwrap();
    let (group, stop) = (consumer.group(), CancellationToken::new());
    let session = Session { group, epoch: 7, starts: BTreeMap::new(), stop };
    assert!(session.is_over(), "there is no such epoch");
    assert_eq!(session.finish(tokio::task::yield_now()).await, Some(()), "it still has its time");
    assert_eq!(session.finish_within(Duration::ZERO, std::future::pending::<()>()).await, None);
}

/// A clock whose waits end at once.
#[derive(Default)]
struct Hurried(Mutex<Duration>);

impl Clock for Hurried {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        *self.0.lock().unwrap() += duration;
        Box::pin(std::future::ready(()))
    }
}

fn worker(servers: &str, once: bool, status: &StatusRegistry, stop: &CancellationToken) -> Worker<Transactional<Idle>> {
    let group = GroupOptions {
        group: "group".to_owned(),
        topics: vec!["idle".to_owned()],
        membership: Membership::Dynamic,
        limits: BatchLimits::default(),
    };
    let connection = connection(servers, "");
    let stage = Transactional::new(Idle::default(), connection.clone(), "loop".to_owned());
    let options = WorkerOptions { group, labels: Vec::new(), once };
    Worker::new(stage, connection, options, status.part("idle", SILENCE), stop.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_a_slow_leader_has_failed_is_followed_by_another() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("idle", 1, 1).unwrap();
    let status = StatusRegistry::new("one", SystemClock::shared());
    let part = || status.snapshot().parts["idle"].clone();
    // An ask takes two requests, for the first offset and for the last.
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 2]);
    let stop = CancellationToken::new();
    let mut worker = worker(&cluster.bootstrap_servers(), false, &status, &stop);
    let serving = tokio::spawn(async move { worker.run().await });
    let mut reason = None;
    let assigned = async {
        while part().state != PartState::Running {
            reason = reason.take().or_else(|| part().details.get("reason").cloned());
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, assigned).await.expect("another member takes its place");
    let reason = reason.unwrap_or_default().to_string();
    assert!(reason.contains("first offsets"), "it says what failed: {reason}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_single_run_that_does_nothing_any_more_ends_and_says_what_it_waited_for() {
    let status = StatusRegistry::new("one", Arc::new(Hurried::default()));
    let mut worker = worker("127.0.0.1:1", true, &status, &CancellationToken::new());
    worker.part.waits_for(Some("a writer".to_owned()));
    let ended = worker.run().await;
    let Err(error @ WorkerError::Stalled { .. }) = &ended else { panic!("{ended:?}") };
    assert!(!error.may_pass() && error.help().is_some() && error.to_string().ends_with("it waited for: a writer"));
    assert_eq!(status.snapshot().parts["idle"].state, PartState::Failed);
}
