//! The whole pipeline, each stage a process of its own, judged by the laws.

use windfall_simulator::{Round, Simulator};
use windfall_tests::process::Windfall;
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::{PROGRAM, STAGES, settle, stop, verdict};

/// Where each stage is killed, one label a round: before what it writes is durable, after that and before it knows, and in between.
const KILLS: [[&str; 3]; 3] = [
    [
        "publisher.commit.before=3*off->return(abort)",
        "publisher.offsets.before=1*off->return(abort)",
        "sink.apply.before=1*off->return(abort)",
    ],
    [
        "publisher.commit.after=1*off->return(abort)",
        "publisher.commit.after=1*off->return(abort)",
        "sink.commit.before=return(abort)",
    ],
    [
        "publisher.produce.after=1*off->return(abort)",
        "publisher.commit.before=return(abort)",
        "sink.commit.after=return(abort)",
    ],
];

/// 2,000 devices, three rounds of life, every stage killed at three labelled places and once anywhere; then the laws.
#[test]
fn the_laws_hold_when_every_stage_is_killed() -> anyhow::Result<()> {
    let bench = Workbench::new("crash", PROGRAM, Simulator::builder().devices(2_000).servers(5).seed(7))?;
    for kills in KILLS {
        let mut stages = Vec::new();
        for (verb, label) in STAGES.iter().zip(kills) {
            let mut doomed = bench.start(verb, Some(label))?;
            let status = doomed.wait(PATIENCE)?;
            anyhow::ensure!(
                status.code().is_none(),
                "`{label}` was not reached, it ended with {status}; {}",
                doomed.log_end()
            );
            stages.push(bench.start(verb, None)?);
        }
        settle(&bench, &mut stages)?;
        stop(&mut stages)?;
        bench.fleet().live(Round::of_each(6));
    }
    let mut stages: Vec<Windfall> = STAGES.iter().map(|verb| bench.start(verb, None)).collect::<Result<_, _>>()?;
    for stage in 0..STAGES.len() {
        // Anywhere: as soon as the store has changed once more, whatever the stage is doing then.
        let before = bench.block_on(bench.database().writes())?;
        bench.fleet().live(Round::of_each(3));
        let deadline = std::time::Instant::now() + PATIENCE;
        while bench.block_on(bench.database().writes())? == before && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        stages[stage].kill();
        stages[stage] = bench.start(STAGES[stage], None)?;
    }
    settle(&bench, &mut stages)?;
    verdict(&bench, &mut stages)
}
