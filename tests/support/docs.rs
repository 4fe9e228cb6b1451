//! What the pages for readers tell them to type.
//!
//! In: a page in Markdown. Out: its fenced blocks by what they say they are, the command lines that it
//! names for one of our programs, in blocks and inside of sentences, and the steps of a tour with the
//! answers that the page shows.

#![allow(dead_code, reason = "no test asks for all of it")]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// README.md and every page in the docs folder, each with its text.
pub(crate) fn pages(root: &Path) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (vec![root.join("README.md")], vec![root.join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// A page cut at its fences: what each piece says it is, empty for prose, and its text.
fn pieces(page: &str) -> Vec<(String, String)> {
    let mut found = vec![(String::new(), String::new())];
    let mut is_fenced = false;
    for line in page.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            is_fenced = !is_fenced;
            let info = if is_fenced { info.trim() } else { "" };
            found.push((info.to_owned(), String::new()));
        } else {
            let (_, text) = found.last_mut().unwrap();
            text.push_str(line);
            text.push('\n');
        }
    }
    assert!(!is_fenced, "a fence is not closed");
    found
}

/// The fenced blocks whose opening line says exactly `info`.
pub(crate) fn fences(page: &str, info: &str) -> Vec<String> {
    pieces(page).into_iter().filter(|(said, _)| said == info).map(|(_, text)| text).collect()
}

/// Arguments of every command line for `program` that a page names, without the program itself.
///
/// A span of flags alone goes on from the command that was named before it, as in a table whose next
/// row says only what is different.
pub(crate) fn command_lines(page: &str, program: &str) -> Vec<Vec<String>> {
    let (mut found, mut last) = (Vec::new(), None);
    for (info, text) in pieces(page) {
        let lines = match info.split(' ').next().unwrap_or_default() {
            "" => spans(&text),
            // Each program of a pipe is one that the reader starts.
            "sh" | "bash" => text
                .replace("\\\n", " ")
                .lines()
                .flat_map(|line| line.split(" | "))
                .map(str::to_owned)
                .collect(),
            _ => continue,
        };
        for line in lines {
            let words = words(&line);
            let command = match (invocation(&words), &last) {
                (Some(command), _) => command,
                (None, Some((named, arguments))) if line.starts_with("--") => {
                    let arguments: &Vec<String> = arguments;
                    let verbs = arguments.iter().take_while(|it| !it.starts_with('-')).cloned();
                    (String::clone(named), verbs.chain(words).collect())
                }
                _ => continue,
            };
            if command.0 == program {
                found.push(command.1.clone());
            }
            last = Some(command);
        }
    }
    found
}

/// What stands between backticks, each on one line.
fn spans(prose: &str) -> Vec<String> {
    let parts: Vec<&str> = prose.split('`').collect();
    assert!(parts.len() % 2 == 1, "a code span is not closed");
    parts.iter().skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// Stands for a blank between quotes while a line is cut at its blanks.
const QUOTED_BLANK: char = '\u{1}';

/// Words of a line. Whatever the reader is to put in, `<like this>`, is one word, and so is what stands
/// between quotes.
fn words(line: &str) -> Vec<String> {
    let mut plain = String::new();
    let (mut depth, mut quote) = (0_u32, None);
    for it in line.chars() {
        match it {
            '\'' | '"' if quote.is_none() => quote = Some(it),
            _ if quote == Some(it) => quote = None,
            ' ' if quote.is_some() => plain.push(QUOTED_BLANK),
            it if quote.is_some() => plain.push(it),
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            ' ' if depth > 0 => plain.push('_'),
            it => plain.push(it),
        }
    }
    plain.split_whitespace().map(|word| word.replace(QUOTED_BLANK, " ")).collect()
}

/// The program that a line starts and its arguments, through cargo or by name.
fn invocation(words: &[String]) -> Option<(String, Vec<String>)> {
    let is_variable = |word: &&String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|it| it.is_ascii_uppercase() || it == '_')
        })
    };
    let set = words.iter().take_while(is_variable).count();
    let (first, rest) = words.get(set..)?.split_first()?;
    if first == "cargo" && rest.first().is_some_and(|it| it == "run") {
        let end = rest.iter().position(|it| it == "--").unwrap_or(rest.len());
        let package = rest[..end].iter().position(|it| it == "-p" || it == "--bin");
        let named = package.and_then(|at| rest.get(at + 1)).cloned();
        let arguments = rest.iter().skip(end + 1).cloned().collect();
        return Some((named.unwrap_or_else(|| "onrush".to_owned()), arguments));
    }
    let name = first.rsplit('/').next().unwrap_or(first);
    let is_ours = ["onrush", "onrush-load", "onrushctl"].contains(&name);
    is_ours.then(|| (name.to_owned(), rest.to_vec()))
}

