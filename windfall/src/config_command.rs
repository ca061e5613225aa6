//! `windfall config`: the configuration's schema and reference.

use crate::cli::{ConfigAction, Global};
use crate::exit::Exit;
use crate::output::Output;
use crate::reference;

/// Prints the JSON Schema, or the reference of all parts.
pub(crate) fn run(global: &Global, action: &ConfigAction) -> crate::Result<Exit> {
    let text = match action {
        ConfigAction::Schema => reference::schema_text(),
        ConfigAction::Reference => reference::pages().into_values().collect::<Vec<_>>().join("\n"),
    };
    let mut output = Output::new(global.output);
    output.line(text.trim_end())?;
    output.flush()?;
    Ok(Exit::Success)
}
