//! The whole pipeline, each stage a process of its own, judged by the laws.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use windfall_simulator::{Command, ReleaseAnswer, Round, Simulator};
use windfall_tests::journal::{complete_scans, scans_ended};
use windfall_tests::process::Windfall;
use windfall_tests::topics::{Entry, Isolation, TopicReader};
use windfall_tests::vacuity;
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::{PROGRAM, STAGES, settle, stop};

/// Where each stage is killed in each round, one process a label: before what it writes is durable, after that and before it knows,
/// and in between. A producer asks for a token at each start and may have ten in five minutes, over all its processes.
const KILLS: [[&[&str]; 3]; 3] = [
    [
        &["producer.page_commit.after=1*off->return(abort)", "publisher.commit.before=3*off->return(abort)"],
        &["transformer.map.commit.before=return(abort)", "transformer.merge.commit.before=return(abort)"],
        &["sink.apply.before=1*off->return(abort)", "sink.apply.after=return(abort)"],
    ],
    [
        &["producer.look_up_commit.before=return(abort)", "producer.look_up_commit.after=return(abort)"],
        &["transformer.map.commit.after=return(abort)", "transformer.merge.commit.after=return(abort)"],
        &["sink.commit.before=return(abort)", "sink.commit.after=return(abort)"],
    ],
    [
        &["producer.scan_close.after=return(abort)"],
        &["publisher.offsets.before=return(abort)", "publisher.commit.after=return(abort)"],
        &["sink.apply.before=return(abort)", "sink.commit.after=return(abort)"],
    ],
];

/// What Apple does all along. The two devices of the last lines are hidden by the listing, and their look-ups say nothing.
const APPLE: &str = "
    servers @3 503
    linkage every=17 403
    devices @5 cut at=50%
    devices @9..10 malformed-item n=1
    devices @14 reset at=30%
    devices every=7 skip n=2
    devices every=11 repeat n=3
    device every=5 503
    /v1/orgDevices/SIM0000011 503
    /v1/orgDevices/SIM0000012 403
";
const HIDDEN: [&str; 2] = ["SIM0000011", "SIM0000012"];

/// 2,000 devices, rounds of life at an Apple that fails, every stage killed at labelled places and once anywhere; then the laws.
#[test]
fn the_laws_hold_when_every_stage_is_killed() -> anyhow::Result<()> {
    let fleet = Simulator::builder().devices(2_000).servers(5).seed(7).faults(APPLE.parse()?);
    let bench = Workbench::new("crash", PROGRAM, fleet)?;
    let mut stages = Vec::new();
    for (round, kills) in KILLS.into_iter().enumerate() {
        stop(&mut stages)?;
        if round > 0 {
            happen(&bench, round)?;
        }
        stages = killed_at(&bench, kills)?;
        settle(&bench, &mut stages)?;
        if round == 0 {
            cut_the_list(&bench)?;
        }
    }
    told_to_wait(&bench, &mut stages)?;
    killed_anywhere(&bench, &mut stages)?;
    let played = bench.fleet().faults_played();
    bench.fleet().clear_faults();
    for device in HIDDEN {
        bench.fleet().command(Command::Show { device: device.to_owned() })?;
    }
    settle(&bench, &mut stages)?;
    stop(&mut stages)?;
    let run = bench.gather()?;
    let mut breaches = run.breaches();
    breaches.extend(bench.rebuild()?);
    breaches.extend(bench.replay()?);
    breaches.extend(vacuity::missing(&run));
    breaches
        .extend(played.into_iter().filter(|(_, often)| *often == 0).map(|(rule, _)| format!("`{rule}` never played")));
    let some = &breaches[..breaches.len().min(20)];
    ensure!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), some.join("\n"));
    Ok(())
}

/// Kills each stage at its labels, one process after the other, and leaves it running.
fn killed_at(bench: &Workbench, kills: [&[&str]; 3]) -> anyhow::Result<Vec<Windfall>> {
    let mut stages = Vec::new();
    for (verb, labels) in STAGES.iter().zip(kills) {
        for label in labels {
            bench.start(verb, Some(label))?.wait_for_label(label, PATIENCE)?;
        }
        stages.push(bench.start(verb, None)?);
    }
    Ok(stages)
}

