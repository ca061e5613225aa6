//! What a loop does while it waits: for brokers, in its back-off, for the end of a healing.

use std::collections::BTreeMap;
use std::net::TcpListener;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use windfall_runtime::clock::SystemClock;
use windfall_runtime::health::Status;
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use windfall_runtime::kafka::consumer::{Committed, GroupOptions, Start};
use windfall_runtime::kafka::publisher;
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_runtime::kafka::topics::{self, TopicSpec};
use windfall_runtime::kafka::{Outgoing, Record};
use windfall_schemas::topic::Names;

use super::takeover::Ground;
use super::*;
use crate::stage::{Details, Starts};

const PATIENCE: Duration = Duration::from_secs(60);

/// A stage that computes nothing, and whose healing takes as many rounds as it is told.
struct Idle {
    /// Rounds still to be gone.
    rounds: u32,
    /// The round in which the process is told to stop.
    stop_at: Option<(u32, CancellationToken)>,
    /// What a healing round writes.
    heals: Vec<Outgoing>,
}

impl Stage for Idle {
    type Effects = ();

    fn name(&self) -> &'static str {
        "idle"
    }

    async fn take_over(
        &mut self,
        _: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<Committed>>,
    ) -> Result<Starts, TransformerError> {
        Ok(committed.iter().map(|(at, offset)| (at.clone(), Start::from(offset.as_ref()))).collect())
    }

    fn heal(&mut self) -> Result<Option<Work<()>>, TransformerError> {
        if let Some((_, stop)) = self.stop_at.as_ref().filter(|(round, _)| *round == self.rounds) {
            stop.cancel();
        }
        self.rounds = self.rounds.saturating_sub(1);
        Ok((self.rounds > 0).then(|| Work { derived: self.heals.clone(), ..Work::empty() }))
    }

    async fn compute(&mut self, _: Vec<Record>) -> Result<Work<()>, TransformerError> {
        Ok(Work::empty())
    }

    fn settle(&mut self, (): (), _: &publisher::Committed) {}

    fn details(&self) -> Details {
        Vec::new()
    }

    fn before_commit(&self) {}

    fn after_commit(&self) {}
}

/// A loop over a topic of one partition with three records, driven by hand.
struct Bench {
    driver: Driver<Idle>,
    consumer: GroupConsumer,
    group: Group,
    status: Status,
    options: GroupOptions,
}

