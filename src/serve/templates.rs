//! The templates that a config names: read and tried when it is, and not when a machine asks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;

use super::grub::Herd;
use super::options::Failure;
use crate::boot::menu::Format;
use crate::boot::template::{Template, TemplateError};
use crate::config::{Config, MenuConfig};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_STACK};

/// The templates of a config, by the paths of their files.
#[derive(Debug, Default)]
pub(super) struct Templates(HashMap<PathBuf, Template>);

impl Templates {
    /// Those of `config`, each tried with every menu that it is for.
    pub(super) fn read(config: &Config) -> Result<Self, Failure> {
        let mut all = HashMap::new();
        for path in files(config) {
            if !all.contains_key(path) {
                all.insert(path.to_owned(), read(path)?);
            }
        }
        let templates = Self(all);
        if !templates.0.is_empty() {
            templates.try_all(config)?;
        }
        Ok(templates)
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Template> {
        self.0.get(path)
    }

    fn try_all(&self, config: &Config) -> Result<(), Failure> {
        // Which of our addresses a machine will ask is not known yet, and does not matter.
        let herd = Herd::new(config.clone(), Some(Ipv4Addr::LOCALHOST))?;
        let clients = herd.clients.iter().map(|client| herd.client(&client.name));
        for guest in clients.chain([herd.nobody(None)]) {
            let made = herd.menu(&guest);
            for format in Format::ALL {
                if let Some(filled) = made.by_template(format, self) {
                    filled.map_err(|wrong| Failure::usage(wrong.to_string()))?;
                }
            }
        }
        Ok(())
    }
}

/// The files of all templates.
fn files(config: &Config) -> Vec<&Path> {
    let images = config.images.iter().filter_map(|image| image.boot.as_ref());
    let clients = config.herd.clients.iter().map(|client| &client.menu);
    let menus = images.map(|boot| &boot.menu).chain(clients);
    let menus = menus.chain([&config.herd.default_menu]);
    let of = |menu| Format::ALL.map(|format| MenuConfig::template(menu, format));
    menus.flat_map(of).flatten().collect()
}

fn read(path: &Path) -> Result<Template, Failure> {
    let shown = path.display();
    let failed = |why: &dyn std::fmt::Display| {
        Failure::usage(format!(
            "template {shown}: {why}; check its path in the config"
        ))
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut text = String::new();
    let mut start = file.take(TEMPLATE_BYTES_MAX + 1);
    let read = start.read_to_string(&mut text);
    if start.limit() == 0 {
        return Err(failed(&format!(
            "it is larger than {TEMPLATE_BYTES_MAX} bytes"
        )));
    }
    read.map_err(|error| failed(&error))?;
    let template = parse(shown.to_string(), text).map_err(|error| failed(&error))?;
    template.map_err(|wrong| Failure::usage(wrong.to_string()))
}

/// The library takes a text apart by calling itself, once more for every `[` or `+`: this has a
/// stack for as many as a template has bytes.
fn parse(name: String, text: String) -> io::Result<Result<Template, TemplateError>> {
    let parse = move || Template::new(&name, text);
    let parsing = thread::Builder::new().stack_size(TEMPLATE_STACK);
    let parsed = parsing.name("template".to_owned()).spawn(parse)?.join();
    parsed.map_err(|_| io::Error::other("the library can't read it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_template_of_any_depth_takes_the_stack() {
        let most = usize::try_from(TEMPLATE_BYTES_MAX).unwrap() - 10;
        for piece in [
            "[",
            "+1",
            ".a",
            "|trim",
            "-",
            "not ",
            "{% if 1 %}",
            "(",
            "{",
        ] {
            let deep = piece.repeat(most / piece.len());
            let _ = parse("deep".to_owned(), format!("{{{{ 1{deep} }}}}")).unwrap();
            let _ = parse("deep".to_owned(), format!("{{{{ {deep}")).unwrap();
            let _ = parse("deep".to_owned(), deep).unwrap();
        }
    }
}
