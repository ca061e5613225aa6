//! The embedded registry over HTTP: the routes that Confluent's clients ask.

mod answer;
mod routes;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::embedded::EmbeddedRegistry;
use super::error::RegistryError;
use crate::http::local_host_only;

pub use routes::router;

/// Header by which one of us knows another on a taken port.
pub(super) const SIGN: &str = "windfall-registry";
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Who serves an address.
#[derive(Debug)]
pub enum Served {
    /// We do, until the task is aborted or the runtime ends.
    Here {
        /// The address, with the port that was taken for port 0.
        address: SocketAddr,
        /// The server.
        task: JoinHandle<()>,
    },
    /// Another process of ours does; its registry lies in the same topic or not, but its ids are the same.
    ByAnotherOfUs,
}

/// Serves the registry on an address; a port that another of us has taken is no error.
///
/// # Errors
/// [`RegistryError::Listen`] when the address cannot be had.
pub async fn serve(registry: &Arc<EmbeddedRegistry>, listen: &str) -> Result<Served, RegistryError> {
    let listener = match TcpListener::bind(listen).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == ErrorKind::AddrInUse && another_of_us(listen).await => {
            info!(listen, "embedded schema registry is served by another process of ours");
            return Ok(Served::ByAnotherOfUs);
        }
        Err(source) => return Err(RegistryError::Listen { listen: listen.to_owned(), source }),
    };
    let failed = |source| RegistryError::Listen { listen: listen.to_owned(), source };
    let address = listener.local_addr().map_err(failed)?;
    let router = router(Arc::clone(registry));
    let router = if address.ip().is_loopback() { router.layer(middleware::from_fn(local_host_only)) } else { router };
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            warn!(%error, "embedded schema registry ended");
        }
    });
    info!(%address, "embedded schema registry serves");
    Ok(Served::Here { address, task })
}

async fn another_of_us(listen: &str) -> bool {
    let client = reqwest::Client::builder().timeout(PROBE_TIMEOUT).no_proxy().build();
    let Ok(client) = client else { return false };
    let answer = client.get(format!("http://{listen}/")).send().await;
    answer.is_ok_and(|answer| answer.headers().contains_key(SIGN))
}
