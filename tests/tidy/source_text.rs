//! Reads Rust as far as the rules need it: what is code, what is a test, where a function ends.
//!
//! In: the text of a file. Out: [`Code`], the same lines without comments, texts and tests, and what
//! can be found in them. Not a parser: it knows words, brackets and attributes, and nothing of types.

use std::ops::Range;

/// The code of a file: comments, texts and test items are blanks, lines are where they were.
pub(crate) struct Code {
    /// The text that is left.
    pub(crate) text: String,
    /// Modules that exist in tests only and stand in a file of their own.
    pub(crate) test_modules: Vec<String>,
    /// Lines of the file that belong to no test.
    pub(crate) lines: usize,
}

impl Code {
    pub(crate) fn of(source: &str) -> Self {
        let text = without_texts(source);
        if text.trim_start().starts_with("#![cfg(test)]") {
            return Self { text: String::new(), test_modules: Vec::new(), lines: 0 };
        }
        let mut kept = text.clone().into_bytes();
        let (mut test_modules, mut test_lines) = (Vec::new(), 0);
        for item in test_items(&text) {
            let body = text.get(item.clone()).unwrap_or_default();
            if let Some(name) =
                body.trim_end().strip_suffix(';').and_then(|rest| rest.rsplit_once("mod "))
            {
                test_modules.push(name.1.trim().to_owned());
            }
            test_lines += body.lines().count();
            blank(&mut kept, item);
        }
        let lines = source.lines().count().saturating_sub(test_lines);
        let text = String::from_utf8(kept).expect("only whole characters were blanked");
        Self { text, test_modules, lines }
    }

    /// Names that follow `start::`, the first of each path: `a` and `b` of `start::{a::x, b}`.
    pub(crate) fn names_after(&self, start: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in words(&self.text, start) {
            let rest = self.text.get(at + start.len()..).unwrap_or_default();
            let Some(path) = rest.trim_start().strip_prefix("::") else { continue };
            let line = line_of(&self.text, at);
            for name in first_names(path.trim_start()) {
                found.push((line, name));
            }
        }
        found
    }

    /// Lines on which a word stands by itself.
    pub(crate) fn lines_with(&self, word: &str) -> Vec<usize> {
        words(&self.text, word).into_iter().map(|at| line_of(&self.text, at)).collect()
    }

