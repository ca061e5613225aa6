//! Sorts PostgreSQL's errors: those of a record, and those of the environment.

use std::error::Error;

use tokio_postgres::error::DbError;

use crate::store::{Cause, StoreError};

/// What PostgreSQL said, without the DETAIL that repeats the row.
#[derive(Debug, thiserror::Error)]
#[error("{message} (SQLSTATE {code}{where_})")]
struct ServerError {
    code: String,
    message: String,
    where_: String,
}

/// Sorts an error of the driver.
pub(super) fn classify(error: tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(server) => classify_server(server),
        None if is_unencodable(&error) => StoreError::record("encode", error),
        None if is_login(&error) => StoreError::environment(Cause::Login, error),
        None => StoreError::environment(Cause::Connection, error),
    }
}

fn classify_server(error: &DbError) -> StoreError {
    let code = error.code().code().to_owned();
    let names = [("column", error.column()), ("constraint", error.constraint()), ("table", error.table())];
    let where_ = names.iter().filter_map(|(what, name)| name.map(|name| format!(", {what} {name}"))).collect();
    let verdict = judge(&code);
    let source = Box::new(ServerError { code: code.clone(), message: error.message().to_owned(), where_ });
    match verdict {
        Verdict::Record => StoreError::record(code, source),
        Verdict::Environment(cause) => StoreError::Environment { cause, source },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Record,
    Environment(Cause),
}

/// Decides by SQLSTATE; every class of PostgreSQL's appendix A is named.
///
/// What is not known is the environment's fault: pausing loses nothing, while a wrong dead letter would.
fn judge(code: &str) -> Verdict {
    use Cause::{
        Conflict, Connection, DiskFull, Internal, Io, Locked, Login, ReadOnly, Resources, Rights, Shape, TimedOut,
    };
    use Verdict::{Environment, Record};

    match code {
        // Single codes that differ from their class.
        "25006" => Environment(ReadOnly),
        "40003" => Environment(Connection),
        "42501" => Environment(Rights),
        "53100" => Environment(DiskFull),
        "55P03" => Environment(Locked),
        "57014" | "25P03" | "25P04" | "57P05" => Environment(TimedOut),
        // A value that cannot take the column's type arrives as these although they stand with the syntax errors.
        "42804" | "42846" => Environment(Shape),
        _ => match code.get(..2).unwrap_or_default() {
            // data exception; integrity constraint; check option of a view; raised by a trigger or its function;
            // program limit (a text too long for its index)
            "22" | "23" | "44" | "P0" | "38" | "39" | "2F" | "09" | "54" => Record,
            // connection; triggered or invalid grantor; operator intervention: the server goes away or comes up
            "08" | "57" => Environment(Connection),
            // authorization, invalid role, missing database
            "28" | "0P" | "3D" | "0L" => Environment(Login),
            // serialization failure, deadlock
            "40" => Environment(Conflict),
            "53" => Environment(Resources),
            "55" => Environment(Locked),
            // I/O errors of the server's files
            "58" => Environment(Io),
            // missing tables, columns, schemas; features a changed table would need
            "42" | "3F" | "0A" | "2B" | "1B" => Environment(Shape),
            // states of a transaction or statement that a new session does not have; snapshots; configuration file;
            // foreign data; inner faults; a key twice in a statement, which the fold makes impossible; all the rest
            "00" | "01" | "02" | "03" | "0B" | "0F" | "0Z" | "10" | "20" | "21" | "24" | "25" | "26" | "27" | "2D"
            | "34" | "3B" | "72" | "F0" | "HV" | "XX" => Environment(Internal),
            _ => Environment(Internal),
        },
    }
}

/// The driver could not put a value on the wire: no server would ever see it.
fn is_unencodable(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error serializing parameter")
}

/// The driver gave up before the server could answer with a code: no password at hand, or a method it lacks.
fn is_login(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    error.source().is_none_or(|source| !source.is::<std::io::Error>())
        && (text.starts_with("authentication error") || text.starts_with("invalid configuration"))
}

#[cfg(test)]
mod tests {
    use super::{Cause, Verdict, judge};

    #[test]
    fn what_lies_in_the_record_is_told_from_what_lies_in_the_world() {
        for code in ["22001", "22003", "22008", "22021", "22P05", "23502", "23505", "23514", "P0001", "54000"] {
            assert_eq!(judge(code), Verdict::Record, "{code}");
        }
        let world = [
            ("08006", Cause::Connection),
            ("57P01", Cause::Connection),
            ("57P03", Cause::Connection),
            ("57014", Cause::TimedOut),
            ("28P01", Cause::Login),
            ("3D000", Cause::Login),
            ("40001", Cause::Conflict),
            ("40P01", Cause::Conflict),
            ("55P03", Cause::Locked),
            ("53100", Cause::DiskFull),
            ("58030", Cause::Io),
            ("53300", Cause::Resources),
            ("25006", Cause::ReadOnly),
            ("42501", Cause::Rights),
            ("42P01", Cause::Shape),
            ("42703", Cause::Shape),
            ("XX000", Cause::Internal),
            ("21000", Cause::Internal),
            ("ZZ999", Cause::Internal),
            ("", Cause::Internal),
        ];
        for (code, cause) in world {
            assert_eq!(judge(code), Verdict::Environment(cause), "{code}");
        }
    }
}
