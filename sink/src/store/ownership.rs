//! Whose table it is (pure).

use super::{Identity, Refusal};

/// A row of `windfall_sinks`, or what stands for it in another store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The table.
    pub table: String,
    /// The sink that fills it.
    pub sink: String,
    /// The topic that it is filled from.
    pub topic: String,
}

/// Decides whether a sink may have `table`, given the rows that name the table or the sink: true when it has it already,
/// false when nobody has. A table has one sink and one topic, and a sink one table: its positions stand for that one.
///
/// # Errors
/// When another sink has the table, or this sink another table or topic.
pub fn may_take(rows: &[Owned], identity: &Identity, table: &str) -> Result<bool, Refusal> {
    let Identity { sink, topic } = identity;
    let asked = table.to_owned();
    match rows.iter().find(|row| row.table == table) {
        Some(row) if row.sink != *sink => {
            Err(Refusal::TakenTable { table: asked, owner: row.sink.clone(), sink: sink.clone() })
        }
        Some(row) if row.topic != *topic => {
            Err(Refusal::OtherTopic { table: asked, owner: row.topic.clone(), topic: topic.clone() })
        }
        Some(_) => Ok(true),
        None => match rows.iter().find(|row| row.sink == *sink) {
            Some(row) => Err(Refusal::OtherTable { sink: sink.clone(), owner: row.table.clone(), table: asked }),
            None => Ok(false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(table: &str, sink: &str, topic: &str) -> Owned {
        Owned { table: table.to_owned(), sink: sink.to_owned(), topic: topic.to_owned() }
    }

    #[test]
    fn a_table_has_one_sink_and_a_sink_has_one_table() {
        let identity = Identity { sink: "assets".to_owned(), topic: "t".to_owned() };
        let ask = |rows: &[Owned]| may_take(rows, &identity, "table");
        assert_eq!(ask(&[]), Ok(false));
        assert_eq!(ask(&[owned("table", "assets", "t")]), Ok(true));
        let mine_elsewhere = owned("other", "assets", "t");
        let taken = owned("table", "stranger", "t");
        assert!(matches!(ask(&[mine_elsewhere.clone(), taken]), Err(Refusal::TakenTable { .. })));
        assert!(matches!(ask(&[mine_elsewhere]), Err(Refusal::OtherTable { .. })));
        assert!(matches!(ask(&[owned("table", "assets", "u")]), Err(Refusal::OtherTopic { .. })));
    }
}