/// Makes things happen while nobody looks; the scan that would see them first has pages whose total contradicts them.
fn happen(bench: &Workbench, round: usize) -> anyhow::Result<()> {
    let fleet = bench.fleet();
    fleet.add_faults("devices @1..4 total by=300")?;
    fleet.live(Round::of_each(6));
    let server = || "Laboratory".to_owned();
    if round == 1 {
        for device in HIDDEN {
            fleet.command(Command::Hide { device: device.to_owned() })?;
        }
        fleet.command(Command::AddServer { name: server() })?;
        let truth = fleet.truth();
        for device in truth.devices.iter().filter(|device| device.listed && device.server_id.is_some()).take(3) {
            fleet.assign(&device.id, &server())?;
        }
        let smallest = truth.servers.iter().filter(|server| server.devices > 0).min_by_key(|server| server.devices);
        let smallest = smallest.context("no server has devices")?.id.clone();
        fleet.command(Command::RenameServer { server: smallest, name: "Renamed".to_owned() })?;
    } else {
        fleet.command(Command::RemoveServer { server: server() })?;
        let live: Vec<String> =
            fleet.truth().live().filter(|device| device.listed).map(|device| device.id.clone()).collect();
        for (device, answer) in live.into_iter().rev().zip([ReleaseAnswer::Gone, ReleaseAnswer::Dated]) {
            fleet.command(Command::Release { device, answer: Some(answer) })?;
        }
    }
    Ok(())
}

/// One listing ends after its first devices: what it lacks is held, and let go by the next listing.
fn cut_the_list(bench: &Workbench) -> anyhow::Result<()> {
    bench.fleet().add_faults("devices page=1 x1 cut-list keep=10%")?;
    wait_for_scans(bench, "a scan that was held, and a complete one behind it", |scans| {
        let held = scans_ended(scans).into_iter().find(|scan| scan.state == "held");
        held.is_some_and(|held| complete_scans(scans).iter().any(|(number, ..)| *number > held.number))
    })
}

/// Apple asks for patience, and the producer is killed while it waits: whoever comes next waits on.
fn told_to_wait(bench: &Workbench, stages: &mut [Windfall]) -> anyhow::Result<()> {
    bench.fleet().add_faults("devices x1 429 retry-after=6")?;
    wait_for_scans(bench, "a `Retry-After` that was written down", |scans| {
        let limiter =
            scans.iter().filter(|entry| entry.key["part"] == "limiter").filter_map(|entry| entry.value.as_ref());
        let details = limiter.filter_map(|value| serde_json::from_str(value["detail"].as_str()?).ok());
        details.into_iter().any(|detail: serde_json::Value| !detail["not_before"].is_null())
    })?;
    stages[0].kill();
    stages[0] = bench.start(STAGES[0], None)?;
    Ok(())
}

fn wait_for_scans(bench: &Workbench, what: &str, found: impl Fn(&[Entry]) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !found(&bench.read(&["abm.scans"])?) {
        ensure!(Instant::now() < deadline, "there never was {what}");
    }
    Ok(())
}

/// Kills the other stages as soon as the store has changed once more, whatever they are doing then.
fn killed_anywhere(bench: &Workbench, stages: &mut [Windfall]) -> anyhow::Result<()> {
    for stage in 1..STAGES.len() {
        let before = bench.block_on(bench.database().writes())?;
        bench.fleet().live(Round::of_each(3));
        let deadline = Instant::now() + PATIENCE;
        while bench.block_on(bench.database().writes())? == before {
            ensure!(Instant::now() < deadline, "the store never changed; {}", stages[stage].log_end());
            std::thread::yield_now();
        }
        stages[stage].kill();
        stages[stage] = bench.start(STAGES[stage], None)?;
    }
    Ok(())
}

/// What a reader of committed records cannot see is missed in words, and never left out in silence.
#[test]
fn the_checker_does_not_take_a_hidden_tail_for_the_end() -> anyhow::Result<()> {
    let topic = format!("tail-{}", uuid::Uuid::new_v4().simple());
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", windfall_services::kafka());
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let created = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(admin.create_topics(&[created], &AdminOptions::new()))?;
    let producer: BaseProducer = client.set("transactional.id", &topic).create()?;
    producer.init_transactions(Duration::from_secs(30))?;
    let mut reader = TopicReader::new(windfall_services::kafka(), "").patience(Duration::from_secs(3));
    let write = |key: &str| -> anyhow::Result<()> {
        producer.begin_transaction()?;
        let record = BaseRecord::<str, str>::to(&topic).key(key).payload("\"value\"");
        producer.send(record).map_err(|(error, _)| error)?;
        Ok(producer.flush(Duration::from_secs(10))?)
    };
    write("seen")?;
    producer.commit_transaction(Duration::from_secs(10))?;
    ensure!(reader.read(Isolation::Committed, &[&topic])?.len() == 1, "the committed record was not read");
    write("hidden")?;
    let error = reader.read(Isolation::Committed, &[&topic]).expect_err("a tail that nobody can see").to_string();
    ensure!(error.contains("an open transaction hides"), "{error}");
    producer.abort_transaction(Duration::from_secs(10))?;
    ensure!(reader.read(Isolation::Committed, &[&topic])?.len() == 1, "the aborted record was read");
    Ok(())
}
