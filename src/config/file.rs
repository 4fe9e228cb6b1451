//! The configuration file: TOML with one table per section.
//!
//! In: the text of a file. Out: an offer per key, each with its line. Keys and sections that nobody
//! knows are problems, since a misspelt limit that is silently ignored is no limit. Called by
//! `config::source`.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Origin, Problem};
use super::settings::SETTINGS;
use super::source::Gathered;
use super::suggest::nearest;

/// Offers every value of the file to `gathered`.
pub(super) fn read(path: &Path, text: &str, gathered: &mut Gathered) {
    let origin = |offset: usize| Origin::File { path: path.to_owned(), line: line(text, offset) };
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            gathered.problems.push(Problem::Syntax {
                path: path.to_owned(),
                line: line(text, offset),
                reason: error.message().to_owned(),
            });
            return;
        }
    };
    // The table is sorted by name; a person reads from top to bottom.
    for (section, value) in in_file_order(document.get_ref()) {
        let section_name = section.get_ref().as_ref();
        let Some(keys) = value.get_ref().as_table() else {
            unknown(section_name, origin(section.span().start), gathered);
            continue;
        };
        if !SETTINGS.iter().any(|setting| setting.section == section_name) {
            unknown(section_name, origin(section.span().start), gathered);
            continue;
        }
        for (key, value) in in_file_order(keys) {
            let path = format!("{section_name}.{}", key.get_ref());
            let origin = origin(key.span().start);
            match SETTINGS.iter().find(|setting| setting.path == path) {
                None => unknown(&path, origin, gathered),
                Some(setting) => match plain(value.get_ref(), setting.rule.takes_bare()) {
                    Ok(text) => gathered.offer(setting, &text, origin),
                    Err(found) => {
                        let allowed = format!("{}, in quotes", setting.rule.allowed());
                        gathered.refuse(setting, &found, origin, allowed);
                    }
                },
            }
        }
    }
}

type Entry<'a, 'i> = (&'a Spanned<toml::de::DeString<'i>>, &'a Spanned<DeValue<'i>>);

fn in_file_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The text of a value; the error is what stands there instead of one.
fn plain(value: &DeValue<'_>, takes_bare: bool) -> Result<String, String> {
    let bare = match value {
        DeValue::String(text) => return Ok(text.clone().into_owned()),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()),
        _ => return Err(value.type_str().to_owned()),
    };
    if takes_bare { Ok(bare) } else { Err(bare) }
}

fn unknown(name: &str, origin: Origin, gathered: &mut Gathered) {
    let sections = SETTINGS.iter().map(|setting| setting.section);
    let paths = SETTINGS.iter().map(|setting| setting.path);
    let suggestion = nearest(name, sections.chain(paths));
    gathered.problems.push(Problem::Unknown { name: name.to_owned(), origin, suggestion });
}

/// The line of a byte, from 1.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count().saturating_add(1)
}
