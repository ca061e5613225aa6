//! `windfall tap`: prints the decoded records of a topic, one a line.

mod reading;
mod record;

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use windfall_runtime::config::{Period, nearest};
use windfall_runtime::diagnose::Kind;
use windfall_runtime::kafka::{Connection, topics};
use windfall_runtime::reader::Decoder;
use windfall_schemas::topic::value_subject;

use crate::cli::{Form, Global, TapArgs};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::scope::Scope;
pub(crate) use reading::TopicReader;
pub(crate) use record::decode;

/// Where to start reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the oldest record.
    Beginning,
    /// At the present end.
    End,
    /// At the first record with this timestamp or a later one.
    Time(DateTime<Utc>),
    /// At the first record that is at most this old.
    Ago(Period),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(at.with_timezone(&Utc)));
        }
        if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Ok(Self::Time(date.and_time(NaiveTime::MIN).and_utc()));
        }
        text.parse().map(Self::Ago).map_err(|_| {
            "write `beginning`, `end`, a time such as `2026-11-21T09:00:00Z` or `2026-11-21`, or how long ago: `15m`".to_owned()
        })
    }
}

/// Prints records until the end or the limit, or until the command is stopped.
pub(crate) async fn run(global: &Global, args: &TapArgs) -> crate::Result<Exit> {
    let context = Context::load(global, &Scope::Shared)?;
    let connection = context.tool_connection("tap");
    let (topic, partitions) = find_topic(&context, &connection, &args.topic).await?;
    let decoder = Decoder::new(context.registry_to_look(&connection).await?, value_subject(&topic));
    let from = args.from.unwrap_or(if args.until_end { Start::Beginning } else { Start::End });
    let mut reading = TopicReader::begin(&connection, &topic, partitions, from, args.until_end).await?;
    let filter = args.key.as_deref().map(record::KeyFilter::new);
    let mut output = Output::new(global.output);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let (mut shown_all, mut readable) = (0_u64, 0_u64);
    while let Some(read) = reading.next().await? {
        let shown = decode(&decoder, &read).await;
        if filter.as_ref().is_some_and(|filter| !filter.matches(&shown["key"])) {
            continue;
        }
        match global.output {
            Form::Table => record::print_line(&mut output, &shown)?,
            Form::Json | Form::Yaml => output.record(&shown)?,
        }
        shown_all += 1;
        // A tombstone has no value, so its key decides whether the record counts as readable.
        let decoded = if read.value.is_some() { "value_error" } else { "key_error" };
        readable += u64::from(shown.get(decoded).is_none());
        left -= 1;
        if left == 0 {
            break;
        }
    }
    output.flush()?;
    if shown_all > 0 && readable == 0 {
        let what = format!("none of the {shown_all} records of `{topic}` could be decoded");
        let help = "see that `kafka.schema_registry` is the registry whose schemas the topic was written with";
        return Err(Failure::new(Kind::Refused, what).help(help).into());
    }
    Ok(Exit::Success)
}

/// Finds the topic by its name with the configured prefix, or else by its plain name.
///
/// A declared topic is found with its prefix only: a topic of the plain name belongs to another installation.
async fn find_topic(context: &Context, connection: &Connection, named: &str) -> crate::Result<(String, i32)> {
    let found: BTreeMap<String, i32> = topics::partition_counts(connection).await?;
    let ours = context.names.topic(named);
    let declared = context.topics().iter().any(|spec| spec.name == ours);
    let candidates = if declared { vec![ours] } else { vec![ours, named.to_owned()] };
    for name in &candidates {
        if let Some(partitions) = found.get(name) {
            return Ok((name.clone(), *partitions));
        }
    }
    // Suggest only topics with our prefix; the others belong to other installations.
    let ours = found.keys().filter_map(|topic| context.names.bare(topic));
    let help = match nearest(named, ours) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`windfall topics list` shows the declared topics, `windfall topics create` makes them".to_owned(),
    };
    Err(Failure::new(Kind::NotFound, format!("there is no topic `{}`", candidates[0])).help(help).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_word_a_time_or_how_long_ago() {
        let at = |text: &str| Start::Time(DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc));
        assert_eq!("beginning".parse(), Ok(Start::Beginning));
        assert_eq!("2026-11-21T10:00:00+01:00".parse(), Ok(at("2026-11-21T09:00:00Z")));
        assert_eq!("2026-11-21".parse(), Ok(at("2026-11-21T00:00:00Z")));
        assert_eq!("15m".parse(), Ok(Start::Ago(Period::from_secs(900))));
        assert!("yesterday".parse::<Start>().unwrap_err().contains("how long ago"));
    }
}
