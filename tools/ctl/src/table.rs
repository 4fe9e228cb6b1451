//! Tables and sheets as text.
//!
//! In: titles and cells. Out: lines whose columns stand below each other, by the width that a terminal
//! gives each character; titles and moods in colour where that is wanted. Pure. Called by `output`.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use crate::column::{Cell, Mood};

/// Blanks between columns.
const GAP: usize = 2;

fn style(mood: Mood) -> Style {
    match mood {
        Mood::Plain => Style::new(),
        Mood::Good => AnsiColor::Green.on_default(),
        Mood::Warn => AnsiColor::Yellow.on_default(),
        Mood::Bad => AnsiColor::Red.on_default(),
    }
}

fn painted(text: &str, style: Style, is_colored: bool) -> String {
    if is_colored && !style.is_plain() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// A line for each row under a line of titles, each with its end of line.
pub(crate) fn table(titles: &[&str], rows: &[Vec<Cell>], is_colored: bool) -> String {
    let mut widths: Vec<usize> = titles.iter().map(|title| title.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.width());
        }
    }
    let rights: Vec<bool> = match rows.first() {
        Some(row) => row.iter().map(|cell| cell.is_right).collect(),
        None => vec![false; titles.len()],
    };
    let header = titles
        .iter()
        .zip(&rights)
        .map(|(title, is_right)| (*title, Style::new().bold(), *is_right));
    let mut out = line(header, &widths, is_colored);
    for row in rows {
        let cells = row.iter().map(|cell| (cell.text.as_str(), style(cell.mood), cell.is_right));
        out.push_str(&line(cells, &widths, is_colored));
    }
    out
}

fn line<'a>(
    cells: impl Iterator<Item = (&'a str, Style, bool)>,
    widths: &[usize],
    is_colored: bool,
) -> String {
    let mut out = String::new();
    // Blanks at the end of a line would be copied along.
    let mut owed = 0;
    for ((text, style, is_right), width) in cells.zip(widths) {
        let pad = width.saturating_sub(text.width());
        let (before, after) = if is_right { (pad, 0) } else { (0, pad) };
        out.extend(std::iter::repeat_n(' ', owed + before));
        out.push_str(&painted(text, style, is_colored));
        owed = after + GAP;
    }
    out.push('\n');
    out
}

/// A line for each title and its cell, titles below each other.
pub(crate) fn sheet(lines: &[(&str, Cell)], is_colored: bool) -> String {
    let width = lines.iter().map(|(title, _)| title.width()).max().unwrap_or(0);
    let mut out = String::new();
    for (title, cell) in lines {
        let pad = width.saturating_sub(title.width()) + GAP;
        out.push_str(&painted(title, Style::new().bold(), is_colored));
        out.extend(std::iter::repeat_n(' ', pad));
        out.push_str(&painted(&cell.text, style(cell.mood), is_colored));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str, mood: Mood, is_right: bool) -> Cell {
        Cell { text: text.to_owned(), mood, is_right }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [
            vec![
                cell("a", Mood::Plain, false),
                cell("1", Mood::Plain, true),
                cell("x", Mood::Plain, false),
            ],
            vec![
                cell("日本", Mood::Plain, false),
                cell("100", Mood::Plain, true),
                cell("y", Mood::Plain, false),
            ],
        ];
        let text = table(&["N", "COUNT", "Z"], &rows, false);
        assert_eq!(text, "N     COUNT  Z\na         1  x\n日本    100  y\n");
    }

    #[test]
    fn colours_do_not_move_anything() {
        let rows = [vec![cell("dead", Mood::Bad, false), cell("x", Mood::Plain, false)]];
        let text = table(&["STATE", "Z"], &rows, true);
        assert_eq!(
            text,
            "\u{1b}[1mSTATE\u{1b}[0m  \u{1b}[1mZ\u{1b}[0m\n\u{1b}[31mdead\u{1b}[0m   x\n"
        );
    }

    #[test]
    fn a_sheet_has_a_line_for_each_title() {
        let lines =
            [("name", cell("q", Mood::Plain, false)), ("messages", cell("7", Mood::Good, true))];
        assert_eq!(sheet(&lines, false), "name      q\nmessages  7\n");
    }
}
