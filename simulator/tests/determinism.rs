use chrono::Duration;
use windfall_simulator::journal::{Change, Record};
use windfall_simulator::{Command, Rates, Round};

use crate::support::{Bench, quiet};

fn changes(bench: &Bench) -> Vec<Change> {
    let lines = bench.handle().journal().into_iter();
    lines.filter_map(|line| if let Record::Change(change) = line.record { Some(change) } else { None }).collect()
}

async fn lived(seed: u64, asked_often: bool) -> (Bench, Vec<Change>) {
    let bench = Bench::start(quiet().devices(200).seed(seed).rates(Rates::office())).await;
    if asked_often {
        for _ in 0..24 {
            bench.life.advance(Duration::minutes(30));
            bench.get("/v1/orgDevices").await;
        }
        bench.handle().command(Command::AdvanceLife { seconds: 12 * 60 * 60 }).unwrap();
    } else {
        bench.life.advance(Duration::days(1));
        bench.get("/v1/mdmServers").await;
    }
    let changes = changes(&bench);
    (bench, changes)
}

#[tokio::test]
async fn the_same_seed_lives_the_same_life_however_often_it_is_looked_at() {
    let (first, once) = lived(7, false).await;
    let (second, often) = lived(7, true).await;
    assert!(once.len() > 10, "{}", once.len());
    assert_eq!(once, often);
    assert_eq!(first.handle().truth().devices, second.handle().truth().devices);
    assert_eq!(first.account().private_key_pem, second.account().private_key_pem);
    let (_, other) = lived(8, false).await;
    assert_ne!(once, other);
}

#[tokio::test]
async fn rounds_follow_from_the_seed() {
    let one = Bench::start(quiet()).await;
    let two = Bench::start(quiet()).await;
    for round in 0..3 {
        let changes = one.handle().live(Round::of_each(2));
        assert!(changes.len() >= 12, "round {round}: {}", changes.len());
        assert_eq!(changes, two.handle().live(Round::of_each(2)));
    }
}

#[tokio::test]
async fn a_million_devices_are_no_trouble() {
    let bench = Bench::start(quiet().devices(1_000_000).servers(5).rates(Rates::office())).await;
    bench.life.advance(Duration::hours(1));
    let page = bench.found("/v1/orgDevices?limit=1000").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1000);
    assert_eq!(bench.found("/v1/orgDevices/SIM1000000").await["data"]["id"], "SIM1000000");
    assert!(changes(&bench).len() > 1000);
}
