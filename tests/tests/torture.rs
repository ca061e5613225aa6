//! Random runs of the whole pipeline with several processes a stage, judged by the laws.
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `WINDFALL_TORTURE_SEEDS` | how many seeds are run | 2 |
//! | `WINDFALL_TORTURE_FIRST` | the first seed; the others follow it | 1 |
//! | `WINDFALL_TORTURE_JOBS` | how many run side by side | 2 |

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use windfall_simulator::Simulator;
use windfall_tests::process::Windfall;
use windfall_tests::torture::{Act, Plan, REPLICAS, STAGES, Victim};
use windfall_tests::workbench::Workbench;

use crate::PROGRAM;

/// How often a run looks after its processes while it waits.
const LOOK: Duration = Duration::from_millis(20);

#[test]
fn the_laws_hold_in_random_runs_with_several_processes_a_stage() -> anyhow::Result<()> {
    let (seeds, first) = (setting("WINDFALL_TORTURE_SEEDS", 2)?, setting("WINDFALL_TORTURE_FIRST", 1)?);
    let next = AtomicU64::new(first);
    let failures: Mutex<Vec<String>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first.saturating_add(seeds) {
                return;
            }
            let began = Instant::now();
            let ended = run(seed);
            eprintln!("seed {seed}: {} after {:.0?}", if ended.is_ok() { "kept" } else { "BROKEN" }, began.elapsed());
            if let Err(error) = ended {
                eprintln!("{error:#}");
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..setting("WINDFALL_TORTURE_JOBS", 2).unwrap_or(2).max(1) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!("{seeds} runs from seed {first}: {} broken", failures.len());
    ensure!(failures.is_empty(), "{} of {seeds} runs broken:\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}

fn setting(name: &str, usual: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}={text} is not a number")),
        _ => Ok(usual),
    }
}

fn run(seed: u64) -> anyhow::Result<()> {
    let plan = Plan::draw(seed);
    let fleet = Simulator::builder().devices(plan.devices).servers(3).seed(seed);
    let mut bench = Workbench::new("torture", PROGRAM, fleet)?;
    let ended = play(&bench, &plan);
    ended.with_context(|| format!("seed {seed}, logs kept in {}, plan {:#?}", bench.keep().display(), plan.steps))
}

fn play(bench: &Workbench, plan: &Plan) -> anyhow::Result<()> {
    let mut crew = Crew::start(bench)?;
    for step in &plan.steps {
        crew.wait(Duration::from_millis(step.after_ms))?;
        crew.act(&step.act)?;
    }
    bench.fleet().clear_faults();
    let mut stages = crew.healthy()?;
    bench.settle(&mut stages.iter_mut().collect::<Vec<_>>())?;
    crate::stop(&mut stages)?;
    let mut breaches = bench.gather()?.breaches();
    breaches.extend(bench.rebuild()?);
    breaches.extend(bench.replay()?);
    let some = &breaches[..breaches.len().min(20)];
    ensure!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), some.join("\n"));
    bench.delete_topics()
}

/// What is going on with a process.
enum Condition {
    /// It works.
    Working(Windfall),
    /// It works until it reaches its failpoint.
    Doomed(Windfall),
    /// It is stopped by a signal until then.
    Paused(Windfall, Instant),
    /// It was killed, and is started again then.
    Away(Instant),
}

/// All processes of a run.
struct Crew<'a> {
    bench: &'a Workbench,
    members: Vec<(Victim, Condition)>,
}

impl<'a> Crew<'a> {
    fn start(bench: &'a Workbench) -> anyhow::Result<Self> {
        let mut crew = Self { bench, members: Vec::new() };
        for (stage, replicas) in REPLICAS.into_iter().enumerate() {
            for replica in 0..replicas {
                let victim = Victim { stage, replica };
                let process = crew.begin(victim, None)?;
                crew.members.push((victim, Condition::Working(process)));
            }
        }
        Ok(crew)
    }

    fn begin(&self, victim: Victim, failpoint: Option<&str>) -> anyhow::Result<Windfall> {
        self.bench.start_as(STAGES[victim.stage], &format!("bench-{}", victim.replica), failpoint)
    }

