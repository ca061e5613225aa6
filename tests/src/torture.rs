//! The plan of one torture run: what is done to which process, and when, drawn from a seed.
//!
//! A plan is a value: the same seed gives the same plan, so a run that broke a law can be planned again. How the processes
//! interleave is up to the machine, so a seed that failed once need not fail again; its log and its journal are kept.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use windfall_simulator::Round;

/// The stages at work.
pub const STAGES: [&[&str]; 3] = [&["run", "producer"], &["run", "transformer"], &["run", "sink", "assets"]];
/// Processes of each stage, in the order of [`STAGES`].
pub const REPLICAS: [usize; 3] = [2, 2, 2];
/// A producer asks for a token whenever it takes the source over, and may have ten in five minutes. Six disturbances leave room.
const PRODUCER_DISTURBANCES: usize = 6;

/// Labels at which a process of each stage can be killed.
const LABELS: [&[&str]; 3] = [
    &[
        "producer.servers.after",
        "producer.page_fetch.after",
        "producer.page_commit.before",
        "producer.page_commit.after",
        "producer.scan_close.before",
        "producer.scan_close.after",
        "producer.look_up.after",
        "producer.look_up_commit.before",
        "producer.look_up_commit.after",
        "publisher.produce.after",
        "publisher.offsets.after",
        "publisher.commit.before",
        "publisher.commit.after",
    ],
    &[
        "transformer.map.commit.before",
        "transformer.map.commit.after",
        "transformer.merge.commit.before",
        "transformer.merge.commit.after",
        "publisher.produce.after",
        "publisher.offsets.before",
        "publisher.offsets.after",
        "publisher.commit.before",
        "publisher.commit.after",
    ],
    &["sink.apply.before", "sink.apply.after", "sink.commit.before", "sink.commit.after"],
];

/// What Apple does wrong, a few times each.
const FAULTS: [&str; 9] = [
    "servers x1 503",
    "linkage x2 403",
    "devices x1 cut at=50%",
    "devices x1 reset at=30%",
    "devices x2 skip n=2",
    "devices x1 repeat n=3",
    "device x2 503",
    "devices x1 malformed-item n=1",
    "devices x1 429 retry-after=2",
];

/// One process: its stage and which of its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Index in [`STAGES`].
    pub stage: usize,
    /// Which of the stage's processes.
    pub replica: usize,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Devices are bought, assigned, moved, released and so on.
    Live(Round),
    /// Apple answers wrongly for a while.
    Fault(&'static str),
    /// The process is killed and started again at once, or only after others have had the time to take over.
    Kill {
        /// Who is killed.
        victim: Victim,
        /// How long it stays away, in milliseconds.
        away_ms: u64,
    },
    /// The process is killed and started again so that it dies at a labelled place, and is then started once more.
    KillAt {
        /// Who is killed.
        victim: Victim,
        /// The failpoint's name and how often it is passed before.
        failpoint: String,
    },
    /// The process is stopped by a signal and goes on later, possibly after its session in the group has timed out.
    Pause {
        /// Who is paused.
        victim: Victim,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// The process ends as asked and is started again.
    Restart(Victim),
}

/// One act and the time before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Milliseconds to wait before it.
    pub after_ms: u64,
    /// What is done then.
    pub act: Act,
}

/// What a seed means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Devices that the organization begins with.
    pub devices: u32,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Draws the plan of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let devices = rng.random_range(60..400);
        let mut disturbed_producers = 0;
        let mut steps = Vec::new();
        for _ in 0..rng.random_range(8..14) {
            let act = draw_act(&mut rng);
            if disturbs_a_producer(&act) {
                disturbed_producers += 1;
                if disturbed_producers > PRODUCER_DISTURBANCES {
                    continue;
                }
            }
            steps.push(Step { after_ms: rng.random_range(0..1_500), act });
        }
        Self { seed, devices, steps }
    }
}

fn disturbs_a_producer(act: &Act) -> bool {
    match act {
        Act::Live(_) | Act::Fault(_) => false,
        Act::Kill { victim, .. } | Act::KillAt { victim, .. } | Act::Pause { victim, .. } | Act::Restart(victim) => {
            victim.stage == 0
        }
    }
}

fn draw_act(rng: &mut ChaCha8Rng) -> Act {
    let stage = rng.random_range(0..STAGES.len());
    let victim = Victim { stage, replica: rng.random_range(0..REPLICAS[stage]) };
    match rng.random_range(0..100) {
        0..30 => Act::Live(Round::of_each(rng.random_range(1..4))),
        30..40 => Act::Fault(FAULTS.choose(rng).copied().unwrap_or_default()),
        40..60 => Act::Kill { victim, away_ms: if rng.random_bool(0.7) { 0 } else { rng.random_range(500..14_000) } },
        60..82 => {
            let label = LABELS[victim.stage].choose(rng).copied().unwrap_or_default();
            let passed = rng.random_range(0..4);
            let before = if passed == 0 { String::new() } else { format!("{passed}*off->") };
            Act::KillAt { victim, failpoint: format!("{label}={before}return(abort)") }
        }
        82..92 => Act::Pause { victim, ms: rng.random_range(200..22_000) },
        _ => Act::Restart(victim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_one_plan_and_seeds_differ() {
        assert_eq!(Plan::draw(7), Plan::draw(7));
        assert_ne!(Plan::draw(7).steps, Plan::draw(8).steps);
    }

    #[test]
    fn a_hundred_plans_kill_every_stage_at_every_label_and_stay_within_the_token_limit() {
        let plans: Vec<Plan> = (0..100).map(Plan::draw).collect();
        let all = |plan: &Plan| plan.steps.iter().map(|step| step.act.clone()).collect::<Vec<_>>();
        let acts: Vec<Act> = plans.iter().flat_map(all).collect();
        for label in LABELS.into_iter().flatten() {
            let drawn = |act: &Act| matches!(act, Act::KillAt { failpoint, .. } if failpoint.starts_with(label));
            assert!(acts.iter().any(drawn), "{label}");
        }
        for plan in &plans {
            assert!(plan.steps.iter().filter(|step| disturbs_a_producer(&step.act)).count() <= PRODUCER_DISTURBANCES);
        }
    }
}
