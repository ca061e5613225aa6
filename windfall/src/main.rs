//! The windfall command.

use std::process::ExitCode;

fn main() -> ExitCode {
    windfall::main()
}
