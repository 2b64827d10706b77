//! `cowherd status --watch` on a terminal: what stands on the screen while a machine boots, and
//! that the terminal is as it was before, whatever ends it.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, unused_imports, reason = "every test uses its part of it")]
mod support;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use support::{Room, Tool, eventually, require};

const ROWS: usize = 30;
const COLUMNS: usize = 140;

/// What a terminal shows: as much of one as ratatui uses, by ECMA-48 and what xterm adds to it.
struct Screen {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    /// The other screen is shown, on which programs draw.
    is_other: bool,
    is_cursor_hidden: bool,
    /// All that came, for who wonders.
    raw: String,
    /// What has come of a sequence that is not at its end.
    begun: Option<String>,
}

impl Screen {
    fn new() -> Self {
        Self {
            cells: vec![vec![' '; COLUMNS]; ROWS],
            at: (0, 0),
            is_other: false,
            is_cursor_hidden: false,
            raw: String::new(),
            begun: None,
        }
    }

    fn take(&mut self, text: &str) {
        self.raw.push_str(text);
        text.chars().for_each(|c| self.take_one(c));
    }

    fn take_one(&mut self, c: char) {
        if let Some(mut begun) = self.begun.take() {
            begun.push(c);
            // "The final byte of a control sequence is one of 04/00 to 07/14", behind `[`.
            match begun.len() > 1 && ('@'..='~').contains(&c) {
                true => self.obey(&begun),
                false => self.begun = Some(begun),
            }
            return;
        }
        match c {
            '\u{1b}' => self.begun = Some(String::new()),
            '\r' => self.at.1 = 0,
            '\n' => self.at.0 = (self.at.0 + 1).min(ROWS - 1),
            c => {
                let (row, column) = self.at;
                self.cells[row][column.min(COLUMNS - 1)] = c;
                self.at.1 += 1;
            }
        }
    }

    fn obey(&mut self, sequence: &str) {
        let (parameters, last) = sequence[1..].split_at(sequence.len() - 2);
        match (parameters, last) {
            ("?1049", "h") => (self.is_other, self.cells) = (true, Self::new().cells),
            ("?1049", "l") => (self.is_other, self.cells) = (false, Self::new().cells),
            ("?25", "h" | "l") => self.is_cursor_hidden = last == "l",
            (_, "H") => {
                let mut numbers = parameters.split(';').map(|text| text.parse().unwrap_or(1));
                let mut next = || numbers.next().unwrap_or(1_usize).saturating_sub(1);
                self.at = (next().min(ROWS - 1), next());
            }
            ("2", "J") => self.cells = Self::new().cells,
            _ => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        let line = |row: &Vec<char>| row.iter().collect::<String>().trim_end().to_owned();
        self.cells.iter().map(line).collect()
    }
}

/// A terminal in which a shell runs the command, and says afterwards what became of it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Screen>>,
    /// A file with the process that draws.
    pid: PathBuf,
}

