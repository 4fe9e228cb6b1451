//! The README is the protocol: its dumps and tables are held against the code.

use std::collections::BTreeMap;

use bytes::BytesMut;
use onrush_protocol::limits::FRAME_BYTES_MAX;
use onrush_protocol::response::Configured;
use onrush_protocol::{
    BatchLimits, Code, MessageId, Opcode, Outcome, QueueOptions, RecordBatch, frame, id,
};

use crate::examples::{self, Example};

const README: &str = include_str!("../../README.md");

/// The bytes of every dump, by its name. A dump is a text block that begins with `# name`; each
/// line has hexadecimal bytes, and a note behind `|`.
fn dumps() -> BTreeMap<&'static str, Vec<u8>> {
    let mut dumps = BTreeMap::new();
    for block in README.split("```text\n# ").skip(1) {
        let block = block.split("```").next().unwrap();
        let (name, lines) = block.split_once('\n').unwrap();
        let bytes = lines
            .lines()
            .flat_map(|line| line.split('|').next().unwrap().split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        assert!(dumps.insert(name, bytes).is_none(), "{name} stands twice");
    }
    dumps
}

#[test]
fn every_message_is_dumped_in_the_readme_byte_for_byte() {
    let mut dumps = dumps();
    for (name, request_id, example) in examples::all() {
        let dump = dumps.remove(name).unwrap_or_else(|| panic!("the README has no dump of {name}"));
        assert_eq!(example.frame(request_id), dump, "{name}");
    }
    assert_eq!(examples::batch().bytes(), &dumps.remove("batch").unwrap());
    assert!(dumps.is_empty(), "dumps of nothing: {:?}", dumps.keys());
}

#[test]
fn every_dump_of_the_readme_decodes_to_its_example() {
    let dumps = dumps();
    for (name, request_id, example) in examples::all() {
        let mut buffer = BytesMut::from(dumps[name].as_slice());
        let frame = frame::decode(&mut buffer, FRAME_BYTES_MAX).unwrap().unwrap();
        assert!(buffer.is_empty(), "{name}");
        assert_eq!((frame.opcode, frame.request_id), (example.opcode(), request_id), "{name}");
        assert_eq!(example.decode(frame.body), Ok(example), "{name}");
    }
    let batch = RecordBatch::parse(dumps["batch"].clone().into(), &BatchLimits::default());
    assert_eq!(batch, Ok(examples::batch()));
}

#[test]
fn every_opcode_has_an_example_of_its_own() {
    let mut opcodes: Vec<u8> = examples::all().iter().map(|(_, _, e)| e.opcode()).collect();
    opcodes.sort_unstable();
    let all: Vec<u8> = Opcode::ALL.iter().map(|opcode| opcode.number()).collect();
    assert_eq!(opcodes, all);
}

#[test]
fn readme_names_every_opcode_with_its_number() {
    for (name, _, example) in examples::all() {
        let number = example.opcode();
        assert!(README.contains(&format!("| {number} | `{name}` |")), "{number} {name}");
        assert_eq!(number < 128, matches!(example, Example::Ask(_)), "{name}");
    }
}

#[test]
fn readme_lists_every_code_with_its_fate_and_no_other() {
    let rows =
        README.lines().filter(|line| line.contains(" applied |") || line.contains("| unknown |"));
    let codes: Vec<&Code> = Code::ALL.iter().collect();
    assert_eq!(rows.clone().count(), codes.len());
    for (row, code) in rows.zip(codes) {
        let again = if code.is_retryable() { "yes" } else { "no" };
        let outcome = match code.outcome() {
            Outcome::NotApplied => "not applied",
            Outcome::Unknown => "unknown",
        };
        let begin = format!("| {} | `{}` | {again} | {outcome} | ", code.number(), code.name());
        assert!(row.starts_with(&begin), "{row} does not begin with {begin}");
    }
}

#[test]
fn readme_lists_every_queue_option_with_its_default() {
    let rows = README.split("| number | option | kind | default |").nth(1).unwrap();
    let rows: Vec<&str> = rows.lines().skip(2).take_while(|row| row.starts_with('|')).collect();
    let mut written = BytesMut::new();
    Configured { queue_id: 0, options: QueueOptions::default(), sql_rows: false }
        .encode(&mut written);
    let defaults = written[10..].chunks(9);
    // The last one is sent only where it is on.
    assert_eq!((rows.len(), defaults.len()), (16, 15));
    for ((row, (number, name)), default) in rows.iter().zip(QueueOptions::NAMES).zip(defaults) {
        let (wire_number, value) = default.split_first().unwrap();
        let value = u64::from_le_bytes(value.try_into().unwrap());
        assert_eq!(wire_number, number);
        assert!(row.starts_with(&format!("| {number} | `{name}` | ")), "{row}");
        assert!(row.ends_with(&format!(" | {value} |")), "{row} does not end with {value}");
    }
}

#[test]
fn readme_shows_ids_as_the_code_makes_them() {
    let message = MessageId::new(examples::TIME_MS, 42, 1000).unwrap().to_string();
    let partition = id::uuid_text(id::partition_uuid(42));
    assert!(README.contains(&format!("`{message}`")), "{message}");
    assert!(README.contains(&format!("`{}`", std::str::from_utf8(&partition).unwrap())));
}
