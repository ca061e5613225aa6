//! A process that is asked to stop while one of its stages hangs.

use anyhow::ensure;
use windfall_simulator::Simulator;
use windfall_tests::process::Windfall;
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::PROGRAM;
use crate::standby::wait_for;

/// The producer stops for good before it commits its first page.
const HANGS: &str = "producer.page_commit.before=return(hang)";

/// Starts a producer that hangs, asks it to stop, and waits until it has heard.
fn asked_to_stop(bench: &Workbench) -> anyhow::Result<Windfall> {
    let mut producer = bench.start(&["run", "producer"], Some(HANGS))?;
    wait_for(&mut producer, "failpoint reached, hanging")?;
    producer.signal("TERM")?;
    wait_for(&mut producer, r#""stopping""#)?;
    Ok(producer)
}

#[test]
fn a_stage_that_hangs_is_named_at_the_deadline_and_left_behind() -> anyhow::Result<()> {
    let bench = Workbench::new("hanging", PROGRAM, Simulator::builder().devices(20).servers(1).seed(31))?;
    let mut producer = asked_to_stop(&bench)?;
    let ended = producer.wait(PATIENCE)?;
    let log = producer.log_end();
    ensure!(log.contains("not stopped in time") && log.contains(r#""not_stopped":"producer"#), "{ended}; {log}");
    ensure!(!ended.success(), "{ended}; {log}");
    Ok(())
}

#[test]
fn a_second_signal_ends_a_process_whose_stage_hangs_at_once() -> anyhow::Result<()> {
    let bench = Workbench::new("twice", PROGRAM, Simulator::builder().devices(20).servers(1).seed(37))?;
    let mut producer = asked_to_stop(&bench)?;
    producer.signal("TERM")?;
    let ended = producer.wait(PATIENCE)?;
    let log = producer.log_end();
    ensure!(ended.code() == Some(130) && log.contains("second signal"), "{ended}; {log}");
    ensure!(!log.contains("not stopped in time"), "it ended before the deadline: {log}");
    Ok(())
}
