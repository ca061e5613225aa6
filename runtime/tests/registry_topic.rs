//! The embedded registry over a topic: several processes, one truth.

use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::registry::{Level, RegistryClient, RegistryError};
use windfall_schemas::wire::SchemaReference;

use crate::kafka_support::*;
use crate::registry_server::{ONE, REQUIRED, TWO};

async fn process(connection: &windfall_runtime::kafka::Connection) -> RegistryClient {
    RegistryClient::embedded(EmbeddedRegistry::open(connection).await.unwrap(), true)
}

/// Lets anything follow anything under the subject `s`.
async fn set_no_level(connection: &windfall_runtime::kafka::Connection) {
    EmbeddedRegistry::open(connection).await.unwrap().set_level(Some("s"), Level::None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_agree_on_ids_and_versions_without_a_leader() {
    let connection = connection();
    let (first, second) = (process(&connection).await, process(&connection).await);
    let (a, b) = tokio::join!(first.resolve("s", ONE, true), second.resolve("s", ONE, true));
    assert_eq!(a.unwrap(), b.unwrap());
    let id = second.resolve("s", TWO, true).await.unwrap();
    assert_eq!(&*first.text(SchemaReference::Id(id)).await.unwrap(), TWO, "a miss reads what another has written");
    let third = process(&connection).await;
    for process in [&second, &third] {
        let latest = process.latest("s").await.unwrap().unwrap();
        assert_eq!((latest.id, latest.version), (id, Some(2)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_outlives_the_process_that_set_it() {
    let connection = connection();
    let first = process(&connection).await;
    first.resolve("s", ONE, true).await.unwrap();
    let error = first.resolve("s", REQUIRED, true).await.unwrap_err();
    assert!(matches!(error, RegistryError::Incompatible { .. }), "{error:?}");
    set_no_level(&connection).await;
    process(&connection).await.resolve("s", REQUIRED, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_register_incompatible_schemas_at_once_one_is_refused() {
    let connection = connection();
    let (first, second) = (process(&connection).await, process(&connection).await);
    let other = ONE.replace("string", "long");
    for subject in (0..8).map(|n| format!("s{n}")) {
        let (a, b) = tokio::join!(first.register(&subject, ONE), second.register(&subject, &other));
        let refused = [&a, &b].into_iter().filter_map(|answer| answer.as_ref().err()).collect::<Vec<_>>();
        assert!(matches!(refused[..], [RegistryError::Incompatible { .. }]), "{a:?} {b:?}");
        let latest = process(&connection).await.latest(&subject).await.unwrap().unwrap();
        assert_eq!(latest.version, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_that_register_at_once_end_with_the_same_versions() {
    let connection = connection();
    let processes = [process(&connection).await, process(&connection).await, process(&connection).await];
    set_no_level(&connection).await;
    let text = |n: usize| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f{n}","type":"string"}}]}}"#);
    let registering = (0..9).map(|n| {
        let (process, text) = (&processes[n % 3], text(n / 2));
        async move { process.register("s", &text).await.unwrap() }
    });
    futures_util::future::join_all(registering).await;
    let fresh = process(&connection).await;
    for n in 0..5 {
        let truth = fresh.find("s", &text(n)).await.unwrap().unwrap();
        for process in &processes {
            assert_eq!(process.find("s", &text(n)).await.unwrap().unwrap(), truth);
        }
    }
    assert_eq!(fresh.latest("s").await.unwrap().unwrap().version, Some(5));
}