/// Whether `binary` knows every command and flag of a line, and if not, what it says. Nothing is
/// carried out: the line asks for help at its end, and words before that are read first.
pub(crate) fn is_known(binary: &str, arguments: &[String]) -> Result<(), String> {
    let output = std::process::Command::new(binary).args(arguments).arg("--help").output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Holds every line for `program` on all pages against `binary`; how many there were.
///
/// # Panics
/// Where a page names what the program does not know.
pub(crate) fn check_all(root: &Path, program: &str, binary: &str) -> usize {
    let mut count = 0;
    for (path, page) in pages(root) {
        for arguments in command_lines(&page, program) {
            let known = is_known(binary, &arguments);
            known.unwrap_or_else(|said| panic!("{}: {program} {said}", path.display()));
            count += 1;
        }
    }
    count
}

/// One command of the tour.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Step {
    pub(crate) command: String,
    /// The answer that the page shows, empty where it shows none.
    pub(crate) answer: String,
}

/// Cuts a block into its commands. A command goes on over lines while a quote is open or a backslash
/// ends its line; comments right below it are its answer, other comments are for the reader.
pub(crate) fn steps(block: &str) -> Vec<Step> {
    let mut found: Vec<Step> = Vec::new();
    let (mut is_open, mut is_below) = (false, false);
    for line in block.lines() {
        match line.strip_prefix('#') {
            Some(comment) if !is_open => {
                if let (true, Some(step)) = (is_below, found.last_mut()) {
                    step.answer.push_str(comment);
                }
                continue;
            }
            _ if !is_open && line.is_empty() => is_below = false,
            _ => {
                if !is_open {
                    found.push(Step::default());
                }
                let step = found.last_mut().unwrap();
                step.command.push_str(line);
                step.command.push('\n');
                is_open = line.ends_with('\\') || has_open_quote(&step.command);
                is_below = true;
            }
        }
    }
    assert!(!is_open, "the last command does not end: {found:?}");
    found
}

fn has_open_quote(command: &str) -> bool {
    let mut open = None;
    for it in command.chars().filter(|it| matches!(it, '\'' | '"')) {
        match open {
            None => open = Some(it),
            Some(mark) if mark == it => open = None,
            Some(_) => {}
        }
    }
    open.is_some()
}

/// Puts into `<field>` what a field of that name said in an answer.
pub(crate) fn fill(command: &str, answers: &[Value]) -> String {
    let mut filled = String::new();
    let mut rest = command;
    while let Some((before, (name, after))) =
        rest.split_once('<').and_then(|(before, after)| Some((before, after.split_once('>')?)))
    {
        // The latest answer is the one that the reader has before them.
        let value = answers.iter().rev().find_map(|answer| field(answer, name));
        filled.push_str(before);
        filled.push_str(value.unwrap_or_else(|| panic!("no answer has {name}: {answers:?}")));
        rest = after;
    }
    filled + rest
}

/// The first text of that name, inner ones before outer ones: a message's before its batch's.
fn field<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    let inner = match answer {
        Value::Array(items) => items.iter().find_map(|it| field(it, name)),
        Value::Object(fields) => fields.values().find_map(|it| field(it, name)),
        _ => None,
    };
    inner.or_else(|| answer.get(name)?.as_str())
}
