//! `windfall version`.

use serde_json::json;

use crate::cli::{Form, Global};
use crate::exit::Exit;
use crate::output::Output;

/// Prints the versions of the program and of librdkafka.
pub(crate) fn run(global: &Global) -> crate::Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let mut output = Output::new(global.output);
    if global.output == Form::Table {
        output.line(&format!("windfall {version} (librdkafka {librdkafka})"))?;
        output.flush()?;
        return Ok(Exit::Success);
    }
    output.answer(&json!({ "name": "windfall", "version": version, "librdkafka": librdkafka }), &[], Vec::new())?;
    Ok(Exit::Success)
}
