//! Chromium without a window, spoken to by the DevTools protocol over two pipes.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Host, PATIENCE, Tool, require};

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    calls: u64,
    session: Option<String>,
    /// What the page complained of: exceptions, refusals of the policy, dialogs.
    pub(crate) complaints: Vec<String>,
    _home: TempDir,
}

impl Browser {
    /// One that has opened `url`, on `host` where that is said. `None`, loudly, without Chromium.
    pub(crate) fn open(host: Option<&Host>, url: &str) -> Option<Self> {
        if !require(&["chromium", "mkfifo"]) {
            return None;
        }
        let home = tempfile::tempdir().expect("a folder");
        let (to, from) = (home.path().join("to"), home.path().join("from"));
        Tool::new("mkfifo").arg(&to).arg(&from).ok();
        let child = start(host, home.path());
        // The other side opens them in this order, too.
        let to = OpenOptions::new().write(true).open(&to).expect("a pipe");
        let from = File::open(&from).expect("a pipe");
        let mut browser = Self {
            child,
            to,
            from: messages(from),
            calls: 0,
            session: None,
            complaints: Vec::new(),
            _home: home,
        };
        browser.attach(url);
        Some(browser)
    }

    fn attach(&mut self, url: &str) {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call("Target.attachToTarget", &target);
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Performance"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        self.call("Page.navigate", &json!({ "url": url }));
        self.until("document.readyState === 'complete'");
    }

    /// What a method of the protocol gives.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        let bytes = [call.to_string().as_bytes(), &[0]].concat();
        self.to.write_all(&bytes).expect("the browser listens");
        loop {
            let message = self.from.recv_timeout(2 * PATIENCE).expect("an answer");
            if message["id"] == json!(self.calls) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.notice(&message);
        }
    }

    fn notice(&mut self, message: &Value) {
        let what = message["method"].as_str().unwrap_or_default();
        let is_bad = match what {
            "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" => true,
            "Log.entryAdded" => message["params"]["entry"]["level"] == "error",
            _ => false,
        };
        if is_bad {
            self.complaints.push(message.to_string());
        }
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true,
        });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// The same as a text.
    #[track_caller]
    pub(crate) fn text(&mut self, expression: &str) -> String {
        self.value(expression)
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        self.until_within(PATIENCE, expression);
    }

    /// The same for what takes longer.
    #[track_caller]
    pub(crate) fn until_within(&mut self, patience: Duration, expression: &str) {
        // Within one call of the protocol it is looked often; a call takes no longer than others.
        let end = Instant::now() + patience.saturating_sub(PATIENCE);
        while Instant::now() < end && !self.becomes(expression) {}
        let is = self.becomes(expression);
        let page = self.text("document.body ? document.body.innerText : ''");
        assert!(is, "never true: {expression}\n{page}");
    }

    /// Whether an expression is true, or gets so while anything may.
    #[track_caller]
    fn becomes(&mut self, expression: &str) -> bool {
        let patience = PATIENCE.as_millis();
        let waiting = format!(
            "new Promise((done) => {{ const end = Date.now() + {patience}; const look = () => {{
               let is = false; try {{ is = Boolean({expression}); }} catch {{}}
               if (is || Date.now() > end) done(is); else setTimeout(look, 50); }}; look(); }})"
        );
        self.value(&waiting) == json!(true)
    }

    /// Presses the button that says `text`, among those that a selector finds.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str, text: &str) {
        self.until(&format!(
            "(() => {{ const button = [...document.querySelectorAll({selector:?})]
                .find((button) => button.textContent === {text:?});
                button.click(); return true; }})()"
        ));
    }

    /// Presses a key, as somebody does who has no mouse.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            other => panic!("{other} is not known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let parameters = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" },
            });
            self.call("Input.dispatchKeyEvent", &parameters);
        }
    }

    /// A picture of the page, as PNG.
    pub(crate) fn screenshot(&mut self, path: &Path, (width, height): (u32, u32), dark: bool) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({ "features": features }),
        );
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let data = picture["data"].as_str().expect("a picture");
        let file = path.with_extension("base64");
        std::fs::write(&file, data).expect("room for a picture");
        let decode = Tool::new("sh").args(["-c", "base64 -d \"$1\" >\"$2\" && rm \"$1\"", "-"]);
        decode.arg(&file).arg(path).ok();
    }

    /// Seconds of processor time that all its processes have taken.
    pub(crate) fn seconds(&self) -> f64 {
        descendants(self.child.id())
            .iter()
            .map(|pid| seconds_of(*pid))
            .sum()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its processes end with the first of them.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The row of a machine, as an expression.
pub(crate) fn row(who: &str) -> String {
    format!(
        "[...document.querySelectorAll('#rows tr')]
            .find((row) => row.querySelector('th').textContent === '{who}')"
    )
}

/// Where a picture of the page is left, for whoever wants to look.
pub(crate) fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"))
}

fn start(host: Option<&Host>, home: &Path) -> Child {
    let mut words: Vec<String> = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).into();
    words.extend(host.map(Host::runner).unwrap_or_default());
    let script = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run \
                  --disable-dev-shm-usage --disable-background-networking \
                  --user-data-dir=\"$1/profile\" --remote-debugging-pipe --window-size=1280,900 \
                  about:blank 3<\"$1/to\" 4>\"$1/from\"";
    words.extend(["sh", "-c", script, "-"].map(str::to_owned));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(home);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().expect("a browser")
}

/// The messages of the browser, each of which ends with a zero.
fn messages(from: File) -> Receiver<Value> {
    let (sender, messages) = channel();
    thread::spawn(move || {
        for message in BufReader::new(from).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).expect("JSON");
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    messages
}

/// A process and all that it has started.
fn descendants(of: u32) -> HashSet<u32> {
    let mut all = HashSet::from([of]);
    let mut known = 0;
    while known != all.len() {
        known = all.len();
        let processes = std::fs::read_dir("/proc").expect("/proc");
        for process in processes.filter_map(Result::ok) {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if stat(pid).is_some_and(|stat| all.contains(&stat.0)) {
                all.insert(pid);
            }
        }
    }
    all
}

/// Seconds of processor time of one process.
pub(crate) fn seconds_of(pid: u32) -> f64 {
    // proc(5): in ticks, of which Linux tells a hundred a second.
    stat(pid).map_or(0.0, |(_, ticks)| f64::from(ticks) / 100.0)
}

/// Parent and ticks of a process; proc(5): "pid (comm) state ppid ... utime stime".
fn stat(pid: u32) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some((number(1)?, number(11)? + number(12)?))
}