    /// Each function with a body: its line, its name, and how many lines it has.
    pub(crate) fn functions(&self) -> Vec<(usize, String, usize)> {
        let mut found = Vec::new();
        for at in words(&self.text, "fn") {
            let rest = self.text.get(at + 2..).unwrap_or_default();
            let name = first_word(rest.trim_start());
            let Some(body) = (!name.is_empty()).then(|| body(&self.text, at)).flatten() else {
                continue;
            };
            let (first, last) = (line_of(&self.text, at), line_of(&self.text, body.end));
            found.push((first, name.to_owned(), last - first + 1));
        }
        found
    }
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn first_word(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_word(byte)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// Where `word` stands by itself, not as a part of a longer one.
fn words(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let free =
        |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_none_or(|byte| !is_word(*byte));
    let places = text.match_indices(word).map(|(at, _)| at);
    places.filter(|at| free(at.checked_sub(1)) && free(Some(at + word.len()))).collect()
}

/// First names of a path, or of each path of a group in braces.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![first_word(path).to_owned()];
    };
    let (mut depth, mut fresh, mut names) = (0_usize, true, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            _ if depth == 0 && fresh && !character.is_whitespace() => {
                names.push(first_word(group.get(at..).unwrap_or_default()).to_owned());
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

/// The range of the braces that follow `at`, if they come before a semicolon outside of brackets.
fn body(text: &str, at: usize) -> Option<Range<usize>> {
    let (mut round, mut braces, mut start) = (0_usize, 0_usize, None);
    for (offset, byte) in text.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.saturating_sub(1),
            b';' if round == 0 && start.is_none() => return None,
            b'{' => {
                braces += 1;
                start = start.or(Some(offset));
            }
            b'}' if braces <= 1 => return start.map(|start| start..offset),
            b'}' => braces -= 1,
            _ => {}
        }
    }
    None
}

fn blank(bytes: &mut [u8], range: Range<usize>) {
    for byte in bytes.get_mut(range).into_iter().flatten().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

/// Ranges of items that exist in tests only, each from its attribute to its end.
fn test_items(text: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.match_indices("#[") {
        if items.last().is_some_and(|item| item.contains(&at)) {
            continue;
        }
        let Some(end) = bracket_end(text, at + 1) else { continue };
        let attribute: String =
            text.get(at + 2..end).unwrap_or_default().split_whitespace().collect();
        let only_in_tests = attribute.starts_with("cfg(")
            && !words(&attribute, "test").is_empty()
            && !attribute.contains("not(test");
        if only_in_tests {
            items.push(at..item_end(text, end + 1));
        }
    }
    items
}

/// Where the bracket that opens at `at` is closed.
fn bracket_end(text: &str, at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in text.bytes().enumerate().skip(at) {
        match byte {
            b'[' | b'(' => depth += 1,
            b']' | b')' if depth == 1 => return Some(offset),
            b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The end of the item that begins at `at`, behind further attributes.
fn item_end(text: &str, at: usize) -> usize {
    let mut start = at;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_start().len();
        start += blanks;
        match rest.trim_start().starts_with("#[").then(|| bracket_end(text, start + 1)).flatten() {
            Some(end) => start = end + 1,
            None => break,
        }
    }
    let head = text.get(start..).unwrap_or_default();
    let is_use = head.starts_with("use ") || head.starts_with("pub use ");
    let is_value = !head.starts_with(|first: char| first.is_ascii_lowercase());
    let (mut depth, mut offset) = (0_usize, start);
    for byte in head.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b'}' if depth == 1 && !is_use => return offset + 1,
            b')' | b']' | b'}' if depth == 0 => return offset,
            b')' | b']' | b'}' => depth -= 1,
            b';' if depth == 0 => return offset + 1,
            b',' if depth == 0 && is_value => return offset + 1,
            _ => {}
        }
        offset += 1;
    }
    offset
}

/// Blanks comments and the insides of texts.
fn without_texts(source: &str) -> String {
    let mut kept = source.as_bytes().to_vec();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let after_word = at > 0 && source.as_bytes().get(at - 1).is_some_and(|byte| is_word(*byte));
        let length = text_length(rest, after_word);
        match length {
            0 => at += rest.chars().next().map_or(1, char::len_utf8),
            _ => {
                blank(&mut kept, at..at + length);
                at += length;
            }
        }
    }
    String::from_utf8(kept).expect("comments and texts end between characters")
}

/// How long the comment or text is that `rest` begins with; 0 when it begins with neither.
fn text_length(rest: &str, after_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    if !after_word && let Some(raw) = raw_text_length(rest) {
        return raw;
    }
    0
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character in quotes; a lifetime has no second quote and stays.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => quoted_length(rest, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn raw_text_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = inner.bytes().take_while(|byte| *byte == b'#').count();
    let text = inner.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text.find(&end).map_or(text.len(), |at| at + end.len());
    Some(rest.len() - text.len() + length)
}

#[test]
fn comments_and_texts_are_no_code() {
    let source = "a // b\n/* c /* d */ e */ f \"g \\\" h\" r#\"i \" j\"# 'k' '\\'' &'l m b\"n\"";
    let code = Code::of(source).text;
    let left: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(left, ["a", "f", "&'l", "m", "b"]);
}

#[test]
fn items_that_exist_in_tests_only_are_no_code() {
    let source = "use a;\n#[cfg(test)]\nuse b::{c, d};\n#[cfg(test)]\n#[path = \"x\"]\nmod tests {\n \
                  fn e() {}\n}\nfn f() {}\n#[cfg(all(unix, test))] mod late;\n#[cfg(not(test))] fn g() {}";
    let code = Code::of(source);
    for (word, is_code) in [("a", true), ("b", false), ("e", false), ("f", true), ("g", true)] {
        assert_eq!(!words(&code.text, word).is_empty(), is_code, "{word}: {}", code.text);
    }
    assert_eq!(code.test_modules, ["late"]);
    assert_eq!(code.lines, 3);
}

#[test]
fn a_field_that_exists_in_tests_only_does_not_swallow_what_follows() {
    let code = Code::of("struct S { #[cfg(test)] Seed, b: u8 }\nfn kept() {}");
    assert_eq!(code.functions().len(), 1);
}

#[test]
fn paths_are_found_in_groups_and_across_lines() {
    let code = Code::of("use crate::{a, b::{c, d},\n e};\nlet x = crate :: f::g(); mycrate::h");
    let names: Vec<String> = code.names_after("crate").into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "b", "e", "f"]);
}

#[test]
fn a_function_is_measured_from_its_first_to_its_last_line() {
    let source =
        "fn a(x: [u8; 2]) -> u8\nwhere\n{\n  let f = || { 1 };\n  2\n}\nfn b();\ntype C = fn(u8);";
    assert_eq!(Code::of(source).functions(), [(1, "a".to_owned(), 6)]);
}
