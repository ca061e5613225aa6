//! Apple's Business and School APIs as a server with a seeded fleet, a life, faults and a journal.
//!
//! A [`Simulator`] serves the token endpoint and the reading routes of the API to any number of organizations, each
//! with its own account, fleet and rate limit. A fleet, its life and the chances of faults follow from a seed; the
//! time of the life and the time on the wall come from the caller. What was true and what was served stands in the
//! [`journal`], from which a checker can judge a reader.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use windfall_simulator::{Command, Simulator};
//!
//! let running = Simulator::builder().devices(2_000).seed(7).still().start("127.0.0.1:0".parse()?).await?;
//! let account = &running.credentials()[0];
//! println!("{} {} {}", running.url(), account.client_id, account.key_id);
//! running.handle().command(Command::Release { device: "SIM0000001".to_owned(), answer: None })?;
//! running.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Decisions are pure: `fleet` and `life` say what is true, `limiter` and `token` who may ask, `api` and `page` what
//! is answered, `fault` what goes wrong. Only `http`, [`Handle`] and the journal's writer touch the outside.

mod answer;
mod api;
mod apple_time;
mod assertion;
mod catalogue;
pub mod clock;
mod command;
mod config;
mod credentials;
mod cursor;
mod document;
mod draw;
pub mod fault;
mod fleet;
mod handle;
mod http;
pub mod journal;
mod life;
mod limiter;
mod page;
mod portrait;
mod problem;
mod query;
mod running;
mod server;
mod shape;
pub mod sim;
mod spoil;
mod token;
mod world;

pub use assertion::KeyIdRule;
pub use clock::{ManualClock, TimeSource};
pub use command::Command;
pub use config::{PagingStyle, Simulator};
pub use credentials::{Credentials, KeyForm};
pub use fault::{FaultScript, ScriptError};
pub use fleet::{FleetError, ReleaseAnswer};
pub use handle::Handle;
pub use journal::{JournalMode, Truth};
pub use life::{PerKind, Rates, Round};
pub use limiter::RateLimit;
pub use running::{Running, StartError};
