//! The conformance suite over the example.

use std::collections::BTreeMap;

use windfall_example_json_lines::JsonLines;
use windfall_sink::conformance::{Seen, Subject, identity, table};

/// A file in a folder of its own.
struct JsonLinesSubject(tempfile::TempDir);

impl JsonLinesSubject {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Subject for JsonLinesSubject {
    type Store = JsonLines;

    fn open(&self, sink: &str) -> JsonLines {
        JsonLines::new(self.0.path().join("assets.jsonl"), identity(sink), &table("assets"))
    }

    async fn poison(&self, _: &str) -> bool {
        // Every record can be written as JSON.
        false
    }

    async fn rows(&self) -> BTreeMap<String, Seen> {
        let seen = |row: windfall_example_json_lines::Row| {
            (row.fields["color"].as_str().map(str::to_owned), row.deleted, row.guard)
        };
        self.open("assets").rows().unwrap().into_iter().map(|(id, row)| (id, seen(row))).collect()
    }
}

windfall_sink::conformance!(json_lines, JsonLinesSubject::new());

#[tokio::test]
async fn a_line_that_was_torn_by_a_crash_is_cut_off_and_written_again() {
    use std::io::Write;
    use windfall_sink::conformance::{record, span};
    use windfall_sink::store::AssetStore;

    let subject = JsonLinesSubject::new();
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let path = subject.0.path().join("assets.jsonl");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"{\"positions\":{\"0\":{\"epoch\":1,\"next_off").unwrap();
    let mut store = subject.open("assets");
    assert_eq!(store.claim(&[0]).await.unwrap()[0].next_offset, 1);
    store.apply(&[record("b", 0, 1, "blue")], &[span(0, 1, 2)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 2);
}
