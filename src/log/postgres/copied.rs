//! Values as the database takes them in their binary form, without a copy on the way. Pure.
//!
//! In: bytes that are held elsewhere. Out: what stands in a binary COPY or a parameter. Called by
//! `projection`.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

type ToSqlError = Box<dyn Error + Sync + Send>;

/// The version that stands before the text of a `jsonb`.
const JSONB_VERSION: u8 = 1;

/// A text that says it is JSON, as `jsonb`.
#[derive(Debug)]
pub(super) struct Json<'a>(pub(super) &'a [u8]);

/// Bytes, as `bytea`.
#[derive(Debug)]
pub(super) struct Blob<'a>(pub(super) &'a [u8]);

/// An id, as `uuid`.
#[derive(Debug)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl ToSql for Json<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, ToSqlError> {
        out.put_u8(JSONB_VERSION);
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::JSONB
    }

    to_sql_checked!();
}

impl ToSql for Blob<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, ToSqlError> {
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::BYTEA
    }

    to_sql_checked!();
}

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, ToSqlError> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }

    to_sql_checked!();
}
