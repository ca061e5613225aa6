//! What is generated from the configuration's types and checked in.

use std::path::Path;

use super::repository;

fn fresh(path: &Path, text: &str) {
    if std::env::var_os("WINDFALL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == text, "{} is not what the types say; `make bless` writes it anew", path.display());
}

#[test]
fn the_schema_of_the_configuration_is_fresh() {
    fresh(&repository().join("docs/config/config.schema.json"), &windfall::reference::schema_text());
}

#[test]
fn the_reference_of_the_configuration_is_fresh() {
    for (name, text) in windfall::reference::pages() {
        fresh(&repository().join("docs/config").join(name), &text);
    }
}

#[test]
fn the_page_of_metrics_is_fresh() {
    fresh(&repository().join("docs/metrics.md"), &windfall::reference::metrics_page());
}

#[test]
fn every_field_of_the_reference_says_what_it_means() {
    for (name, text) in windfall::reference::pages() {
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let meaning = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            assert!(!meaning.trim().is_empty() && meaning.trim() != "|", "{name}: {row}");
        }
    }
}
