//! Command lines, help texts and exit codes.

use super::Desk;

#[test]
fn help_and_version_go_to_standard_output() {
    let desk = Desk::new();
    let help = desk.run(&["--help"]).ended(0);
    for verb in ["demo", "run", "sim", "check", "validate", "status", "topics", "scans", "tap", "config", "version"] {
        assert!(help.out().lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{verb}");
    }
    assert!(help.out().contains("78 invalid configuration"));
    let version = desk.run(&["version", "-o", "json"]).ended(0);
    let version: serde_json::Value = serde_json::from_str(&version.out()).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn help_of_each_verb_stands_as_it_was_agreed() {
    let desk = Desk::new();
    let mut all = String::new();
    for verb in ["demo", "run", "sim", "check", "validate", "status", "topics", "scans", "tap", "config", "version"] {
        let said = desk.run(&[verb, "-h"]).ended(0);
        let own = said.out().split("Everywhere:").next().unwrap().trim_end().to_owned();
        all.push_str(&format!("$ windfall {verb} -h\n{own}\n\n"));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_cannot_be_understood_is_usage() {
    let desk = Desk::new();
    for arguments in [
        &["run", "producers"] as &[&str],
        &["frobnicate"],
        &["tap"],
        &["tap", "abm.devices", "--from", "yesterday"],
        &["tap", "abm.devices", "--limit", "0"],
        &["topics"],
        &["-q", "-v", "version"],
        &["demo", "--duration", "5"],
    ] {
        let said = desk.run(arguments).ended(2);
        assert!(said.out().is_empty() && !said.err().is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_demo_too_short_to_show_anything_says_so() {
    let said = Desk::new().run(&["demo", "--duration", "1s"]).ended(2);
    assert!(said.err().contains("`--duration 1s` is too short") && said.err().contains("help: "), "{}", said.err());
}

#[test]
fn status_says_which_address_does_not_answer() {
    let said = Desk::new().run(&["status", "--http", "127.0.0.1:9"]).ended(1);
    assert!(said.err().contains("no windfall answers at `127.0.0.1:9`"), "{}", said.err());
    assert!(said.err().contains("help: start it with `windfall run`"), "{}", said.err());
    let ready = Desk::new().run(&["status", "--ready", "--http", "127.0.0.1:9"]).ended(1);
    assert!(ready.out().is_empty() && ready.err().is_empty(), "a health check of an image says nothing");
}

#[test]
fn errors_can_be_read_by_machines() {
    let said = Desk::new().run(&["validate", "--log-format", "json"]).ended(78);
    let line: serde_json::Value = serde_json::from_str(&said.err()).unwrap();
    assert_eq!(line["exit"], 78);
    assert!(line["error"].as_str().unwrap().contains("windfall.yaml"));
    assert!(line["help"].as_str().unwrap().contains("WINDFALL_CONFIG"));
}

#[test]
fn a_reader_that_goes_away_ends_us_quietly() {
    let desk = Desk::new();
    let program = assert_cmd::cargo::cargo_bin!("windfall");
    let script = format!("{} config schema | head -n 1; exit ${{PIPESTATUS[0]}}", program.display());
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(desk.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\n");
}

#[test]
fn a_log_filter_that_cannot_be_read_is_named() {
    let desk = Desk::new();
    let output = desk.command(&["version"]).env("WINDFALL_LOG", "windfall=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`windfall=loud` is not a filter for logs"));
}
