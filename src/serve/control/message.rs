//! What goes over the control socket: one JSON object a line, each with the version of this form.
//!
//! A request is `{"version":1,"command":"show","overlay":"disk@a"}`. Its answer is any number of
//! `{"version":1,"progress":{..}}` and then one `{"version":1,"done":{..}}` or
//! `{"version":1,"failed":{"code":1,"message":".."}}`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use crate::export::name::{ExportName, ExportNameError};
use crate::name::Name;
use crate::serve::Failure;
use crate::serve::takeover::FORMAT;

/// The version of the form; one that is not known is refused.
pub(super) const VERSION: u32 = 1;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Tell of all overlays.
    List,
    /// Tell all of one overlay.
    Show {
        /// Which.
        overlay: OverlayName,
    },
    /// Check one overlay, or all.
    Check {
        /// Which; all without it.
        #[serde(default)]
        overlay: Option<OverlayName>,
    },
    /// Remove an overlay: its client begins with the image again.
    Reset {
        /// Which.
        overlay: OverlayName,
    },
    /// Tell how the machines are doing.
    Status {
        /// The one machine that more is to be told of.
        #[serde(default)]
        client: Option<String>,
    },
    /// Tell of the leases that machines have.
    Leases,
    /// End the leases of a machine before their time.
    ForgetLease {
        /// Its name, MAC address or address.
        who: String,
    },
    /// Write image and overlay to a new image.
    Commit {
        /// Which.
        overlay: OverlayName,
        /// The new file, by its whole path.
        to: PathBuf,
        /// The image below, by its whole path; the one that was served last without it.
        #[serde(default)]
        image: Option<PathBuf>,
    },
}

/// One overlay as people name it: `[image][+generation]@client`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OverlayName {
    /// The image; any that has such an overlay without it.
    pub image: Option<Name>,
    /// The generation; the newest that has such an overlay without it.
    pub generation: Option<u32>,
    /// Whose overlay.
    pub client: Name,
}

/// Why a text names no overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayNameError {
    /// Not the grammar of export names.
    #[error(transparent)]
    Grammar(#[from] ExportNameError),
    /// An image alone.
    #[error("it names no client: write IMAGE@CLIENT")]
    NoClient,
}

impl FromStr for OverlayName {
    type Err = OverlayNameError;

    fn from_str(text: &str) -> Result<Self, OverlayNameError> {
        let ExportName {
            image,
            generation,
            client,
        } = text.parse()?;
        Ok(Self {
            image,
            generation,
            client: client.ok_or(OverlayNameError::NoClient)?,
        })
    }
}

impl TryFrom<String> for OverlayName {
    type Error = OverlayNameError;

    fn try_from(text: String) -> Result<Self, OverlayNameError> {
        text.parse()
    }
}

impl From<OverlayName> for String {
    fn from(name: OverlayName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for OverlayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            image,
            generation,
            client,
        } = self.clone();
        let name = ExportName {
            image,
            generation,
            client: Some(client),
        };
        write!(f, "{name}")
    }
}

/// How far long work has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which overlay is worked on.
    pub overlay: String,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes that there are.
    pub total: u64,
}

/// One line to the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) command: Command,
}

/// One line from the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) event: Event,
}

/// What the server has to say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    Progress(Progress),
    Done(Answer),
    Failed { code: u8, message: String },
}

impl From<Result<Answer, Failure>> for Event {
    fn from(result: Result<Answer, Failure>) -> Self {
        match result {
            Ok(answer) => Self::Done(answer),
            Err(failure) => Self::Failed {
                code: failure.code(),
                message: failure.to_string(),
            },
        }
    }
}

