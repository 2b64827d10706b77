//! The page: files that are a part of the program, and need nothing from elsewhere.

use hyper::Response;

use super::reply::{Content, text};

/// The form of the API's answers, by JSON Schema.
pub(super) const SCHEMA: &str = include_str!("page/schema.json");

/// Name, type, content.
const FILES: [(&str, &str, &str); 4] = [
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("page/app.js"),
    ),
    (
        "/app.css",
        "text/css; charset=utf-8",
        include_str!("page/app.css"),
    ),
];

/// The file at `path`, for everybody: nothing is known in it.
pub(super) fn file(path: &str) -> Option<Response<Content>> {
    let (_, kind, content) = FILES.iter().find(|(name, ..)| *name == path)?;
    Some(text(kind, *content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_nothing_outside_and_makes_no_markup_of_texts() {
        for (name, _, content) in FILES {
            let without_svg = content.replace("http://www.w3.org/2000/svg", "");
            for word in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
            ] {
                assert!(!without_svg.contains(word), "{name}: {word}");
            }
            for word in [
                "document.write",
                "eval(",
                "style=",
                "onclick=",
                "javascript:",
            ] {
                assert!(!content.contains(word), "{name}: {word}");
            }
        }
    }
}
