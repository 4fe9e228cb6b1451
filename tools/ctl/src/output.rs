//! How answers are written: tables for people, JSON for programs.
//!
//! In: what a server answered, byte by byte, and which part of it a table shows. Out: text on standard
//! output. JSON is passed on as it came, whatever fields a newer server adds to it; only white space
//! is changed. Called by every command.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::column::{Cell, Column};
use crate::fault::Fault;
use crate::{indent, moments, table};

/// How answers are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// One JSON value, indented
    Json,
    /// One JSON value a line: an item of a list, or a message, each
    Ndjson,
}

/// What comes out as a whole, and what comes out bit by bit: on a pipe the first is JSON, the second NDJSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    Whole,
    Stream,
}

/// Where answers go.
#[derive(Debug)]
pub(crate) struct Output {
    asked: Option<Format>,
    is_terminal: bool,
    is_colored: bool,
}

/// What a table shows of an answer.
#[derive(Debug)]
pub(crate) struct View {
    /// The field that holds the list; `None` where the answer is the list.
    pub(crate) list: Option<&'static str>,
    pub(crate) columns: &'static [Column],
    /// What is said to people when there is nothing.
    pub(crate) empty: &'static str,
}

impl Output {
    pub(crate) fn new(asked: Option<Format>) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let forbids = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|it| it == "dumb");
        Self { asked, is_terminal, is_colored: is_terminal && !forbids && !is_dumb }
    }

    /// The format that is meant.
    pub(crate) fn format(&self, shape: Shape) -> Format {
        match (self.asked, self.is_terminal, shape) {
            (Some(asked), ..) => asked,
            (None, true, _) => Format::Table,
            (None, false, Shape::Whole) => Format::Json,
            (None, false, Shape::Stream) => Format::Ndjson,
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Fault> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(Fault::Output)
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Fault> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Writes an answer that is a list, or holds one.
    pub(crate) fn list(&self, body: &[u8], view: &View) -> Result<(), Fault> {
        match self.format(Shape::Whole) {
            Format::Json => self.json(body),
            Format::Ndjson => self.lines(items(body, view.list)?.into_iter().map(RawValue::get)),
            Format::Table => {
                let items = items(body, view.list)?;
                self.chosen(&items, view)?;
                if has_more(body, items.len()) {
                    eprintln!("there is more: --limit and --offset reach it");
                }
                Ok(())
            }
        }
    }

    /// Writes items that were chosen from an answer.
    pub(crate) fn chosen(&self, items: &[&RawValue], view: &View) -> Result<(), Fault> {
        match self.format(Shape::Whole) {
            Format::Json => self.json(&to_json(&items)?),
            Format::Ndjson => self.lines(items.iter().map(|raw| raw.get())),
            Format::Table => {
                let rows = items.iter().map(|raw| value(raw.get().as_bytes()));
                self.table(&rows.collect::<Result<Vec<Value>, Fault>>()?, view)
            }
        }
    }

    /// Writes rows as a table.
    pub(crate) fn table(&self, rows: &[Value], view: &View) -> Result<(), Fault> {
        if rows.is_empty() {
            eprintln!("{}", view.empty);
            return Ok(());
        }
        let now_ms = moments::now_ms();
        let titles: Vec<&str> = view.columns.iter().map(|column| column.title).collect();
        let cells =
            rows.iter().map(|row| view.columns.iter().map(|it| it.cell(row, now_ms)).collect());
        let cells: Vec<Vec<Cell>> = cells.collect();
        self.raw(table::table(&titles, &cells, self.is_colored).as_bytes())
    }

    /// Writes an answer that is one object: as a sheet, with the fields that are there.
    pub(crate) fn object(&self, body: &[u8], columns: &[Column]) -> Result<(), Fault> {
        match self.format(Shape::Whole) {
            Format::Json => self.json(body),
            Format::Ndjson => self.one_line(body),
            Format::Table => self.sheet(&value(body)?, columns),
        }
    }

    /// Writes an object as a sheet.
    pub(crate) fn sheet(&self, object: &Value, columns: &[Column]) -> Result<(), Fault> {
        let now_ms = moments::now_ms();
        let there = columns.iter().filter(|column| object.pointer(column.at).is_some());
        let lines: Vec<(&str, Cell)> =
            there.map(|column| (column.title, column.cell(object, now_ms))).collect();
        self.raw(table::sheet(&lines, self.is_colored).as_bytes())
    }

    /// Writes what was done: a sentence for people, the answer for programs.
    pub(crate) fn done(&self, body: &[u8], sentence: &str) -> Result<(), Fault> {
        match self.format(Shape::Whole) {
            Format::Json => self.json(body),
            Format::Ndjson => self.one_line(body),
            Format::Table => self.line(&crate::column::harmless(sentence)),
        }
    }

    /// Writes JSON over lines.
    pub(crate) fn json(&self, body: &[u8]) -> Result<(), Fault> {
        let mut text = indent::over_lines(body);
        text.push(b'\n');
        self.raw(&text)
    }

    /// Writes JSON on one line.
    pub(crate) fn one_line(&self, body: &[u8]) -> Result<(), Fault> {
        let mut text = indent::on_one_line(body);
        text.push(b'\n');
        self.raw(&text)
    }

    fn lines<'a>(&self, items: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
        let mut text = Vec::new();
        for item in items {
            text.extend_from_slice(&indent::on_one_line(item.as_bytes()));
            text.push(b'\n');
        }
        self.raw(&text)
    }
}

