//! `windfall demo`: the whole pipeline in one process and in compressed time, with no account, no Kafka and no Docker.

mod arrivals;
mod ending;
mod screen;
mod tally;
mod world;

use std::fs::File;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use windfall_runtime::clock::SystemClock;
use windfall_runtime::diagnose::Kind;
use windfall_runtime::health::StatusRegistry;
use windfall_runtime::kafka::Connection;
use windfall_runtime::metrics;
use windfall_runtime::reader::Decoder;
use windfall_runtime::shutdown::{self, Crew, Next};
use windfall_runtime::telemetry::{self, LogOptions};
use windfall_schemas::topic::{CHANGE_PARTITIONS, value_subject};

use crate::change::Change;
use crate::cli::{DemoArgs, Global};
use crate::exit::{Exit, Failure};
use crate::stages::Stages;
use crate::tap::{self, Start, TopicReader};
use arrivals::Arrivals;
use ending::Ending;
use screen::{REFRESH, Screen};
use tally::Tally;
use world::{Paths, World};

/// A demo shorter than this would end before the sink has joined its group.
const SHORTEST: std::time::Duration = std::time::Duration::from_secs(5);
/// After the producer has stopped, the screen is complete once no record has arrived for this long.
const QUIET: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs the demo until its end or Ctrl-C; both exit with success.
pub(crate) async fn run(global: &Global, args: &DemoArgs, logs: &LogOptions) -> crate::Result<Exit> {
    if args.duration.get() < SHORTEST {
        let what = format!("`--duration {}` is too short: the groups need some seconds to form", args.duration);
        return Err(Failure::new(Kind::Usage, what).help("give it at least `5s`").into());
    }
    let paths = Paths::prepare(&args.dir)?;
    telemetry::install_to(logs, Arc::new(File::create(&paths.log)?), false).map_err(Failure::of)?;
    let stop = shutdown::on_signal()?;
    // Metrics are recorded as in `run`, so that the stages do the same work.
    let _ = metrics::install().map_err(Failure::of)?;
    let title = format!("{} devices, seed {}, one day in {}", args.devices, args.seed, args.duration);
    let mut screen = Screen::open(global, &title)?;
    let world = World::make(global, args, paths).await?;
    let running = Pipeline::start(&world, &stop);
    let shown = show(&world, running, &mut screen, args, &stop).await;
    let (tally, rows) = shown?;
    let ending = Ending { world: &world, tally: &tally, rows, interrupted: stop.is_cancelled() };
    ending::tell(screen, global.output, &ending)?;
    let _ = timeout(shutdown::DEADLINE, world.simulator.stop()).await;
    Ok(Exit::Success)
}

/// The running stages.
struct Pipeline {
    crew: Crew<crate::Result<Exit>>,
    status: StatusRegistry,
    producer: CancellationToken,
    rest: CancellationToken,
}

impl Pipeline {
    fn start(world: &World, stop: &CancellationToken) -> Self {
        // The other stages keep running until the published changes have reached the rows.
        let (producer, rest) = (stop.child_token(), CancellationToken::new());
        let status = StatusRegistry::new("demo", SystemClock::shared());
        let stages = |stop: &CancellationToken| Stages {
            context: Arc::clone(&world.context),
            registry: world.registry.clone(),
            clock: Arc::clone(&world.clock),
            status: status.clone(),
            dynamic: true,
            stop: stop.clone(),
        };
        let mut crew = Crew::new(&rest);
        crew.spawn("producer", stages(&producer).producer());
        crew.spawn("transformer", stages(&rest).transformer());
        for sink in &world.context.config.sinks {
            crew.spawn(format!("sink {}", sink.name), stages(&rest).sink(sink.clone()));
        }
        Self { crew, status, producer, rest }
    }

    /// Stops the stages; a stage that does not stop in time is abandoned.
    async fn stop(mut self) {
        self.producer.cancel();
        self.rest.cancel();
        while let Next::Ended(..) = self.crew.next().await {}
    }
}

/// Shows changes until the simulated day is over, waits until they have reached the rows, and returns the counts.
async fn show(
    world: &World,
    mut running: Pipeline,
    screen: &mut Screen,
    args: &DemoArgs,
    stop: &CancellationToken,
) -> crate::Result<(Tally, u64)> {
    let connection: Connection = world.context.connection("screen");
    let topic = world.context.names.devices();
    let mut reading = TopicReader::begin(&connection, &topic, CHANGE_PARTITIONS, Start::Beginning, false).await?;
    let decoder = Decoder::new(world.registry.clone(), value_subject(&topic));
    let (mut tally, mut known, mut arrivals) = (Tally::default(), 0, Arrivals::default());
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let over = tokio::time::sleep_until(Instant::now() + args.duration.get());
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = &mut over => break,
            next = running.crew.next() => {
                if let Next::Ended(_, ended) = next {
                    ended?;
                }
                return Err(Failure::new(Kind::Refused, "a stage ended before the demo did").into());
            }
            record = reading.next() => {
                if let Some(record) = record? {
                    arrive(&mut arrivals, tap::decode(&decoder, &record).await);
                }
            }
            _ = refresh.tick() => {
                see(screen, &mut tally, arrivals.turn())?;
                // The first scan has ended once a refresh brings no new device.
                if tally.known() == known {
                    screen.first_scan(&tally)?;
                }
                known = tally.known();
                screen.standing(world.clock.now(), &tally, &running.status.snapshot());
            }
        }
    }
    running.producer.cancel();
    while let Ok(Ok(Some(record))) = timeout(QUIET, reading.next()).await {
        arrive(&mut arrivals, tap::decode(&decoder, &record).await);
    }
    see(screen, &mut tally, arrivals.rest())?;
    screen.first_scan(&tally)?;
    let rows = ending::rows_arrived(&world.paths.rows, tally.known()).await;
    running.stop().await;
    Ok((tally, rows))
}

fn arrive(arrivals: &mut Arrivals, record: Value) {
    if let Some(change) = Change::of(&record["value"]) {
        arrivals.add(change, record);
    }
}

fn see(screen: &mut Screen, tally: &mut Tally, changes: Vec<(Change, Value)>) -> crate::Result<()> {
    for (change, record) in changes {
        tally.take(&change);
        screen.change(&change, &record, tally)?;
    }
    Ok(())
}
