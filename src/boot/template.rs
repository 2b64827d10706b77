//! Menus that an admin has written: templates in the language of Jinja, and what they are told.
//!
//! Invariants:
//! - What a template names and nobody knows is an error, with its line, and not an empty text.
//! - A template ends in bounded time, with a bounded text, and reads no other file.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, UndefinedBehavior};
use serde::Serialize;
use thiserror::Error as Message;

use super::menu::{Entry, Format, Serial, Unquotable};
use super::{grub, ipxe, pxelinux};
use crate::limits::{MENU_BYTES_MAX, TEMPLATE_FUEL, TEMPLATE_RECURSION_MAX};

/// A template that can be filled in.
#[derive(Debug)]
pub struct Template {
    /// With the one template, under the name of its file.
    all: Environment<'static>,
    name: String,
}

/// What is wrong with a template, in one line with its file and line.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[error("{file}:{line}: {what}")]
pub struct TemplateError {
    file: String,
    line: usize,
    what: String,
}

/// What templates are told. `man/cowherd.toml.5` describes every name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The loader: `grub`, `ipxe` or `pxelinux`.
    pub loader: &'static str,
    /// Our address.
    pub server: String,
    /// The port of NBD there.
    pub port: u16,
    /// The machine.
    pub client: ToldClient,
    /// The serial console.
    pub serial: Option<ToldSerial>,
    /// Seconds that a choice is waited for.
    pub timeout: u64,
    /// Which entry is booted where nobody chooses.
    pub default: usize,
    /// The entries.
    pub entries: Vec<ToldEntry>,
    /// The menu as it is without a template.
    pub menu: String,
}

/// A machine; what is not known of it is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldClient {
    /// The client of the config.
    pub name: Option<String>,
    /// Its network card.
    pub mac: Option<String>,
    /// Its machine-id.
    pub machine_id: Option<String>,
}

/// A serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ToldSerial {
    unit: u8,
    speed: u32,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldEntry {
    /// What people read.
    pub title: String,
    /// The path of the kernel on the server.
    pub kernel: String,
    /// The paths of what is loaded with it.
    pub initrds: Vec<String>,
    /// The words of its command line.
    pub words: Vec<String>,
    /// The same as this loader wants it written.
    pub quoted: ToldQuoted,
}

/// An entry as its loader wants it written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldQuoted {
    /// What people read.
    pub title: String,
    /// The kernel with its server.
    pub kernel: String,
    /// What is loaded with it.
    pub initrds: Vec<String>,
    /// The command line.
    pub words: String,
}

impl ToldEntry {
    /// An entry, as it is and as a loader wants it.
    ///
    /// # Errors
    /// It has no form there.
    pub fn of(entry: &Entry, format: Format) -> Result<Self, Unquotable> {
        let quoted = match format {
            Format::Grub => ToldQuoted {
                title: grub::quoted(&entry.title),
                kernel: grub::place(&entry.kernel),
                initrds: entry.initrds.iter().map(grub::place).collect(),
                words: grub::words(&entry.words),
            },
            Format::Ipxe => ToldQuoted {
                title: ipxe::title(&entry.title)?,
                kernel: ipxe::place(&entry.kernel)?,
                initrds: entry
                    .initrds
                    .iter()
                    .map(ipxe::place)
                    .collect::<Result<_, _>>()?,
                words: ipxe::words(&entry.words)?,
            },
            Format::Pxelinux => ToldQuoted {
                title: pxelinux::title(&entry.title)?,
                kernel: pxelinux::place(&entry.kernel)?,
                initrds: entry
                    .initrds
                    .iter()
                    .map(pxelinux::place)
                    .collect::<Result<_, _>>()?,
                words: pxelinux::words(&entry.words)?,
            },
        };
        Ok(Self {
            title: entry.title.clone(),
            kernel: entry.kernel.path.clone(),
            initrds: entry
                .initrds
                .iter()
                .map(|place| place.path.clone())
                .collect(),
            words: entry.words.clone(),
            quoted,
        })
    }
}

impl From<Serial> for ToldSerial {
    fn from(Serial { unit, speed }: Serial) -> Self {
        Self { unit, speed }
    }
}

impl Template {
    /// Reads a template, of the file `name`.
    ///
    /// # Errors
    /// It is none.
    pub fn new(name: &str, text: String) -> Result<Self, TemplateError> {
        let mut all = Environment::new();
        all.set_undefined_behavior(UndefinedBehavior::Strict);
        all.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        // A line of nothing but `{% ... %}` is no line of the menu.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build();
        all.set_syntax(syntax.map_err(|error| mistake(name, &error))?);
        all.set_fuel(Some(TEMPLATE_FUEL as u64));
        all.set_recursion_limit(TEMPLATE_RECURSION_MAX);
        all.add_filter("grub_quote", |text: String| grub::quoted(&text));
        all.add_template_owned(name.to_owned(), text)
            .map_err(|error| mistake(name, &error))?;
        let name = name.to_owned();
        Ok(Self { all, name })
    }

