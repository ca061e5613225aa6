//! Tests of more than one stage, on real Apache Kafka, PostgreSQL and a schema registry.

mod compose;
mod end_to_end;
mod isolation;
mod lost_topics;
mod pages;
mod shutdown;
mod standby;
mod tidy;
mod topics_page;
mod torture;
mod transactions;

use windfall_tests::process::Windfall;
use windfall_tests::workbench::Workbench;

const PROGRAM: &str = env!("CARGO_BIN_EXE_windfall-under-test");
const STAGES: [&[&str]; 3] = [&["run", "producer"], &["run", "transformer"], &["run", "sink", "assets"]];

fn settle(bench: &Workbench, stages: &mut [Windfall]) -> anyhow::Result<()> {
    bench.settle(&mut stages.iter_mut().collect::<Vec<_>>())
}

fn stop(stages: &mut [Windfall]) -> anyhow::Result<()> {
    for stage in stages {
        anyhow::ensure!(stage.stop()?.success(), "no clean stop; {}", stage.log_end());
    }
    Ok(())
}

/// Stops the stages and judges what they left behind.
fn verdict(bench: &Workbench, stages: &mut [Windfall]) -> anyhow::Result<()> {
    stop(stages)?;
    let breaches = bench.judge()?;
    anyhow::ensure!(
        breaches.is_empty(),
        "{} breaches:\n{}",
        breaches.len(),
        breaches[..breaches.len().min(20)].join("\n")
    );
    Ok(())
}
