//! Values of a guest into JSON text, the same text for equal values.
//!
//! In: a value, which may contain itself, or share one table a million times. Out: its text, or why it
//! has none; never more than was asked for. Keys of objects are in the order of their bytes, numbers
//! without a fraction are written as integers up to 2^53. Tables are read as they are: metatables are
//! not asked.

use mlua::{Table, Value};

use super::decode::DEPTH_MAX;

/// Up to here a double without a fraction is written as an integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Why a value has no text.
#[derive(Debug)]
pub(super) enum EncodeError {
    /// It would be longer than was asked for. What is in the buffer is its beginning.
    TooLong,
    /// JSON has nothing like it.
    Value(String),
    /// The VM refused.
    Vm(mlua::Error),
}

/// Appends the text of a value to `out`, which grows by at most `bytes`, and a few.
pub(super) fn encode(
    value: &Value,
    array_mark: &Table,
    bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let end = out.len().saturating_add(bytes);
    let mut writer = Writer { array_mark, left: bytes };
    writer.value(value, out, 0)?;
    if out.len() > end { Err(EncodeError::TooLong) } else { Ok(()) }
}

/// The fields of a table whose keys are all strings, each with its text; in the order of their keys.
pub(super) fn encode_fields(
    table: &Table,
    array_mark: &Table,
    bytes: usize,
    skip: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let mut writer = Writer { array_mark, left: bytes };
    writer.object(table, &skip, out, 0)
}

struct Writer<'a> {
    array_mark: &'a Table,
    /// Bytes that may still be written.
    left: usize,
}

/// What a table is in JSON.
enum Shape {
    Array(usize),
    Object,
}