impl Terminal {
    fn new(room: &Room, words: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_cowherd");
        let state = room.setup.state().display();
        let pid = room.setup.file("watcher");
        let shell = format!(
            "stty rows {ROWS} cols {COLUMNS}; before=$(stty -g); \
             sh -c 'echo $$ >{pid}; exec {program} status {words} --state {state}'; code=$?; \
             test \"$before\" = \"$(stty -g)\" && echo \"as before, code $code\"",
            pid = pid.display()
        );
        let mut child = Command::new("script")
            .args([
                "--quiet",
                "--echo",
                "never",
                "--command",
                &shell,
                "/dev/null",
            ])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a terminal");
        let keys = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let screen = Arc::new(Mutex::new(Screen::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let (mut rest, mut bytes) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                rest.extend_from_slice(&bytes[..length]);
                // A character may come in two parts.
                let whole = match std::str::from_utf8(&rest) {
                    Ok(_) => rest.len(),
                    Err(error) => error.valid_up_to(),
                };
                let text: Vec<u8> = rest.drain(..whole).collect();
                shown
                    .lock()
                    .unwrap()
                    .take(std::str::from_utf8(&text).unwrap());
            }
        });
        Self {
            child,
            keys,
            screen,
            pid,
        }
    }

    /// Waits until the screen is so.
    #[track_caller]
    fn until(&self, is_so: impl Fn(&Screen) -> bool) {
        eventually(|| {
            let screen = self.screen.lock().unwrap();
            if is_so(&screen) {
                return Ok(());
            }
            Err(format!("{}\n{:?}", screen.lines().join("\n"), screen.raw))
        });
    }

    /// Waits for a line with all these words in it.
    #[track_caller]
    fn until_line(&self, words: &[&str]) {
        let has = |line: &String| words.iter().all(|word| line.contains(word));
        self.until(|screen| screen.is_other && screen.lines().iter().any(has));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it has ended well, and the terminal is as it was.
    #[track_caller]
    fn ends_cleanly(mut self) {
        self.until(|screen| {
            let is_clean = !screen.is_other && !screen.is_cursor_hidden;
            is_clean && screen.raw.contains("as before, code 0")
        });
        drop(self.keys);
        self.child.wait().unwrap();
    }
}

fn started() -> Option<Room> {
    if !require(&["script", "stty", "curl"]) {
        return None;
    }
    let mut room = Room::new("")?;
    room.start();
    Some(room)
}

#[test]
fn a_boot_is_seen_as_it_goes_on_until_somebody_presses_q() {
    let Some(room) = started() else { return };
    let mut terminal = Terminal::new(&room, "--watch");
    terminal.until_line(&["no machine was seen yet"]);
    terminal.until_line(&["q ends"]);
    room.has_address();
    terminal.until_line(&["pc-1", "booting", "DHCP ACK"]);
    room.loads(&["core.0", "grub.cfg", "vmlinuz", "initrd.img"]);
    terminal.until_line(&["pc-1", "booting", "initramfs"]);
    let mut client = room.opens();
    client.read(0, 4096).unwrap();
    client.write(0, &[1; 4096]).unwrap();
    terminal.until_line(&["pc-1", "up", "root mounted", "disk+1@pc-1"]);
    terminal.until_line(&["1 machine: 1 up"]);
    drop(client);
    terminal.until_line(&["pc-1", "down"]);
    terminal.press("q");
    terminal.ends_cleanly();
}

#[test]
fn what_is_wrong_stands_below_and_control_c_ends_it() {
    let Some(room) = started() else { return };
    room.has_address();
    room.fetches("vmlinuz-6.1");
    let mut terminal = Terminal::new(&room, "--watch");
    terminal.until_line(&["pc-1: kernel, vmlinuz-6.1: there is no such file"]);
    terminal.press("\u{3}");
    terminal.ends_cleanly();
}

#[test]
fn one_machine_is_watched_stage_by_stage_until_a_signal_ends_it() {
    let Some(room) = started() else { return };
    room.has_address();
    let terminal = Terminal::new(&room, "pc-1 --watch");
    terminal.until_line(&["DHCP ACK"]);
    room.loads(&["core.0"]);
    terminal.until_line(&["boot loader", "core.0"]);
    let pid = std::fs::read_to_string(&terminal.pid).unwrap();
    Tool::new("kill").arg(pid.trim()).ok();
    terminal.ends_cleanly();
}

#[test]
fn a_server_that_ends_is_told_on_the_screen() {
    let Some(mut room) = started() else { return };
    room.has_address();
    let mut terminal = Terminal::new(&room, "--watch");
    terminal.until_line(&["1 machine: 1 "]);
    room.stop();
    terminal.until_line(&["no server runs", "1 machine "]);
    room.start();
    terminal.until_line(&["1 machine: 1 "]);
    terminal.press("q");
    terminal.ends_cleanly();
}
