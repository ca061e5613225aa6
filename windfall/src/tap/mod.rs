//! `windfall tap`: the decoded records of a topic, one a line.

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
use crate::part::Part;
pub(crate) use reading::Reading;
pub(crate) use record::decode;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// At the oldest record that is still there.
    Beginning,
    /// At what comes next.
    End,
    /// At the first record that is not older.
    Time(DateTime<Utc>),
    /// At the first record that is not older than so long ago.
    Ago(Period),
}

impl FromStr for From {
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

/// Prints records until the end, the limit, or for ever.
pub(crate) async fn run(global: &Global, args: &TapArgs) -> crate::Result<Exit> {
    let context = Context::load(global, &Part::Shared)?;
    let connection = context.tool_connection("tap");
    let (topic, partitions) = find_topic(&context, &connection, &args.topic).await?;
    let decoder = Decoder::new(context.registry_to_look(&connection).await?, value_subject(&topic));
    let from = args.from.unwrap_or(if args.until_end { From::Beginning } else { From::End });
    let mut reading = Reading::begin(&connection, &topic, partitions, from, args.until_end).await?;
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
        // A key that is no key of Avro is shown as it is; of a tombstone there is nothing but the key.
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

/// Finds the topic with the configured prefix in front, or as it was named.
///
/// A declared topic is ours alone: one of its name without the prefix belongs to another installation.
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
    // Other prefixes are other installations; their topics were hardly meant.
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
        let at = |text: &str| From::Time(DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc));
        assert_eq!("beginning".parse(), Ok(From::Beginning));
        assert_eq!("2026-11-21T10:00:00+01:00".parse(), Ok(at("2026-11-21T09:00:00Z")));
        assert_eq!("2026-11-21".parse(), Ok(at("2026-11-21T00:00:00Z")));
        assert_eq!("15m".parse(), Ok(From::Ago(Period::from_secs(900))));
        assert!("yesterday".parse::<From>().unwrap_err().contains("how long ago"));
    }
}