impl Writer<'_> {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            let part = bytes.get(..self.left).unwrap_or_default();
            out.extend_from_slice(part);
            self.left = 0;
            return Err(EncodeError::TooLong);
        };
        self.left = left;
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn value(&mut self, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), EncodeError> {
        match value {
            Value::Nil => self.push(b"null", out),
            value if value.is_null() => self.push(b"null", out),
            Value::Boolean(true) => self.push(b"true", out),
            Value::Boolean(false) => self.push(b"false", out),
            Value::Integer(number) => self.number(*number as f64, out),
            Value::Number(number) => self.number(*number, out),
            Value::String(text) => self.string(&text.as_bytes(), out),
            Value::Table(_) if depth >= DEPTH_MAX => {
                let what = "a table that nests too deep, or contains itself, has no JSON";
                Err(EncodeError::Value(what.to_owned()))
            }
            Value::Table(table) => match shape(table, self.array_mark)? {
                Shape::Array(len) => self.array(table, len, out, depth + 1),
                Shape::Object => self.object(table, &|_| false, out, depth + 1),
            },
            other => Err(EncodeError::Value(format!("a {} has no JSON", other.type_name()))),
        }
    }

    fn number(&mut self, number: f64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let whole = number.fract() == 0.0 && number.abs() <= EXACT_MAX;
        if whole && !(number == 0.0 && number.is_sign_negative()) {
            return self.push((number as i64).to_string().as_bytes(), out);
        }
        if !number.is_finite() {
            return Err(EncodeError::Value(format!("{number} has no JSON")));
        }
        let text = serde_json::to_vec(&number);
        let text = text.map_err(|error| EncodeError::Value(error.to_string()))?;
        self.push(&text, out)
    }

    fn string(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let what = "a string that is not UTF-8 has no JSON".to_owned();
            return Err(EncodeError::Value(what));
        };
        let from = out.len();
        if bytes.len() > self.left {
            // Enough for its beginning; the rest is never written.
            let mut begin = text.to_owned();
            super::super::gathered::truncate(&mut begin, self.left);
            let quoted = serde_json::to_vec(&begin).unwrap_or_default();
            self.push(&quoted, out)?;
            return Err(EncodeError::TooLong);
        }
        serde_json::to_writer(&mut *out, text)
            .map_err(|error| EncodeError::Value(error.to_string()))?;
        self.took(from, out)
    }

    /// Counts what was written since `from`, and takes back what is too much.
    fn took(&mut self, from: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let taken = out.len() - from;
        if taken > self.left {
            out.truncate(from + self.left);
            self.left = 0;
            return Err(EncodeError::TooLong);
        }
        self.left -= taken;
        Ok(())
    }

    fn array(
        &mut self,
        table: &Table,
        len: usize,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), EncodeError> {
        self.push(b"[", out)?;
        for index in 1..=len {
            if index > 1 {
                self.push(b",", out)?;
            }
            let value: Value = table.raw_get(index).map_err(EncodeError::Vm)?;
            self.value(&value, out, depth)?;
        }
        self.push(b"]", out)
    }

    /// Fields are written as the table gives them and put in order afterwards: collecting their values
    /// instead would hold a reference into the VM for each.
    fn object(
        &mut self,
        table: &Table,
        skip: &dyn Fn(&[u8]) -> bool,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), EncodeError> {
        self.push(b"{", out)?;
        let mut unordered = Vec::new();
        let mut fields = Vec::new();
        let mut refusal = None;
        let each = |key: Value, value: Value| {
            let Err(error) = self.field(&key, &value, skip, &mut unordered, &mut fields, depth)
            else {
                return Ok(());
            };
            refusal = Some(error);
            Err(mlua::Error::StackError)
        };
        let walked = table.for_each(each);
        if let Some(refusal) = refusal {
            out.extend_from_slice(&unordered);
            return Err(refusal);
        }
        walked.map_err(EncodeError::Vm)?;
        fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut first = true;
        for (_, span) in fields {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(unordered.get(span).unwrap_or_default());
        }
        self.push(b"}", out)
    }

    fn field(
        &mut self,
        key: &Value,
        value: &Value,
        skip: &dyn Fn(&[u8]) -> bool,
        unordered: &mut Vec<u8>,
        fields: &mut Vec<(Vec<u8>, std::ops::Range<usize>)>,
        depth: usize,
    ) -> Result<(), EncodeError> {
        let Value::String(name) = key else {
            let what = match key {
                Value::Integer(_) | Value::Number(_) => {
                    "a table with a number as key that is no list from 1 on has no JSON".to_owned()
                }
                other => format!("a table with a {} as key has no JSON", other.type_name()),
            };
            return Err(EncodeError::Value(what));
        };
        let name = name.as_bytes();
        if skip(&name) {
            return Ok(());
        }
        let from = unordered.len();
        self.string(&name, unordered)?;
        self.push(b":", unordered)?;
        // The comma that goes before it once all are in order.
        let comma = usize::from(!fields.is_empty());
        self.left = self.left.checked_sub(comma).ok_or(EncodeError::TooLong)?;
        self.value(value, unordered, depth)?;
        fields.push((name.to_vec(), from..unordered.len()));
        Ok(())
    }
}

/// A list without holes is an array, and so is what is marked as one; all else is an object, the empty
/// table too.
fn shape(table: &Table, array_mark: &Table) -> Result<Shape, EncodeError> {
    let len = table.raw_len();
    let marked = table.metatable().is_some_and(|meta| meta == *array_mark);
    if len == 0 && !marked {
        return Ok(Shape::Object);
    }
    let mut in_list = 0;
    let counted = table.for_each(|key: Value, _: Value| {
        let index = match key {
            Value::Integer(index) => usize::try_from(index).ok(),
            _ => None,
        };
        if !index.is_some_and(|index| (1..=len).contains(&index)) {
            return Err(mlua::Error::StackError);
        }
        in_list += 1;
        Ok(())
    });
    if counted.is_ok() && in_list == len {
        return Ok(Shape::Array(len));
    }
    if marked {
        let what = "an array with holes, or with other keys, has no JSON";
        return Err(EncodeError::Value(what.to_owned()));
    }
    Ok(Shape::Object)
}
