//! The command as it is, but with labelled places that `FAILPOINTS` can reach.

use std::process::ExitCode;

fn main() -> ExitCode {
    let _in_force = windfall_runtime::failpoint::setup();
    windfall::main()
}