    /// The file it was read from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The menu for a machine.
    ///
    /// # Errors
    /// The template asks for what is not there, takes too long or says too much.
    pub fn fill(&self, told: &Told) -> Result<String, TemplateError> {
        let wrong = |error: Error| mistake(&self.name, &error);
        let template = self.all.get_template(&self.name).map_err(wrong)?;
        let mut text = Bounded(Vec::new());
        let filled = template.render_captured_to(Value::from(Serde(told)), &mut text);
        let filled = filled.map(drop);
        // Whatever the library says of a writer that takes no more.
        if text.0.len() > MENU_BYTES_MAX {
            return Err(TemplateError {
                file: self.name.clone(),
                line: filled.err().and_then(|error| error.line()).unwrap_or(1),
                what: format!("the menu is longer than {MENU_BYTES_MAX} bytes"),
            });
        }
        filled.map_err(wrong)?;
        Ok(String::from_utf8_lossy(&text.0).into_owned())
    }
}

/// A text that is not longer than a menu may be, but for its last piece.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.0.len() > MENU_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let room = MENU_BYTES_MAX + 1 - self.0.len();
        let taken = piece.len().min(room);
        self.0
            .extend_from_slice(piece.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn mistake(name: &str, error: &Error) -> TemplateError {
    let kind = error.kind().to_string();
    let what = match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    TemplateError {
        file: error.name().unwrap_or(name).to_owned(),
        line: error.line().unwrap_or(1),
        // A message of several lines would be taken for several messages.
        what: what.replace('\n', ", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let entry = ToldEntry {
            title: "it's".to_owned(),
            kernel: "disk/arch+1/kernel".to_owned(),
            initrds: vec!["disk/arch+1/initrd0".to_owned()],
            words: vec!["root=/dev/nbd0".to_owned(), "quiet".to_owned()],
            quoted: ToldQuoted {
                title: "'it'\\''s'".to_owned(),
                kernel: "'(tftp,10.77.0.1)/disk/arch+1/kernel'".to_owned(),
                initrds: vec!["'(tftp,10.77.0.1)/disk/arch+1/initrd0'".to_owned()],
                words: "'root=/dev/nbd0' 'quiet'".to_owned(),
            },
        };
        Told {
            loader: "grub",
            server: "10.77.0.1".to_owned(),
            port: 10809,
            client: ToldClient {
                name: Some("a".to_owned()),
                mac: None,
                machine_id: None,
            },
            serial: None,
            timeout: 5,
            default: 0,
            entries: vec![entry],
            menu: "# built in\n".to_owned(),
        }
    }

    fn filled(text: &str) -> Result<String, String> {
        let template = Template::new("menu.j2", text.to_owned());
        let template = template.map_err(|error| error.to_string())?;
        template.fill(&told()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_is_told_of_the_machine_and_its_entries() {
        let text = "{% for entry in entries %}menuentry {{ entry.quoted.title }} {
 linux {{ entry.quoted.kernel }} {{ entry.quoted.words }}
}
{% endfor %}# {{ client.name }} at {{ server }}:{{ port }}
";
        assert_eq!(
            filled(text).unwrap(),
            "menuentry 'it'\\''s' {
 linux '(tftp,10.77.0.1)/disk/arch+1/kernel' 'root=/dev/nbd0' 'quiet'
}
# a at 10.77.0.1:10809
"
        );
        assert_eq!(filled("x\n{{ menu }}").unwrap(), "x\n# built in\n");
    }

    #[test]
    fn any_text_can_be_quoted_for_grub() {
        assert_eq!(filled("{{ \"a'b\" | grub_quote }}").unwrap(), "'a'\\''b'");
        assert_eq!(
            filled("{{ entries[0].title | grub_quote }}").unwrap(),
            "'it'\\''s'"
        );
    }

    #[test]
    fn what_nobody_knows_is_an_error_with_its_line() {
        for text in [
            "\n\n{{ nothing }}",
            "\n\n{{ client.nothing }}",
            "\n\n{{ 1 | nothing }}",
        ] {
            let error = filled(text).unwrap_err();
            assert!(error.starts_with("menu.j2:3: "), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_machine_can_be_asked_for() {
        assert_eq!(
            filled("{% if client.mac %}x{% else %}y{% endif %}").unwrap(),
            "y"
        );
    }

    #[test]
    fn a_slip_is_told_with_its_line() {
        let error = filled("a\n{% if %}").unwrap_err();
        assert!(error.starts_with("menu.j2:2: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn no_other_file_is_read() {
        for text in [
            "{% include '/etc/passwd' %}",
            "{% import '/etc/passwd' as x %}",
        ] {
            assert!(filled(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_ends() {
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(filled(nested).unwrap_err().contains("fuel"));
        let around = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(filled(around).is_err());
    }

    #[test]
    fn a_menu_has_an_end() {
        let long = "a".repeat(1000);
        let text = format!("{{% for a in range(9999) %}}{long}{{% endfor %}}");
        let error = filled(&text).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }
}
