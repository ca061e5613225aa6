//! Sorts SQLite's errors: those of a record, and those of the environment.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::{Cause, StoreError};

/// Sorts an error of SQLite.
pub(super) fn classify(error: Error) -> StoreError {
    match &error {
        Error::SqliteFailure(failure, _) => match judge(*failure) {
            None => StoreError::record(format!("sqlite {}", failure.extended_code), error),
            Some(cause) => StoreError::environment(cause, error),
        },
        Error::ToSqlConversionFailure(_) | Error::NulError(_) | Error::IntegralValueOutOfRange(..) => {
            StoreError::record("encode", error)
        }
        Error::SqlInputError { .. } => StoreError::environment(Cause::Shape, error),
        Error::InvalidPath(_) => StoreError::environment(Cause::Connection, error),
        _ => StoreError::environment(Cause::Internal, error),
    }
}

/// Returns the cause, or nothing when the record is at fault.
fn judge(failure: ffi::Error) -> Option<Cause> {
    match failure.code {
        ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch => None,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            Some(Cause::Locked)
        }
        ErrorCode::DiskFull => Some(Cause::DiskFull),
        ErrorCode::SystemIoFailure => Some(match failure.extended_code {
            ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_IOERR_SHMLOCK | ffi::SQLITE_IOERR_SHMMAP => Cause::SharedMemory,
            // SQLite could not make the shared memory's file larger.
            ffi::SQLITE_IOERR_SHMSIZE => Cause::DiskFull,
            _ => Cause::Io,
        }),
        ErrorCode::NoLargeFileSupport => Some(Cause::Io),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Some(Cause::ReadOnly),
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
    use windfall_runtime::diagnose::Diagnose as _;

    use super::*;

    fn code(extended_code: std::ffi::c_int) -> Option<Cause> {
        judge(ffi::Error::new(extended_code))
    }

    #[test]
    fn only_what_lies_in_the_record_is_the_records_fault() {
        for record in [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_TOOBIG, ffi::SQLITE_MISMATCH] {
            assert_eq!(code(record), None);
        }
        assert_eq!(code(ffi::SQLITE_BUSY), Some(Cause::Locked));
        assert_eq!(code(ffi::SQLITE_CORRUPT), Some(Cause::Internal));
    }

    #[test]
    fn a_full_disk_a_read_only_file_missing_shared_memory_and_a_broken_disk_are_four_causes() {
        assert_eq!(code(ffi::SQLITE_FULL), Some(Cause::DiskFull));
        assert_eq!(code(ffi::SQLITE_READONLY_DIRECTORY), Some(Cause::ReadOnly));
        for missing in [ffi::SQLITE_IOERR_SHMOPEN, ffi::SQLITE_IOERR_SHMMAP, ffi::SQLITE_IOERR_SHMLOCK] {
            assert_eq!(code(missing), Some(Cause::SharedMemory));
        }
        assert_eq!(code(ffi::SQLITE_IOERR_READ), Some(Cause::Io));
        let help = |cause| StoreError::environment(cause, "").help().unwrap_or_default();
        assert!(help(Cause::ReadOnly).contains("mount"));
        assert!(help(Cause::SharedMemory).contains("local disk"));
        assert!(help(Cause::Io).contains("kernel"));
    }
}