impl Event {
    /// The event as a line.
    pub(super) fn into_line(self) -> Vec<u8> {
        let response = Response {
            version: VERSION,
            event: self,
        };
        // Names, numbers and sentences: nothing in them that JSON has no form for.
        let mut line = serde_json::to_vec(&response).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Work on overlays.
    Work(Command),
    /// All that the server has. What follows on the connection is no line of this form.
    TakeOver,
}

/// The line that asks a server for all that it has, in a format of take-overs.
pub(in crate::serve) fn take_over(format: u32) -> Vec<u8> {
    let asked = serde_json::json!({
        "version": VERSION, "command": "take-over", "format": format,
    });
    format!("{asked}\n").into_bytes()
}

/// Why a server refuses, in a line from it.
pub(in crate::serve) fn refusal_in(line: &[u8]) -> Option<Failure> {
    let response: Response = serde_json::from_slice(line).ok()?;
    match response.event {
        Event::Failed { message, .. } => Some(Failure::failed(message)),
        Event::Progress(_) | Event::Done(_) => None,
    }
}

/// What a line asks for that somebody sent.
pub(super) fn parse(line: &[u8]) -> Result<Asked, Failure> {
    /// Read first: another version may have other commands.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
        command: Option<String>,
        /// Of a take-over.
        format: Option<u32>,
    }
    let unreadable = |error| Failure::usage(format!("not a request: {error}"));
    let asked: Version = serde_json::from_slice(line).map_err(unreadable)?;
    let version = asked.version;
    if version != VERSION {
        return Err(Failure::usage(format!(
            "the request has version {version}, and this server knows version {VERSION}: use the \
             cowherd that is running"
        )));
    }
    if asked.command.as_deref() == Some("take-over") {
        return match asked.format {
            Some(FORMAT) => Ok(Asked::TakeOver),
            other => Err(Failure::failed(format!(
                "the running server hands over in format {FORMAT}, and the new one takes format \
                 {}: stop the running one, then start the new one",
                other.map_or_else(|| "?".to_owned(), |format| format.to_string())
            ))),
        };
    }
    let request: Request = serde_json::from_slice(line).map_err(unreadable)?;
    Ok(Asked::Work(request.command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> OverlayName {
        text.parse().unwrap()
    }

    #[test]
    fn the_form_of_requests_has_not_changed() {
        let lines = [
            (r#"{"version":1,"command":"list"}"#, Command::List),
            (
                r#"{"version":1,"command":"show","overlay":"disk@a"}"#,
                Command::Show {
                    overlay: name("disk@a"),
                },
            ),
            (
                r#"{"version":1,"command":"check"}"#,
                Command::Check { overlay: None },
            ),
            (
                r#"{"version":1,"command":"commit","overlay":"disk+1@a","to":"/new.img"}"#,
                Command::Commit {
                    overlay: name("disk+1@a"),
                    to: PathBuf::from("/new.img"),
                    image: None,
                },
            ),
        ];
        for (line, command) in lines {
            assert_eq!(parse(line.as_bytes()), Ok(Asked::Work(command)), "{line}");
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let command = Command::Reset {
            overlay: name("disk+2@a"),
        };
        let request = Request {
            version: VERSION,
            command: command.clone(),
        };
        let line = serde_json::to_vec(&request).unwrap();
        assert_eq!(parse(&line), Ok(Asked::Work(command)));
    }

    #[test]
    fn a_take_over_in_another_format_is_refused_with_both() {
        assert_eq!(parse(&take_over(FORMAT)), Ok(Asked::TakeOver));
        let refused = parse(&take_over(FORMAT + 1)).unwrap_err().to_string();
        for format in [FORMAT, FORMAT + 1] {
            assert!(refused.contains(&format!("format {format}")), "{refused}");
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let refused = parse(br#"{"version":2,"command":"dance"}"#).unwrap_err();
        assert!(refused.to_string().contains("version 2"), "{refused}");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"version":1}"#,
            r#"{"version":1,"command":"x"}"#,
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn the_form_of_events_has_not_changed() {
        let progress = Event::Progress(Progress {
            overlay: "disk+1@a".to_owned(),
            done: 1,
            total: 2,
        });
        assert_eq!(
            String::from_utf8(progress.into_line()).unwrap(),
            "{\"version\":1,\"progress\":{\"overlay\":\"disk+1@a\",\"done\":1,\"total\":2}}\n"
        );
        let failed = Event::from(Err(Failure::failed("a: b")));
        assert_eq!(
            String::from_utf8(failed.into_line()).unwrap(),
            "{\"version\":1,\"failed\":{\"code\":1,\"message\":\"a: b\"}}\n"
        );
    }

    #[test]
    fn an_overlay_has_a_client() {
        assert_eq!(
            "disk".parse::<OverlayName>(),
            Err(OverlayNameError::NoClient)
        );
        assert_eq!(name("@a").to_string(), "@a");
        assert_eq!(name("disk+2@a").to_string(), "disk+2@a");
    }
}
