//! A network that fails between the sink and a real PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use windfall_sink::config::SchemaMode;
use windfall_sink::store::postgres::{Address, Deadlines, PostgresStore};
use windfall_sink::store::{AssetStore, Cause, StoreError};

use crate::conformance::{record, span};
use crate::subjects::{PostgresSubject, Subject, identity};

/// What the network does from now on.
#[derive(Default)]
struct Network {
    /// Lets a commit through and cuts the connection where its answer comes.
    cut_after_commit: AtomicBool,
    /// Swallows what the client sends, without a word.
    silent: AtomicBool,
    /// Told when rows have been sent to the server.
    rows_sent: Notify,
}

/// Listens in front of the server; returns the address to use instead.
async fn in_front_of(url: &str, network: Arc<Network>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = url.split(['@', '/']).nth(3).unwrap().to_owned();
    let through = url.replace(&server, &format!("127.0.0.1:{port}"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            forward(client, server, network.clone());
        }
    });
    through
}

fn forward(client: TcpStream, server: TcpStream, network: Arc<Network>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let muted = Arc::new(AtomicBool::new(false));
    let mute = muted.clone();
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            if network.silent.load(Ordering::SeqCst) {
                continue;
            }
            let commit = contains(&bytes[..count], b"commit\0");
            if commit && network.cut_after_commit.swap(false, Ordering::SeqCst) {
                mute.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..count]).await.is_err() {
                return;
            }
            // The table alone has such a column, and no other statement than the one that writes rows begins so.
            if contains(&bytes[..count], b"insert into") && contains(&bytes[..count], b"__offset") {
                network.rows_sent.notify_one();
            }
        }
    });
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            if muted.load(Ordering::SeqCst) || to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    });
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

async fn behind(network: &Arc<Network>) -> (PostgresSubject, PostgresStore) {
    let subject = PostgresSubject::new().await;
    let url = in_front_of(&subject.url, network.clone()).await;
    let store =
        PostgresStore::new(Address::parse(&url).unwrap(), identity("assets"), subject.table(), SchemaMode::Evolve);
    (subject, store)
}

fn cause(error: &StoreError) -> Option<Cause> {
    match error {
        StoreError::Environment { cause, .. } => Some(*cause),
        _ => None,
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_by_reading_the_position_again() {
    let network = Arc::new(Network::default());
    let (subject, mut store) = behind(&network).await;
    store.claim(&[0]).await.unwrap();
    network.cut_after_commit.store(true, Ordering::SeqCst);
    let batch = [record("a", 0, 0, "red")];
    let error = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Connection), "{error:?}");
    let error = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Advanced { partition: 0, expected: 0, found: 1 }), "{error:?}");
    store.apply(&[record("b", 0, 1, "blue")], &[span(0, 1, 2)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 2);
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_in_time_and_replaced() {
    let network = Arc::new(Network::default());
    let (subject, store) = behind(&network).await;
    let brief = Duration::from_millis(500);
    let mut store = store.with_deadlines(Deadlines { lock: brief, statement: brief, grace: brief });
    store.claim(&[0]).await.unwrap();
    network.silent.store(true, Ordering::SeqCst);
    let batch = [record("a", 0, 0, "red")];
    let error = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::TimedOut), "{error:?}");
    assert_eq!(cause(&store.claim(&[0]).await.unwrap_err()), Some(Cause::TimedOut), "nor does a new one hang");
    network.silent.store(false, Ordering::SeqCst);
    store.claim(&[0]).await.unwrap();
    store.apply(&batch, &[span(0, 0, 1)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 1);
}

#[tokio::test]
async fn a_killed_session_is_replaced() {
    let network = Arc::new(Network::default());
    let (subject, mut store) = behind(&network).await;
    store.claim(&[0]).await.unwrap();
    subject.by_hand("begin; lock table $ in exclusive mode").await;
    let batch = [record("a", 0, 0, "red")];
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where application_name = 'windfall-sink' and query like $1";
    let pattern = format!("%{}%", subject.schema);
    let spans = [span(0, 0, 1)];
    let (applied, killed) = tokio::join!(store.apply(&batch, &spans), async {
        network.rows_sent.notified().await;
        subject.client.query_one(kill, &[&pattern]).await.unwrap().get::<_, i64>(0)
    });
    assert_eq!(killed, 1);
    assert_eq!(cause(&applied.unwrap_err()), Some(Cause::Connection));
    subject.by_hand("rollback").await;
    store.apply(&batch, &spans).await.unwrap();
    assert_eq!(subject.rows().await.len(), 1);
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_leaves_the_store_as_it_was_or_done() {
    let network = Arc::new(Network::default());
    let (subject, mut store) = behind(&network).await;
    store.claim(&[0]).await.unwrap();
    subject.by_hand("begin; lock table $ in exclusive mode").await;
    let (batch, spans) = ([record("a", 0, 0, "red")], [span(0, 0, 1)]);
    tokio::select! {
        biased;
        outcome = store.apply(&batch, &spans) => panic!("the lock is held: {outcome:?}"),
        () = network.rows_sent.notified() => {}
    }
    subject.by_hand("rollback").await;
    let next = store.claim(&[0]).await.unwrap()[0].next_offset;
    assert_eq!(subject.rows().await.len(), usize::try_from(next).unwrap(), "row and position go together");
    if next == 0 {
        store.apply(&batch, &spans).await.unwrap();
    }
    assert_eq!(subject.rows().await.len(), 1);
}
