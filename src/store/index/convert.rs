//! Between our types and columns. What does not convert is treated as if the row were not there.

use rusqlite::types::Type;
use rusqlite::{Error, OptionalExtension as _, Row};

use crate::clock::Wall;
use crate::oci::Digest;

/// A size or count as SQLite holds it. Sizes are bounded far below where this would clamp.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A size or count from a column.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_negative| Error::IntegralValueOutOfRange(column, value))
}

/// A digest from a column.
pub(super) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text = row.get_ref(column)?.as_str()?;
    Digest::parse(text)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A digest from a column that may be null.
pub(super) fn optional_digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    if row.get_ref(column)?.as_str_or_null()?.is_none() {
        return Ok(None);
    }
    digest(row, column).map(Some)
}

/// A time from a column.
pub(super) fn wall(row: &Row<'_>, column: usize) -> rusqlite::Result<Wall> {
    row.get(column).map(Wall::from_ms)
}

/// A list or map from a JSON column.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A list or map for a JSON column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// A row that is not there, or that cannot be read back, is none.
pub(super) fn lenient<T>(answer: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match answer.optional() {
        Err(error) if is_garbled(&error) => {
            tracing::warn!(%error, "a row of the index cannot be read back; it counts as absent");
            Ok(None)
        }
        other => other,
    }
}

/// All rows that can be read back.
pub(super) fn readable<T>(
    rows: impl Iterator<Item = rusqlite::Result<T>>,
) -> rusqlite::Result<Vec<T>> {
    rows.filter_map(|row| lenient(row).transpose()).collect()
}

fn is_garbled(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}
