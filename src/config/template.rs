//! Settings as text: the template of a configuration file, and the settings in effect.
//!
//! In: the table; for the second, loaded settings. Out: TOML. In the template every setting is
//! commented out, so that a file made from it keeps following the defaults until a line is opened.
//! Secrets are never written. Called by the binary for `onrush config template` and `config show`.

use std::fmt::Write;

use super::settings::{SECTIONS, SETTINGS, Settings};
use super::table::REDACTED;
use super::{Entry, Loaded, Origin};

/// The widest line of prose, in characters.
const WIDTH: usize = 100;

/// A commented configuration file that holds every setting with its default.
pub fn template() -> String {
    let mut out = String::from(
        "# Settings of the Onrush server. Each one stands here with its default; open a line to \
         change it.\n# Variables win over this file, and flags over variables. Unknown keys are \
         refused.\n",
    );
    let defaults = Settings::default().values();
    let mut section = "";
    for (setting, default) in SETTINGS.iter().zip(defaults) {
        if setting.section != section {
            section = setting.section;
            out.push('\n');
            let docs = SECTIONS.iter().find(|(name, _)| *name == section);
            wrap(&mut out, docs.map_or(&[][..], |(_, docs)| docs).iter().copied());
            line(&mut out, format_args!("[{section}]"));
        }
        out.push('\n');
        wrap(&mut out, setting.docs.iter().copied());
        wrap(&mut out, [format!("Allowed: {}.", setting.rule.allowed()).as_str()].into_iter());
        wrap(&mut out, [names(setting).as_str()].into_iter());
        line(&mut out, format_args!("#{} = {}", setting.key, setting.rule.literal(&default)));
    }
    out
}

/// The settings in effect, each with who gave it.
pub fn show(loaded: &Loaded) -> String {
    let mut out = String::new();
    let mut section = "";
    for Entry { setting, value, origin } in loaded.entries() {
        if setting.section != section {
            if !section.is_empty() {
                out.push('\n');
            }
            section = setting.section;
            line(&mut out, format_args!("[{section}]"));
        }
        let literal = setting.rule.literal(&value);
        let hidden = setting.is_secret() && !setting.rule.show(&value).is_empty();
        let literal = if hidden { format!("\"{REDACTED}\"") } else { literal };
        match origin {
            Origin::Default => line(&mut out, format_args!("{} = {literal}", setting.key)),
            _ => line(&mut out, format_args!("{} = {literal}  # {origin}", setting.key)),
        }
    }
    out
}

fn names(setting: &super::Setting) -> String {
    let flag = setting.flag.map(|flag| format!("; flag: --{flag}")).unwrap_or_default();
    format!("Variable: {}{flag}.", setting.variables().join(", "))
}

/// Writes words as comment lines of limited width.
fn wrap<'a>(out: &mut String, lines: impl Iterator<Item = &'a str>) {
    let mut width = 0;
    for word in lines.flat_map(str::split_whitespace) {
        if width == 0 || width + 1 + word.len() > WIDTH {
            if width != 0 {
                out.push('\n');
            }
            out.push('#');
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.len();
    }
    if width != 0 {
        out.push('\n');
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes whatever is written to it; there is no error to hand on.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FlagValue, Inputs, load};

    /// Opens every line that holds a setting.
    fn opened(template: &str) -> String {
        let open = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
            _ => line.to_owned(),
        };
        template.lines().map(open).collect::<Vec<_>>().join("\n")
    }

    fn load_text(text: &str) -> Loaded {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let inputs = Inputs { config_file: Some(file.path().to_owned()), ..Inputs::default() };
        load(&inputs).unwrap()
    }

    #[test]
    fn the_template_means_the_defaults() {
        assert_eq!(load_text(&template()).settings, Settings::default());
    }

    #[test]
    fn the_template_with_every_line_opened_gives_every_setting_its_default() {
        let loaded = load_text(&opened(&template()));
        assert_eq!(loaded.settings, Settings::default());
        for entry in loaded.entries() {
            assert!(matches!(entry.origin, Origin::File { .. }), "{}", entry.setting.path);
        }
    }

    #[test]
    fn no_line_of_the_template_is_wider_than_a_page() {
        for line in template().lines() {
            assert!(line.len() <= WIDTH + 1, "{line}");
        }
    }

    #[test]
    fn what_show_writes_means_the_same_settings() {
        let flags = vec![
            FlagValue {
                flag: "--set".to_owned(),
                key: "buffer.buffer_ms".to_owned(),
                value: "2s".to_owned(),
            },
            FlagValue {
                flag: "--data-dir".to_owned(),
                key: "server.data_dir".to_owned(),
                value: "a \"b\"".to_owned(),
            },
        ];
        let loaded = load(&Inputs { flags, ..Inputs::default() }).unwrap();
        let shown = show(&loaded);
        assert!(shown.contains("buffer_ms = 2000  # flag --set"), "{shown}");
        assert_eq!(load_text(&shown).settings, loaded.settings);
    }

    #[test]
    fn show_never_writes_a_secret() {
        let flag = FlagValue {
            flag: "--set".to_owned(),
            key: "server.token".to_owned(),
            value: "hunter2".to_owned(),
        };
        let loaded = load(&Inputs { flags: vec![flag], ..Inputs::default() }).unwrap();
        let shown = show(&loaded);
        assert!(shown.contains("token = \"<redacted>\"") && !shown.contains("hunter2"), "{shown}");
    }
}