    /// Looks after the processes until the time is over: a doomed one that died and one that was away are started again, a paused one
    /// goes on. Nobody else may end.
    fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            for at in 0..self.members.len() {
                self.look_after(at)?;
            }
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn look_after(&mut self, at: usize) -> anyhow::Result<()> {
        let (victim, condition) = &mut self.members[at];
        let victim = *victim;
        let next = match condition {
            Condition::Working(process) => {
                if !process.running() {
                    bail!("a process ended that nobody had ended; {}", process.log_end());
                }
                return Ok(());
            }
            Condition::Doomed(process) => match process.ended() {
                None => return Ok(()),
                Some(status) => {
                    ensure!(Windfall::reached_label(status), "ended with {status}; {}", process.log_end());
                    self.may_take_over(victim);
                    Condition::Working(self.begin(victim, None)?)
                }
            },
            Condition::Paused(process, until) if Instant::now() >= *until => {
                process.signal("CONT")?;
                self.may_take_over(victim);
                let Condition::Paused(process, _) = std::mem::replace(&mut self.members[at].1, gone()) else {
                    unreachable!("it was paused")
                };
                Condition::Working(process)
            }
            Condition::Away(until) if Instant::now() >= *until => Condition::Working(self.begin(victim, None)?),
            Condition::Paused(..) | Condition::Away(_) => return Ok(()),
        };
        self.members[at].1 = next;
        Ok(())
    }

    fn act(&mut self, act: &Act) -> anyhow::Result<()> {
        match act {
            Act::Live(round) => drop(self.bench.fleet().live(*round)),
            Act::Fault(fault) => self.bench.fleet().add_faults(fault)?,
            Act::Kill { victim, away_ms } => {
                let until = Instant::now() + Duration::from_millis(*away_ms);
                self.replace(*victim, |_| Ok(Condition::Away(until)))?;
            }
            Act::KillAt { victim, failpoint } => {
                self.replace(*victim, |crew| Ok(Condition::Doomed(crew.begin(*victim, Some(failpoint))?)))?;
            }
            Act::Pause { victim, ms } => {
                let at = self.find(*victim);
                if let Condition::Working(process) = &self.members[at].1 {
                    process.signal("STOP")?;
                    self.may_take_over(*victim);
                    let until = Instant::now() + Duration::from_millis(*ms);
                    let condition = std::mem::replace(&mut self.members[at].1, gone());
                    let Condition::Working(process) = condition else { unreachable!("it was working") };
                    self.members[at].1 = Condition::Paused(process, until);
                }
            }
            Act::Restart(victim) => {
                let at = self.find(*victim);
                if let Condition::Working(process) = &mut self.members[at].1 {
                    let status = process.stop()?;
                    // A process that had not begun to listen for signals ends by this one; it had done nothing by then.
                    let unheard = Windfall::stopped_unheard(status);
                    ensure!(status.success() || unheard, "no clean stop: {status}; {}", process.log_end());
                    self.replace(*victim, |crew| Ok(Condition::Working(crew.begin(*victim, None)?)))?;
                }
            }
        }
        Ok(())
    }

    /// Kills whatever the process is doing, and puts what `next` makes into its place.
    fn replace(&mut self, victim: Victim, next: impl FnOnce(&Self) -> anyhow::Result<Condition>) -> anyhow::Result<()> {
        let at = self.find(victim);
        // Dropping a process kills it.
        self.members[at].1 = gone();
        self.may_take_over(victim);
        self.members[at].1 = next(self)?;
        Ok(())
    }

    /// After this the other producer may take the source over and ask for a token.
    fn may_take_over(&self, victim: Victim) {
        if victim.stage == 0 {
            self.bench.may_ask_for_a_token();
        }
    }

    fn find(&self, victim: Victim) -> usize {
        REPLICAS[..victim.stage].iter().sum::<usize>() + victim.replica
    }

    /// Brings every process back to work and hands them over.
    fn healthy(mut self) -> anyhow::Result<Vec<Windfall>> {
        self.wait(Duration::ZERO)?;
        let mut stages = Vec::new();
        for (victim, condition) in std::mem::take(&mut self.members) {
            stages.push(match condition {
                Condition::Working(process) => process,
                Condition::Paused(process, _) => {
                    process.signal("CONT")?;
                    self.may_take_over(victim);
                    process
                }
                Condition::Doomed(_) | Condition::Away(_) => {
                    drop(condition);
                    self.may_take_over(victim);
                    self.begin(victim, None)?
                }
            });
        }
        Ok(stages)
    }
}

fn gone() -> Condition {
    Condition::Away(Instant::now() + Duration::from_secs(3_600))
}
