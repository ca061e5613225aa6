//! What is wrong with a file is said with its place and the nearest right name: one snapshot a case.

use std::path::{Path, PathBuf};

use windfall_transformer::{CollectionConfig, load_collections};

/// Collection and mapping of a case stand in one file, divided by a line of its own.
const DIVIDER: &str = "--- # mapping\n";

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/faults");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn problems(case: &Path) -> String {
    let text = std::fs::read_to_string(case).unwrap();
    let (collection, mappings) = match text.split_once(DIVIDER) {
        Some((collection, mappings)) => (collection, mappings),
        None => (text.as_str(), ""),
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("things.yaml"), collection).unwrap();
    let mut names = Vec::new();
    for (index, mapping) in mappings.split(DIVIDER).filter(|mapping| !mapping.is_empty()).enumerate() {
        let name = PathBuf::from(format!("mapping-{index}.yaml"));
        std::fs::write(folder.path().join(&name), mapping).unwrap();
        names.push(name);
    }
    let config = CollectionConfig { name: "things".into(), file: Some("things.yaml".into()), mappings: names };
    match load_collections(folder.path(), &[config]) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn every_faulty_file_is_refused_with_place_and_nearest_name() {
    let cases = cases();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut shown = String::new();
    for case in cases {
        let name = case.file_stem().unwrap().to_string_lossy().replace('_', " ");
        shown.push_str(&format!("# {name}\n{}\n\n", problems(&case)));
    }
    insta::assert_snapshot!("faults", shown);
    assert!(!shown.contains("nothing is wrong"), "each case is a fault");
}

#[test]
fn a_file_that_is_missing_is_named() {
    let config =
        CollectionConfig { name: "things".into(), file: Some("nowhere.yaml".into()), mappings: vec!["x.yaml".into()] };
    let problems = load_collections(Path::new("/"), &[config]).unwrap_err().to_string();
    assert!(problems.starts_with("nowhere.yaml: cannot be read: "), "{problems}");
}
