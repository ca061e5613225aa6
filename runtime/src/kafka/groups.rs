//! Who belongs to a group, as its coordinator describes it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};

use super::client::{PlainContext, make, passing, retried};
use super::connection::Connection;

/// A coordinator that has not answered by then is out of reach.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
const TRY: Duration = Duration::from_secs(5);

/// Lists the living members of a group by client id and host, without joining it; a group that does not exist has none.
///
/// A member that was killed counts as living until its session time-out has passed.
///
/// # Errors
/// When no broker answers.
pub async fn members(connection: &Connection, group: &str) -> KafkaResult<Vec<String>> {
    let (settings, group) = (connection.asker(), group.to_owned());
    let ask = move || {
        let client: BaseConsumer<PlainContext> = make(&settings, PlainContext)?;
        let again = |code| passing(code) || matches!(code, Code::Partial | Code::WaitingForCoordinator);
        let describe = || client.fetch_group_list(Some(&group), TRY);
        let list = retried(Instant::now() + ASK_TIMEOUT, again, describe)?;
        let members = list.groups().iter().flat_map(|group| group.members());
        let named =
            members.map(|member| format!("`{}` at {}", member.client_id(), member.client_host().trim_matches('/')));
        Ok(named.collect())
    };
    tokio::task::spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled))
}
