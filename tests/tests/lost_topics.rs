//! Topics that lost their records between two runs, and the commands that lead back.

use anyhow::ensure;
use windfall_simulator::Simulator;
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::PROGRAM;

const ALL: &[&str] = &["run", "all", "--once"];
const TRANSFORMER: &[&str] = &["run", "transformer", "--once"];

/// Runs a command to its end, and expects its exit code.
fn ends(bench: &Workbench, verb: &[&str], code: i32) -> anyhow::Result<()> {
    let mut process = bench.start(verb, None)?;
    let ended = process.wait(PATIENCE)?;
    ensure!(ended.code() == Some(code), "{verb:?}: {ended}; {}", process.log_end());
    Ok(())
}

/// Takes the contributions away with `lose`; nothing is deleted by that, and a remap writes them again.
fn lost_and_back(name: &str, lose: impl FnOnce(&Workbench) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let bench = Workbench::new(name, PROGRAM, Simulator::builder().devices(60).servers(2).seed(41))?;
    ends(&bench, ALL, 0)?;
    let rows = bench.block_on(bench.database().rows("assets"))?;
    let published = bench.read(&["assets.devices"])?.len();
    ensure!((rows.len(), published) == (60, 60), "{} rows, {published} records", rows.len());

    lose(&bench)?;
    ends(&bench, TRANSFORMER, 8)?;
    ensure!(bench.read(&["assets.devices"])?.len() == published, "what is missing was deleted");
    ends(&bench, &["remap", "devices"], 0)?;
    ends(&bench, ALL, 0)?;
    ends(&bench, ALL, 0)?;
    ensure!(bench.read(&["assets.devices"])?.len() == published, "an asset was published again");
    ensure!(bench.read(&["assets.devices.contributions"])?.iter().filter(|entry| entry.value.is_some()).count() >= 60);
    ensure!(bench.block_on(bench.database().rows("assets"))? == rows, "the rows have changed");
    Ok(())
}

#[test]
fn contributions_that_were_deleted_are_written_again_by_a_remap_and_nothing_else_changes() -> anyhow::Result<()> {
    lost_and_back("deleted", |bench| bench.delete_topic("assets.devices.contributions"))
}

#[test]
fn contributions_that_expired_are_written_again_by_a_remap_and_nothing_else_changes() -> anyhow::Result<()> {
    lost_and_back("expired", |bench| bench.expire("assets.devices.contributions"))
}
