//! One Rust file as `tidy` sees it: its text, and what its tokens say about names and functions.
//!
//! Tokens rather than a syntax tree: they see into macros, and a path is a path wherever it stands.
//! Strings and comments are no tokens of code, so that nothing in them counts as a name.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// A file of Rust, given by its path from the root of the repository and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// What product code (everything outside `#[cfg(test)]`) holds.
    pub(crate) code: Facts,
    /// Lines outside an inline `#[cfg(test)] mod`.
    pub(crate) code_lines: usize,
    /// The files that hold the modules of `#[cfg(test)] mod name;`, as paths without `.rs`.
    pub(crate) test_modules: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Facts {
    /// Every word and path, from its root: `crate::nbd::wire`, `std::fs`, `unsafe`.
    pub(crate) names: Vec<Name>,
    pub(crate) functions: Vec<Function>,
}

pub(crate) struct Name {
    pub(crate) path: String,
    pub(crate) line: usize,
}

pub(crate) struct Function {
    pub(crate) name: String,
    /// From the line of `fn` to that of the closing brace, both counted.
    pub(crate) lines: usize,
}

impl Source {
    /// Reads `text` as the file at `path`.
    ///
    /// # Panics
    /// Where the text is no sequence of Rust tokens.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut reader = Reader {
            module: module_of(path),
            facts: Facts::default(),
            test_lines: 0,
            test_modules: Vec::new(),
        };
        reader.read(tokens);
        let folder = folder_of(path);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code_lines: text.lines().count() - reader.test_lines,
            code: reader.facts,
            test_modules: reader
                .test_modules
                .iter()
                .map(|m| format!("{folder}/{m}"))
                .collect(),
        }
    }

    /// Whether the file is, or lies in, one of `modules` (`*` stands for any one segment).
    pub(crate) fn is_in(&self, modules: &[&str]) -> bool {
        let own = module_of(&self.path);
        modules.iter().any(|module| {
            let wanted: Vec<_> = module.split('/').collect();
            let fits = |(own, wanted): (&String, &&str)| *wanted == "*" || own == wanted;
            own.len() > wanted.len() && own[1..].iter().zip(&wanted).all(fits)
        })
    }
}

/// The module path of a file, from `crate` on.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let stem = inside.strip_suffix(".rs").unwrap_or(inside);
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    let segments = stem
        .split('/')
        .filter(|segment| !["lib", "main"].contains(segment));
    std::iter::once("crate")
        .chain(segments)
        .map(str::to_owned)
        .collect()
}

/// Where the modules of a file lie: `src/nbd` for both `src/nbd/mod.rs` and `src/nbd.rs`.
fn folder_of(path: &str) -> String {
    let module = module_of(path);
    format!("src/{}", module[1..].join("/"))
        .trim_end_matches('/')
        .to_owned()
}

struct Reader {
    /// The module of what is being read, from `crate` on.
    module: Vec<String>,
    facts: Facts,
    test_lines: usize,
    test_modules: Vec<String>,
}

