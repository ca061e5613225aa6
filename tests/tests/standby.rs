//! Two producers of one source: the one that was paused, and the one that runs once beside the one that serves.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::Utc;
use windfall_runtime::kafka::connection::SESSION_TIMEOUT;
use windfall_schemas::topic::source_member;
use windfall_simulator::{Round, Simulator};
use windfall_tests::journal::complete_scans;
use windfall_tests::process::Windfall;
use windfall_tests::workbench::{PATIENCE, Workbench};
use windfall_tests::{checker, limits};

use crate::PROGRAM;

const PRODUCER: &[&str] = &["run", "producer"];
/// What a producer logs that has read its topics and begins to work.
const TAKEN_OVER: &str = r#""taken over""#;
/// What one logs whose group has given the source to another.
const STANDS_BY: &str = "standing by: another process polls this source";

/// The holder is stopped by a signal for two session time-outs, while it asks for one list after another. When it goes on, every
/// request of its heir is left hanging, so whatever reaches Apple is the holder's.
#[test]
fn a_paused_producer_asks_for_nothing_before_its_group_has_spoken_and_publishes_nothing_twice() -> anyhow::Result<()> {
    let bench = Workbench::new("paused", PROGRAM, Simulator::builder().devices(3_000).servers(30).seed(17))?;
    let mut instances = ["p", "q"];
    instances.sort_by_key(|instance| source_member("acme", instance));
    // The heir comes first in the order of the members, so the holder stands by when it is back.
    let [heir, holder] = instances;
    let mut first = bench.start_as(PRODUCER, holder, None)?;
    wait_for(&mut first, TAKEN_OVER)?;
    wait_for_requests(&bench, 10)?;

    first.signal("STOP")?;
    let paused = Instant::now();
    let mut second = bench.start_as(PRODUCER, heir, None)?;
    wait_for(&mut second, TAKEN_OVER)?;
    bench.fleet().add_faults("servers hang\nlinkage hang\ndevices hang")?;
    let hanging = || bench.fleet().faults_played().iter().map(|(_, times)| *times).sum::<u64>();
    wait_until("a request of the heir hangs", || Ok(hanging() > 0))?;
    wait_until("two session time-outs have passed", || Ok(paused.elapsed() >= SESSION_TIMEOUT * 2))?;
    first.signal("CONT")?;
    wait_for(&mut first, STANDS_BY)?;
    ensure!(hanging() == 1, "{} requests reached Apple while one was left hanging", hanging());

    bench.fleet().clear_faults();
    second.kill();
    let from = Utc::now();
    wait_until("the first one scans again", || {
        let scans = bench.read(&["abm.scans"])?;
        Ok(complete_scans(&scans).iter().any(|(_, _, ended)| *ended > from))
    })?;
    ensure!(first.stop()?.success(), "no clean stop; {}", first.log_end());
    let changes = bench.read(&["abm.devices"])?;
    ensure!(checker::events(&changes).count() == 3_000, "{} events", checker::events(&changes).count());
    let journal = bench.journal();
    let breaches =
        [checker::no_duplicate(&changes), checker::ordered(&changes), limits::limits_kept(&journal)].concat();
    ensure!(breaches.is_empty(), "{breaches:?}");
    Ok(())
}

/// The holder is killed while it scans. The heir needs the session time-out to learn of it, so the time is printed and not judged.
#[test]
fn a_standby_scans_when_the_process_that_polled_is_killed() -> anyhow::Result<()> {
    let bench = Workbench::new("killed", PROGRAM, Simulator::builder().devices(300).servers(3).seed(29))?;
    let mut instances = ["p", "q"];
    instances.sort_by_key(|instance| source_member("acme", instance));
    let [holder, heir] = instances;
    let mut first = bench.start_as(PRODUCER, holder, None)?;
    wait_for(&mut first, TAKEN_OVER)?;
    let mut second = bench.start_as(PRODUCER, heir, None)?;
    wait_for(&mut second, STANDS_BY)?;
    wait_until("the first scan ends", || Ok(!complete_scans(&bench.read(&["abm.scans"])?).is_empty()))?;

    first.kill();
    let killed = Instant::now();
    let asked = || windfall_tests::journal::responses(&bench.journal()).count();
    let before = asked();
    wait_until("the heir asks Apple", || Ok(asked() > before))?;
    eprintln!("the standby asked Apple {:.1?} after the other process was killed", killed.elapsed());
    bench.fleet().live(Round::of_each(2));
    wait_for(&mut second, TAKEN_OVER)?;
    let from = Utc::now();
    wait_until("the heir's scan ends", || {
        Ok(complete_scans(&bench.read(&["abm.scans"])?).iter().any(|(_, _, ended)| *ended > from))
    })?;
    ensure!(second.stop()?.success(), "no clean stop; {}", second.log_end());
    let changes = bench.read(&["abm.devices"])?;
    let breaches = [checker::no_duplicate(&changes), checker::ordered(&changes)].concat();
    ensure!(breaches.is_empty(), "{breaches:?}");
    Ok(())
}

#[test]
fn a_single_run_beside_a_process_that_serves_ends_with_1_and_publishes_nothing() -> anyhow::Result<()> {
    let bench = Workbench::new("beside", PROGRAM, Simulator::builder().devices(60).servers(2).seed(19))?;
    let mut serving = bench.start_as(PRODUCER, "p", None)?;
    wait_for(&mut serving, TAKEN_OVER)?;
    let mut single = bench.start_as(&["run", "producer", "--once"], "q", None)?;
    let ended = single.wait(PATIENCE)?;
    ensure!(ended.code() == Some(1), "{ended}; {}", single.log_end());
    ensure!(single.log_end().contains("another instance is at work on source `acme`: `windfall-producer-p`"));
    wait_until("the scan ends", || Ok(!complete_scans(&bench.read(&["abm.scans"])?).is_empty()))?;
    ensure!(serving.stop()?.success(), "no clean stop; {}", serving.log_end());
    let changes = bench.read(&["abm.devices"])?;
    ensure!(checker::events(&changes).count() == 60 && checker::no_duplicate(&changes).is_empty());
    Ok(())
}

fn wait_for_requests(bench: &Workbench, more: usize) -> anyhow::Result<()> {
    let asked = || windfall_tests::journal::responses(&bench.journal()).count();
    let from = asked();
    wait_until("the source is polled", || Ok(asked() >= from + more))
}

pub(crate) fn wait_for(process: &mut Windfall, text: &str) -> anyhow::Result<()> {
    let log = |process: &Windfall| process.log_end();
    wait_until(text, || Ok(log(process).contains(text))).map_err(|error| error.context(log(process)))
}

fn wait_until(what: &str, mut met: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !met()? {
        ensure!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}