const RECORDS: usize = 3;

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
        let prefix = format!("{name}-{}-{}.", std::process::id(), chrono::Utc::now().timestamp_micros());
        let (connection, names) = (connection(servers, &prefix), Names::new(&*prefix));
        let declared = names.base_topics().into_iter().find(|spec| spec.name == names.rejects()).unwrap();
        let topic = names.topic("idle");
        let spec = TopicSpec { name: topic.clone(), partitions: 1, ..declared };
        topics::ensure(&connection, &[spec], ManageTopics::Create).await.unwrap();
        let mut publisher = Publisher::start(&connection, &names.topic("writer")).await.unwrap();
        let derived = vec![Outgoing::new(topic.as_str(), &b"key"[..], &b"value"[..]); RECORDS];
        publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
        let options = GroupOptions {
            group: names.topic("group"),
            topics: vec![topic.clone()],
            membership: membership.clone(),
            limits: BatchLimits::default(),
        };
        let driver = DriverOptions {
            group: options.group.clone(),
            topics: options.topics.clone(),
            partitions: 1,
            transactional_id: names.topic("loop"),
            membership,
            limits: options.limits,
            once: false,
            stall: Stall::default(),
        };
        let status = Status::new("one", SystemClock::shared());
        let consumer = GroupConsumer::start(&connection, options.clone()).unwrap();
        let stage = Idle { rounds: 0, stop_at: None, heals: Vec::new() };
        let part = status.part("idle", SILENCE);
        let driver = Driver::new(stage, connection, driver, part, CancellationToken::new());
        Self { driver, group: consumer.group(), consumer, status, options }
    }

    async fn event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.consumer.next()).await.expect("something comes")
    }

    /// Waits for the assignment and begins to read.
    async fn begin(&mut self) {
        let Event::Assigned(assignment) = self.event().await else { panic!("an assignment comes first") };
        let starts = assignment.partitions.iter().map(|at| (at.clone(), Start::Beginning)).collect();
        let ground = Ground { starts, ..Ground::default() };
        self.driver.begin(&self.group, &assignment, ground).await.unwrap();
    }

    async fn beat(&mut self) -> Step {
        let beat = self.driver.beat(&mut self.consumer, &self.group);
        tokio::time::timeout(PATIENCE, beat).await.expect("a beat ends by itself")
    }

    /// Leaves one record behind for the next take-over.
    fn heal_one(&mut self) {
        let record = Outgoing::new(self.options.topics[0].as_str(), &b"key"[..], &b"healed"[..]);
        self.driver.stage = Idle { rounds: 2, stop_at: None, heals: vec![record] };
    }

    async fn take(&mut self, assignment: Assignment) -> Result<Step, TransformerError> {
        let take = self.driver.take(&mut self.consumer, &self.group, assignment);
        tokio::time::timeout(PATIENCE, take).await.expect("a take-over ends by itself")
    }

    /// Counts what readers of committed records see in the topic.
    async fn written(&self) -> usize {
        let request = FoldRequest::whole(self.options.topics[0].as_str(), 0..1);
        let count = |seen: &mut usize, _| {
            *seen += 1;
            Ok(())
        };
        table::fold(&connection(windfall_services::kafka(), ""), request, 0, count).await.unwrap().state
    }

    /// Lets the driver, but not its consumer, ask a broker that accepts and never answers.
    fn silence_brokers(&mut self) -> TcpListener {
        let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
        self.driver.connection = connection(&deaf.local_addr().unwrap().to_string(), "");
        deaf
    }

    fn progress_at(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        self.status.snapshot().parts["idle"].progress_at
    }

    fn detail(&self, name: &str) -> Option<serde_json::Value> {
        self.status.snapshot().parts["idle"].details.get(name).cloned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_shows_the_lag_by_position() {
    let mut bench = Bench::new("beat").await;
    bench.begin().await;
    // The marker behind the records is an offset, too.
    let end = i64::try_from(RECORDS).unwrap() + 1;
    let mut read = 0;
    loop {
        let Event::Batch(batch) = bench.event().await else { panic!("nothing else happens") };
        read += batch.records.len();
        if batch.reached.iter().any(|reached| reached.next_offset == end) {
            break;
        }
    }
    assert_eq!(read, RECORDS);
    let before = bench.progress_at();
    assert!(matches!(bench.beat().await, Step::Done));
    assert!(bench.progress_at() > before, "to be at the end is progress");
    assert_eq!((bench.detail("lag_records"), bench.detail("partitions")), (Some(0.into()), Some(1.into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_of_a_loop_that_hears_nothing_any_more_is_no_progress() {
    let mut bench = Bench::new("deaf").await;
    let Event::Assigned(assignment) = bench.event().await else { panic!("an assignment comes first") };
    // No partition is named, so that none flows.
    bench.driver.begin(&bench.group, &assignment, Ground::default()).await.unwrap();
    let began = bench.progress_at();
    for _ in 0..2 {
        assert!(matches!(bench.beat().await, Step::Done));
        assert_eq!(bench.detail("lag_records"), Some((RECORDS + 1).into()));
        assert_eq!(bench.progress_at(), began, "brokers that answer are none");
    }
    bench.driver.held.as_mut().unwrap().lag = Some(100);
    assert!(matches!(bench.beat().await, Step::Done));
    assert!(bench.progress_at() > began, "to have come nearer is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_brokers_hold_up_loses_no_batch() {
    let mut bench = Bench::new("held-up").await;
    let _deaf = bench.silence_brokers();
    bench.begin().await;
    let read = async {
        let mut read = 0;
        while read < RECORDS {
            match bench.beat().await {
                Step::Interrupted(Turn::Event(Event::Batch(batch))) => read += batch.records.len(),
                Step::Done => {}
                _ => panic!("nothing else happens"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("every batch comes through");
    assert_eq!(bench.detail("lag_records"), None, "what was not told is not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beat_that_brokers_hold_up_gives_way_to_a_rebalance_and_to_a_shutdown() {
    let mut bench = Bench::new("gives-way").await;
    let _deaf = bench.silence_brokers();
    bench.begin().await;
    let second = GroupConsumer::start(&connection(windfall_services::kafka(), ""), bench.options.clone()).unwrap();
    let revoked = async {
        loop {
            if let Step::Interrupted(Turn::Event(Event::Revoked(revoked))) = bench.beat().await {
                break revoked;
            }
        }
    };
    let revoked = tokio::time::timeout(PATIENCE, revoked).await.expect("the rebalance is seen");
    assert_eq!(revoked.partitions.len(), 1);
    revoked.ack();
    second.close().await;
    bench.driver.shutdown.cancel();
    assert!(matches!(bench.beat().await, Step::Interrupted(Turn::Stop)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_off_ends_by_itself_and_at_once_when_the_process_is_to_stop() {
    let mut bench = Bench::new("back-off").await;
    let Event::Assigned(assignment) = bench.event().await else { panic!("an assignment comes first") };
    let turn = bench.driver.pause(&mut bench.consumer, assignment.clone(), PAUSE).await;
    assert!(matches!(turn, Turn::Retake(again) if again.id == assignment.id));
    bench.driver.shutdown.cancel();
    assert!(matches!(bench.driver.pause(&mut bench.consumer, assignment, PATIENCE).await, Turn::Stop));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healing_that_a_shutdown_meets_is_left_for_the_next_take_over() {
    let mut bench = Bench::new("healing").await;
    bench.driver.stage = Idle { rounds: 10, stop_at: Some((7, bench.driver.shutdown.clone())), heals: Vec::new() };
    bench.begin().await;
    assert_eq!(bench.driver.stage.rounds, 6, "no round was begun after the shutdown");
    assert!(bench.driver.held.is_none(), "nothing is computed over what is not healed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healing_moves_no_position() {
    let mut bench = Bench::new("in-office").await;
    let Event::Assigned(assignment) = bench.event().await else { panic!("an assignment comes first") };
    bench.heal_one();
    assert!(matches!(bench.take(assignment.clone()).await, Ok(Step::Done)));
    assert_eq!(bench.written().await, RECORDS + 1);
    let at = assignment.partitions[0].clone();
    let group = bench.group.clone();
    let positions = || group.committed(&assignment.partitions);
    let offset = |committed: &Option<Committed>| committed.as_ref().map(|committed| committed.position.next_offset);
    assert_eq!(offset(&positions().await.unwrap()[&at]), Some(0), "where reading begins, as none was ever committed");
    let epoch = bench.driver.held.as_ref().unwrap().epoch;
    bench.group.commit(epoch, &[(at.clone(), 2)]).await.unwrap();
    bench.heal_one();
    assert!(matches!(bench.take(assignment.clone()).await, Ok(Step::Done)));
    assert_eq!(bench.written().await, RECORDS + 2);
    assert_eq!(offset(&positions().await.unwrap()[&at]), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_another_has_replaced_publishes_no_differences() {
    let mut bench = Bench::member("replaced", Membership::Static { instance: "one".to_owned() }).await;
    let Event::Assigned(assignment) = bench.event().await else { panic!("an assignment comes first") };
    // As after a long stop: the group has given the place away, and this member has not heard of it yet.
    let servers = connection(windfall_services::kafka(), "");
    let mut heir = GroupConsumer::start(&servers, bench.options.clone()).unwrap();
    let event = tokio::time::timeout(PATIENCE, heir.next()).await.expect("the heir is served");
    assert!(matches!(event, Event::Assigned(_)), "{event:?}");
    bench.heal_one();
    let taken = bench.take(assignment).await;
    assert_eq!(bench.written().await, RECORDS, "nothing was written behind the heir");
    assert!(!matches!(taken, Ok(Step::Done)) && bench.driver.held.is_none());
    heir.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_that_waits_gives_way_to_a_shutdown() {
    let mut bench = Bench::new("take-over").await;
    let _deaf = bench.silence_brokers();
    let Event::Assigned(assignment) = bench.event().await else { panic!("an assignment comes first") };
    let shutdown = bench.driver.shutdown.clone();
    // The writer finds no broker; the test's own broker has long answered when the shutdown comes.
    let (take, stop) = (bench.driver.take(&mut bench.consumer, &bench.group, assignment), async {
        bench.group.committed(&[]).await.unwrap();
        shutdown.cancel();
    });
    let taken = tokio::time::timeout(PATIENCE, async { tokio::join!(take, stop).0 }).await;
    assert!(matches!(taken.expect("it does not wait for brokers"), Ok(Step::Interrupted(Turn::Stop))));
}

#[tokio::test]
async fn a_commit_is_given_up_after_a_shutdown_and_never_before() {
    let shutdown = CancellationToken::new();
    let commit = tokio::task::yield_now();
    let in_time = tokio::select! {
        () = commit => true,
        () = overdue(&shutdown, Duration::ZERO) => false,
    };
    assert!(in_time);
    shutdown.cancel();
    let in_time = tokio::select! {
        () = std::future::pending() => true,
        () = overdue(&shutdown, Duration::ZERO) => false,
    };
    assert!(!in_time);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_a_slow_leader_has_failed_is_followed_by_another() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("idle", 1, 1).unwrap();
    let status = Status::new("one", SystemClock::shared());
    let options = DriverOptions {
        group: "group".to_owned(),
        topics: vec!["idle".to_owned()],
        partitions: 1,
        transactional_id: "loop".to_owned(),
        membership: Membership::Dynamic,
        limits: BatchLimits::default(),
        once: false,
        stall: Stall::default(),
    };
    let part = || status.snapshot().parts["idle"].clone();
    // An ask takes two requests, for the first offset and for the last.
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 2]);
    let stop = CancellationToken::new();
    let stage = Idle { rounds: 0, stop_at: None, heals: Vec::new() };
    let connection = connection(&cluster.bootstrap_servers(), "");
    let driver = Driver::new(stage, connection, options, status.part("idle", SILENCE), stop.clone());
    let serving = tokio::spawn(driver.run());
    let mut reason = None;
    let assigned = async {
        while part().state != State::Running {
            reason = reason.take().or_else(|| part().details.get("reason").cloned());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, assigned).await.expect("another member takes its place");
    let reason = reason.unwrap_or_default().to_string();
    assert!(reason.contains("first offsets"), "it says what failed: {reason}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_that_does_nothing_any_more_ends_and_says_what_it_waited_for() {
    let mut bench = Bench::new("stalled").await;
    let deaf = bench.silence_brokers();
    bench.driver.options.once = true;
    bench.driver.options.stall = Stall::new(Duration::from_secs(1));
    bench.driver.options.stall.failed("a writer");
    let ended = tokio::time::timeout(PATIENCE, bench.driver.run()).await.expect("it ends by itself");
    let Err(TransformerError::Stalled { reason, .. }) = &ended else { panic!("{ended:?}") };
    assert_eq!(reason, "a writer");
    assert!(ended.is_err_and(|error| !error.may_pass() && error.help().is_some()));
    drop(deaf);
}