impl Reader {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at += self.read_one(&tokens[at..]);
        }
    }

    /// Reads what stands first in `tokens` and tells how many of them it took.
    fn read_one(&mut self, tokens: &[TokenTree]) -> usize {
        if is_cfg_test(tokens) {
            return self.skip_test_item(tokens);
        }
        match &tokens[0] {
            TokenTree::Group(group) => self.read(group.stream()),
            TokenTree::Ident(word) if word == "mod" => return self.read_module(tokens),
            TokenTree::Ident(word) if word == "fn" => self.note_function(tokens),
            TokenTree::Ident(_) => return self.read_path(tokens, &[]),
            _ => {}
        }
        1
    }

    /// An item that is there for tests only: its lines count apart, its names not at all.
    fn skip_test_item(&mut self, tokens: &[TokenTree]) -> usize {
        let item = &tokens[2..];
        let end = item
            .iter()
            .position(|t| is_brace(t) || is_punct(t, ';'))
            .unwrap_or(item.len() - 1);
        let module = item
            .iter()
            .take(end)
            .position(|token| is_word(token, "mod"));
        if let (Some(at), true) = (module, is_punct(&item[end], ';')) {
            self.test_modules.push(item[at + 1].to_string());
        }
        if module.is_some() {
            let first = tokens[0].span().start().line;
            self.test_lines += item[end].span().end().line - first + 1;
        }
        end + 3
    }

    fn read_module(&mut self, tokens: &[TokenTree]) -> usize {
        let [_, TokenTree::Ident(name), TokenTree::Group(body), ..] = tokens else {
            return 1;
        };
        self.module.push(name.to_string());
        self.read(body.stream());
        self.module.pop();
        3
    }

    fn note_function(&mut self, tokens: &[TokenTree]) {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else {
            return; // The type of a function pointer has no name.
        };
        let end = tokens
            .iter()
            .position(|token| is_brace(token) || is_punct(token, ';'));
        if let Some(TokenTree::Group(body)) = end.map(|end| &tokens[end]) {
            let first = tokens[0].span().start().line;
            let lines = body.span_close().end().line - first + 1;
            let name = name.to_string();
            self.facts.functions.push(Function { name, lines });
        }
    }

    /// Reads a path, with all branches of a `use` tree, that goes on from `prefix`.
    fn read_path(&mut self, tokens: &[TokenTree], prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        let mut at = 0;
        while let Some(TokenTree::Ident(segment)) = tokens.get(at) {
            path.push(segment.to_string());
            at += 1;
            if !starts_with_colons(&tokens[at..]) || may_precede_a_path(segment) {
                break;
            }
            at += 2;
            match tokens.get(at) {
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.read_branches(group, &path);
                    return at + 1;
                }
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                    path.push("*".to_owned());
                    at += 1;
                    break;
                }
                _ => {}
            }
        }
        let line = tokens[0].span().start().line;
        self.note_name(&path, line);
        at
    }

    fn read_branches(&mut self, tree: &Group, prefix: &[String]) {
        let tokens: Vec<_> = tree.stream().into_iter().collect();
        for branch in tokens.split(|token| is_punct(token, ',')) {
            match branch.first() {
                Some(TokenTree::Ident(_)) => _ = self.read_path(branch, prefix),
                Some(star) => {
                    let all = [prefix, &["*".to_owned()]].concat();
                    self.note_name(&all, star.span().start().line);
                }
                None => {}
            }
        }
    }

    /// Notes a path under its full name: `self`, `super` and `cowherd` are resolved.
    fn note_name(&mut self, path: &[String], line: usize) {
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let first = path.first().map_or("", String::as_str);
        let mut full = match first {
            "super" => self.module[..self.module.len().saturating_sub(supers).max(1)].to_vec(),
            "self" if path.len() > 1 => self.module.clone(),
            "cowherd" => vec!["crate".to_owned()],
            _ => Vec::new(),
        };
        let rest = match first {
            "super" => supers,
            "self" | "cowherd" => full.len().min(1),
            _ => 0,
        };
        full.extend(
            path[rest..]
                .iter()
                .filter(|segment| *segment != "self")
                .cloned(),
        );
        let path = full.join("::");
        self.facts.names.push(Name { path, line });
    }
}

/// Whether `#[cfg(test)]` or `#[cfg(all(test, ...))]` comes next.
fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    let [hash, TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    let text = attribute.stream().to_string().replace(' ', "");
    is_punct(hash, '#') && (text == "cfg(test)" || text.starts_with("cfg(all(test,"))
}

/// Whether `word ::name` is a keyword and then a path from the outermost root.
fn may_precede_a_path(word: &Ident) -> bool {
    let keywords = [
        "as", "break", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use",
        "while",
    ];
    keywords.iter().any(|keyword| word == keyword)
}

fn starts_with_colons(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [a, b, ..] if is_punct(a, ':') && is_punct(b, ':'))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_word(token: &TokenTree, wanted: &str) -> bool {
    matches!(token, TokenTree::Ident(word) if word == wanted)
}

fn is_brace(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}
