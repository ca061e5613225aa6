//! Tables that were emptied or put back beside their positions, on real brokers and in the stores that we ship.

use std::collections::BTreeMap;

use windfall_runtime::diagnose::{Diagnose as _, Kind};
use windfall_runtime::kafka::Outgoing;
use windfall_schemas::topic::CHANGE_PARTITIONS;
use windfall_sink::SinkError;

use crate::kafka::{Pipeline, assets};
use crate::subjects::{SqliteSubject, unique};

/// Pipelines that end in PostgreSQL and in SQLite.
async fn pipelines() -> [Pipeline; 2] {
    let [postgres, mut sqlite] = [Pipeline::new().await, Pipeline::new().await];
    sqlite.sqlite = Some(SqliteSubject::new().await);
    [postgres, sqlite]
}

impl Pipeline {
    /// Runs statements in the store; `@` stands in front of the name of each table.
    async fn by_hand(&self, statements: &str) {
        match &self.sqlite {
            None => self.subject.by_hand(&statements.replace('@', &format!("{}.", self.subject.schema))).await,
            Some(SqliteSubject { path, .. }) => {
                rusqlite::Connection::open(path).unwrap().execute_batch(&statements.replace('@', "")).unwrap();
            }
        }
    }

    /// The way back that `windfall check` names.
    async fn way_back(&self) -> String {
        let error = self.check().await.unwrap_err();
        assert!(matches!(error, SinkError::Lost(_)), "{error:?}");
        assert_eq!(error.diagnosis().kind, Kind::Refused);
        assert!(error.to_string().contains(&self.topic()), "{error}");
        let help = error.help().unwrap();
        help.split('`').find(|part| part.starts_with("update ")).unwrap().to_owned()
    }

    fn lost(&self) -> Option<String> {
        let told = self.status.snapshot().parts["sink assets once"].details.get("lost").cloned();
        told.map(|told| told.as_str().unwrap().to_owned())
    }

    /// Writes the fleet in one colour and some of it in another.
    async fn paint(&self, count: usize) -> BTreeMap<String, String> {
        let mut wanted = assets(60, "red");
        self.publish(self.records(&wanted)).await;
        self.once().await.unwrap();
        let newer = assets(count, "blue");
        self.publish(self.records(&newer)).await;
        wanted.extend(newer);
        wanted
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_emptied_under_its_positions_is_told_and_the_way_back_restores_every_row() {
    for pipeline in pipelines().await {
        let wanted = pipeline.paint(20).await;
        pipeline.once().await.unwrap();
        pipeline.check().await.unwrap();
        assert_eq!(pipeline.lost(), None);
        pipeline.by_hand("delete from @assets").await;
        pipeline.once().await.unwrap();
        assert!(pipeline.colors().await.is_empty(), "the positions say that all was written");
        let way_back = pipeline.way_back().await;
        assert!(pipeline.lost().unwrap().contains(&way_back));
        pipeline.by_hand(&way_back).await;
        pipeline.once().await.unwrap();
        assert_eq!(pipeline.colors().await, wanted);
        pipeline.check().await.unwrap();
        assert_eq!(pipeline.lost(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_put_back_without_its_positions_is_told_and_with_them_it_is_brought_up_to_date() {
    for pipeline in pipelines().await {
        let wanted = pipeline.paint(60).await;
        pipeline
            .by_hand(
                "create table @kept_rows as select * from @assets; \
                 create table @kept_positions as select * from @windfall_positions",
            )
            .await;
        pipeline.once().await.unwrap();
        assert_eq!(pipeline.colors().await, wanted);
        pipeline.by_hand("delete from @assets; insert into @assets select * from @kept_rows").await;
        let way_back = pipeline.way_back().await;
        assert!(way_back.contains("generation = 1,"), "{way_back}");
        pipeline
            .by_hand("delete from @windfall_positions; insert into @windfall_positions select * from @kept_positions")
            .await;
        pipeline.check().await.unwrap();
        assert_eq!(pipeline.once().await.unwrap().applied.applied, 60, "what came after the backup is read again");
        assert_eq!(pipeline.colors().await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_higher_generation_than_their_positions_are_told_and_the_way_back_raises_these() {
    let pipeline = Pipeline::new().await;
    let wanted = pipeline.paint(60).await;
    pipeline.by_hand("update @assets set __generation = 3").await;
    pipeline.once().await.unwrap();
    assert_eq!(pipeline.colors().await, assets(60, "red"), "nothing is newer than these rows");
    let way_back = pipeline.way_back().await;
    assert!(way_back.contains("generation = 3,"), "{way_back}");
    pipeline.by_hand(&format!("{way_back}; delete from @assets")).await;
    pipeline.once().await.unwrap();
    assert_eq!(pipeline.colors().await, wanted);
    pipeline.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_assets_and_refused_records_are_not_taken_for_lost_rows() {
    let pipeline = Pipeline::new().await;
    pipeline.paint(0).await;
    let mut last: Vec<Outgoing> =
        (0..60).map(|number| Outgoing::tombstone(pipeline.topic(), pipeline.key(&format!("SIM{number:05}")))).collect();
    last.push(pipeline.asset("SIM00001", "green"));
    last.push(Outgoing::tombstone(pipeline.topic(), pipeline.key("unknown")));
    pipeline.publish(last).await;
    let refused = |partition| {
        Outgoing::new(pipeline.topic(), pipeline.key(&unique("bad")), b"no frame".to_vec()).to_partition(partition)
    };
    pipeline.publish((0..CHANGE_PARTITIONS).map(refused).collect()).await;
    assert_eq!(pipeline.once().await.unwrap().dead_letters, 12);
    pipeline.check().await.unwrap();
    assert_eq!(pipeline.lost(), None);
}
