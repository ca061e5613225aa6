//! What the house wants of its files.

use std::path::{Path, PathBuf};

/// Files that decide and never do: no runtime, socket, clock, randomness or environment reaches them. A file whose first line says
/// `(pure)` is one as well.
const PURE: [&str; 23] = [
    "schemas/src",
    "producer/src/apple/wire",
    "producer/src/budget",
    "producer/src/checkpoint",
    "producer/src/step",
    "producer/src/assignment.rs",
    "producer/src/breaker.rs",
    "producer/src/diff.rs",
    "producer/src/event.rs",
    "producer/src/fields.rs",
    "producer/src/fleet.rs",
    "producer/src/memory.rs",
    "producer/src/observation.rs",
    "producer/src/release.rs",
    "transformer/src/mapping",
    "transformer/src/collect/hold.rs",
    "transformer/src/contribution.rs",
    "transformer/src/identity.rs",
    "transformer/src/links.rs",
    "transformer/src/merge.rs",
    "transformer/src/packed.rs",
    "transformer/src/remembered.rs",
    "runtime/src/log_identity.rs",
];
const IMPURE: [&str; 10] = [
    "tokio::",
    "rdkafka",
    "reqwest",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "rand::",
    "std::env",
    "std::fs",
    "async fn",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The part of a file before its unit tests.
fn product_part(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn calls_itself_pure(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().next().is_some_and(|line| line.starts_with("//!") && line.contains("(pure)"))
}

#[test]
fn pure_files_touch_no_runtime_socket_clock_or_environment() {
    let mut files = Vec::new();
    for pure in PURE.map(|pure| root().join(pure)) {
        if pure.is_dir() {
            sources(&pure, &mut files);
        } else {
            files.push(pure);
        }
    }
    for crate_name in ["schemas", "runtime", "producer", "transformer", "sink", "simulator", "windfall"] {
        let mut all = Vec::new();
        sources(&root().join(crate_name).join("src"), &mut all);
        files.extend(all.into_iter().filter(|file| calls_itself_pure(file)));
    }
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for (number, line) in
            product_part(&text).lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn stages_do_not_know_each_other() {
    for (stage, others) in [
        ("producer", ["windfall-transformer", "windfall-sink"]),
        ("transformer", ["windfall-producer", "windfall-sink"]),
        ("sink", ["windfall-producer", "windfall-transformer"]),
    ] {
        let manifest = std::fs::read_to_string(root().join(stage).join("Cargo.toml")).expect("a manifest");
        for other in others {
            assert!(!manifest.contains(other), "{stage} depends on {other}");
        }
    }
}

/// Returns the constant texts of the log lines of level `error` in a source: the last literal of each macro call.
fn error_lines(source: &str) -> Vec<String> {
    let product = source.split("#[cfg(test)]").next().unwrap_or_default();
    let call = |rest: &str| {
        let mut depth = 1;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        rest[..end.unwrap_or(rest.len())].rsplit('"').nth(1).map(str::to_owned)
    };
    product.split("error!(").skip(1).filter_map(call).collect()
}

/// Whoever is woken by an error in the log finds there what it asks for.
#[test]
fn every_error_in_the_log_is_explained_in_the_page_about_production() {
    let source = r#"match it { A => error!(%error, help = f("x"), "it ended"), B => { error!(n, "it stopped"); } }"#;
    assert_eq!(error_lines(source), ["it ended", "it stopped"]);
    let page = std::fs::read_to_string(root().join("docs/production.md")).unwrap();
    let stages = ["runtime/src", "producer/src", "transformer/src", "sink/src", "windfall/src"];
    let mut files = Vec::new();
    stages.iter().for_each(|stage| sources(&root().join(stage), &mut files));
    let lines: Vec<_> = files.iter().flat_map(|file| error_lines(&std::fs::read_to_string(file).unwrap())).collect();
    assert!(lines.len() > 5, "{lines:?}");
    let unexplained: Vec<_> = lines.iter().filter(|line| !page.contains(&format!("| `{line}`"))).collect();
    assert!(unexplained.is_empty(), "docs/production.md has no row for {unexplained:?}");
}
