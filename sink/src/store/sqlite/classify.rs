//! Sorts SQLite's errors: is it the record, or is it the world?

use rusqlite::{Error, ErrorCode};

use crate::store::{Cause, StoreError};

/// Sorts an error of SQLite.
pub(super) fn classify(error: Error) -> StoreError {
    match &error {
        Error::SqliteFailure(failure, _) => match judge(failure.code) {
            None => StoreError::Record { code: format!("sqlite {}", failure.extended_code), source: error.into() },
            Some(cause) => StoreError::environment(cause, error),
        },
        Error::ToSqlConversionFailure(_) | Error::NulError(_) | Error::IntegralValueOutOfRange(..) => {
            StoreError::Record { code: "encode".to_owned(), source: error.into() }
        }
        Error::SqlInputError { .. } => StoreError::environment(Cause::Shape, error),
        Error::InvalidPath(_) => StoreError::environment(Cause::Connection, error),
        _ => StoreError::environment(Cause::Internal, error),
    }
}

/// Returns the cause, or nothing when the record is at fault.
fn judge(code: ErrorCode) -> Option<Cause> {
    match code {
        ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => None,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            Some(Cause::Locked)
        }
        ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::NoLargeFileSupport => Some(Cause::DiskFull),
        ErrorCode::ReadOnly => Some(Cause::ReadOnly),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => Some(Cause::Rights),
        ErrorCode::CannotOpen | ErrorCode::NotADatabase => Some(Cause::Connection),
        ErrorCode::OutOfMemory => Some(Cause::Resources),
        ErrorCode::SchemaChanged | ErrorCode::Unknown => Some(Cause::Shape),
        ErrorCode::OperationAborted | ErrorCode::OperationInterrupted => Some(Cause::Conflict),
        // The rest says that the file or our use of it is wrong; codes to come are held, never dead letters.
        _ => Some(Cause::Internal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_the_record_is_the_records_fault() {
        for code in [ErrorCode::ConstraintViolation, ErrorCode::TooBig, ErrorCode::TypeMismatch] {
            assert_eq!(judge(code), None);
        }
        assert_eq!(judge(ErrorCode::DatabaseBusy), Some(Cause::Locked));
        assert_eq!(judge(ErrorCode::DiskFull), Some(Cause::DiskFull));
        assert_eq!(judge(ErrorCode::ReadOnly), Some(Cause::ReadOnly));
        assert_eq!(judge(ErrorCode::DatabaseCorrupt), Some(Cause::Internal));
    }
}
