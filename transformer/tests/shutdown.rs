//! A loop that is asked to stop while it waits for somebody, and one whose commits take their time.

use std::time::Duration;

use rdkafka::producer::Producer;
use windfall_services::{Kafka, KafkaOptions, Proxy};

use crate::takeover::open_transaction;
use crate::workbench::{PATIENCE, Workbench, device, eventually};

/// A broker that the loops reach through a proxy, and the test directly.
struct Slow {
    proxy: Proxy,
    _kafka: Kafka,
    bench: Workbench,
}

impl Slow {
    async fn start() -> Self {
        let start = || {
            let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
            let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port()).unwrap();
            (kafka, proxy)
        };
        let (kafka, proxy) = tokio::task::spawn_blocking(start).await.unwrap();
        let bench = Workbench::through(&kafka, proxy.port()).await;
        Self { proxy, _kafka: kafka, bench }
    }

    /// Waits until a commit of the loops waits in the network.
    fn await_stalled(&self) {
        assert!(tokio::task::block_in_place(|| self.proxy.wait_stalled(PATIENCE)), "no commit was on its way");
    }

    async fn publish(&mut self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let event = self.bench.added(n.into(), &device("acme", &format!("D{n}"), &format!("SIMS{n:06}")));
            self.bench.write(vec![event]).await;
        }
    }

    async fn await_all(&self, devices: usize) {
        self.bench.await_assets(|assets| assets.len() == devices).await;
        assert_eq!(self.bench.contributions().await.len(), devices, "each event contributes once");
        assert_eq!(self.bench.flat().await.len(), devices, "each asset is published once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_while_a_take_over_waits_for_anothers_transaction_does_not_wait_for_it() {
    let mut bench = Workbench::new().await;
    let events = vec![bench.added(1, &device("acme", "D1", "SIMS900001"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    for (topic, part) in [
        (bench.names.links("devices"), "map devices"),
        (bench.names.assets("devices"), "merge devices"),
        (bench.names.contributions("devices"), "merge devices"),
    ] {
        let intruder = open_transaction(&bench, &topic, 0).await;
        let running = bench.start();
        eventually("the status names what is hidden", || async {
            // A round trip, so that nothing spins; the hidden topics themselves would be waited for.
            bench.log(&bench.names.devices()).await;
            bench.detail(part, "hidden").is_some()
        })
        .await;
        running.stop().await;
        let abort = move || intruder.abort_transaction(Duration::from_secs(20));
        let open = tokio::task::spawn_blocking(abort).await.unwrap();
        assert!(open.is_ok(), "{topic}: the loops ended only after the other's transaction: {open:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_take_their_time_hold_the_loop_up_and_repeat_nothing() {
    let mut slow = Slow::start().await;
    let running = slow.bench.start();
    slow.publish(0..5).await;
    slow.await_all(5).await;
    for (round, owner) in (1..).zip(["windfall-map", "windfall-merge", "windfall-map"]) {
        slow.proxy.stall_ends(owner);
        slow.publish(round * 10..round * 10 + 10).await;
        slow.await_stalled();
        slow.publish(round * 10 + 100..round * 10 + 110).await;
        slow.proxy.release();
        slow.await_all(5 + usize::try_from(round).unwrap() * 20).await;
    }
    running.stop().await;
    slow.bench.once().await.unwrap();
    slow.await_all(65).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_comes_too_late_is_made_again_by_another_writer_and_ends_no_loop() {
    let mut slow = Slow::start().await;
    let running = slow.bench.start();
    slow.publish(0..5).await;
    slow.await_all(5).await;
    for (owner, from) in [("windfall-map", 10), ("windfall-merge", 20)] {
        slow.proxy.stall_ends(owner);
        slow.publish(from..from + 10).await;
        slow.await_stalled();
        // Both wait for the open transaction, which the coordinator ends when its time is over.
        slow.bench.contributions().await;
        slow.bench.flat().await;
        slow.proxy.release();
        slow.await_all(usize::try_from(from).unwrap() + 5).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_under_way_at_a_shutdown_is_given_up_in_time_and_what_it_held_is_read_again() {
    let mut slow = Slow::start().await;
    for (owner, from) in [("windfall-map", 0), ("windfall-merge", 10)] {
        let running = slow.bench.start();
        slow.publish(from..from + 5).await;
        slow.await_all(usize::try_from(from).unwrap() + 5).await;
        slow.proxy.stall_ends(owner);
        slow.publish(from + 5..from + 10).await;
        slow.await_stalled();
        running.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), running.task).await;
        ended.expect("the process ends after ten seconds anyway").unwrap().unwrap();
        // Whatever is still in the network arrives now, or never: the next writer of that name settles it.
        slow.proxy.release();
        let running = slow.bench.start();
        slow.await_all(usize::try_from(from).unwrap() + 10).await;
        running.stop().await;
    }
}