/// An answer as a value.
pub(crate) fn value(body: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(body).map_err(|error| not_understood(&error))
}

/// Something of ours as JSON.
pub(crate) fn to_json(it: &impl Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(it).map_err(|error| not_understood(&error))
}

/// Whether an answer with so many items says that it is not all.
fn has_more(body: &[u8], items: usize) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Page {
        has_more: bool,
        total: u64,
        pagination: Offset,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Offset {
        offset: u64,
    }
    let page: Page = serde_json::from_slice(body).unwrap_or_default();
    page.has_more || page.total > page.pagination.offset + items as u64
}

/// A field of an answer, as it came; `None` where it is null or not there.
pub(crate) fn field<'a>(body: &'a [u8], name: &str) -> Result<Option<&'a RawValue>, Fault> {
    let fields: BTreeMap<&str, &'a RawValue> =
        serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    Ok(fields.get(name).copied().filter(|raw| raw.get() != "null"))
}

/// The list in an answer, each item as it came.
pub(crate) fn items<'a>(body: &'a [u8], list: Option<&str>) -> Result<Vec<&'a RawValue>, Fault> {
    let listed = match list {
        None => return serde_json::from_slice(body).map_err(|error| not_understood(&error)),
        Some(name) => field(body, name)?,
    };
    match listed {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|error| not_understood(&error)),
        None => Ok(Vec::new()),
    }
}

fn not_understood(error: &serde_json::Error) -> Fault {
    Fault::Foreign { place: "the server".to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(asked: Option<Format>, is_terminal: bool) -> Output {
        Output { asked, is_terminal, is_colored: false }
    }

    #[test]
    fn terminals_get_tables_and_pipes_get_json() {
        for shape in [Shape::Whole, Shape::Stream] {
            assert_eq!(output(None, true).format(shape), Format::Table);
            assert_eq!(output(Some(Format::Table), false).format(shape), Format::Table);
            assert_eq!(output(Some(Format::Json), true).format(shape), Format::Json);
        }
        assert_eq!(output(None, false).format(Shape::Whole), Format::Json);
        assert_eq!(output(None, false).format(Shape::Stream), Format::Ndjson);
    }

    #[test]
    fn a_page_knows_whether_it_is_all() {
        assert!(has_more(br#"{"hasMore":true}"#, 1));
        assert!(has_more(br#"{"total":3,"pagination":{"limit":1,"offset":1}}"#, 1));
        assert!(!has_more(br#"{"total":2,"pagination":{"offset":1},"hasMore":false}"#, 1));
        assert!(!has_more(b"[1]", 1));
    }

    #[test]
    fn items_come_as_they_were_sent() {
        let body = br#"{"total":2,"messages":[{"n":1.10},{"n":2}]}"#;
        let found: Vec<&str> =
            items(body, Some("messages")).unwrap().iter().map(|it| it.get()).collect();
        assert_eq!(found, [r#"{"n":1.10}"#, r#"{"n":2}"#]);
        assert!(items(body, Some("others")).unwrap().is_empty());
        assert!(items(b"[]", None).unwrap().is_empty());
        assert!(items(b"<html>", None).is_err());
    }
}
