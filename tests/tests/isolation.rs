//! What one sink cannot do leaves the producer, the transformer and the other sinks at work.

use anyhow::ensure;
use windfall_simulator::{Round, Simulator};
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::PROGRAM;

/// How `/status` shows the part of the sink that stopped.
const STOPPED: &str = r#""sink rebuilt":{"state":"failed""#;

/// A constraint of the table's owner refuses every new row of one of three sinks, at two starts in a row.
#[test]
fn a_sink_whose_rows_are_all_refused_stops_alone_at_every_start() -> anyhow::Result<()> {
    let bench = Workbench::new("isolation", PROGRAM, Simulator::builder().devices(100).servers(2).seed(23))?;
    let http = format!("127.0.0.1:{}", windfall_services::free_port());
    let once = bench.start(&["run", "all", "--once"], None)?.wait(PATIENCE)?;
    ensure!(once.success(), "{once}");
    bench.block_on(bench.database().run("alter table public.rebuilt add constraint theirs check (false) not valid"))?;
    let mut before = bench.block_on(bench.database().rows("rebuilt"))?;
    ensure!(before.len() == 100, "{} rows", before.len());
    for start in 1..=2 {
        bench.fleet().live(Round { added: 60, ..Round::of_each(1) });
        let mut all = bench.start_serving(&["run", "all"], None, &http)?;
        bench.wait_for_status(&http, STOPPED)?;
        // What happens from now on still goes its whole way to the healthy sink.
        bench.fleet().live(Round::of_each(2));
        bench.settle(&mut [&mut all])?;
        let ended = all.stop()?;
        ensure!(ended.code() == Some(1), "start {start} ended with {ended}; {}", all.log_end());
        let after = bench.block_on(bench.database().rows("rebuilt"))?;
        ensure!(after == before, "start {start} changed rows that no longer may be written");
        before = after;
    }
    // When the owner has mended the table, the sink goes on where it stopped, and nothing is missing.
    bench.block_on(bench.database().run("alter table public.rebuilt drop constraint theirs"))?;
    let mended = bench.start(&["run", "sink", "rebuilt", "--once"], None)?.wait(PATIENCE)?;
    ensure!(mended.success(), "{mended}");
    let wrong = windfall_tests::fold::rebuilt_equals(
        &bench.block_on(bench.database().rows("assets"))?,
        &bench.block_on(bench.database().rows("rebuilt"))?,
    );
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}
