//! A real browser without a screen, steered over its debugging pipe: JSON messages that end with a zero octet, on two named pipes
//! which the shell makes its descriptors 3 and 4.

use crate::proxy::PATIENCE;
use base64::Engine as _;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub struct Browser {
    child: Child,
    tell: File,
    told: mpsc::Receiver<Value>,
    session: String,
    asked: u64,
    _folder: tempfile::TempDir,
}

/// Where Debian's package puts it.
const PROGRAM: &str = "/usr/bin/chromium";
/// A browser starts slowly where all tests run at once.
const START: Duration = Duration::from_secs(3 * PATIENCE.as_secs());

impl Browser {
    /// Opens a page. None, and a line about it: there is no browser here.
    pub fn open(url: &str, width: u32, height: u32) -> Option<Browser> {
        if !Path::new(PROGRAM).exists() {
            println!("skipped: {PROGRAM} (package chromium) is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().expect("mkfifo is there").success());
        let script = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync --disable-default-apps --disable-extensions \
             --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' --user-data-dir=\"$1/profile\" --hide-scrollbars \
             --remote-debugging-pipe about:blank 3<\"$1/to\" 4>\"$1/from\"";
        let child = Command::new("sh")
            .args(["-c", script, PROGRAM])
            .arg(folder.path())
            .env("HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell is there");
        // Opened in the order in which the shell opens them: each waits for its other end.
        let tell = OpenOptions::new().write(true).open(&to).expect("the pipe was just made");
        let mut heard = BufReader::new(File::open(&from).expect("the pipe was just made"));
        let (hear, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while heard.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                if serde_json::from_slice(&message).map(|value| hear.send(value)).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser { child, tell, told, session: String::new(), asked: 0, _folder: folder };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap_or("").to_owned();
        browser.resize(width, height);
        browser.ask("Page.navigate", json!({ "url": url }));
        Some(browser)
    }

    /// Asks the browser; its answer.
    #[track_caller]
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": parameters });
        if !self.session.is_empty() {
            question["sessionId"] = json!(self.session);
        }
        write!(self.tell, "{question}\0").and_then(|()| self.tell.flush()).expect("the browser reads");
        let until = Instant::now() + START;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.told.recv_timeout(left).unwrap_or_else(|_| panic!("the browser does not answer {method}"));
            if message["id"] == json!(self.asked) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
    }

    /// The value of an expression on the page; null where it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let answer =
            self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }));
        answer["result"]["value"].clone()
    }

    /// Looks again and again until the expression is true.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let until = Instant::now() + START;
        while self.value(expression) != json!(true) {
            assert!(
                Instant::now() < until,
                "the page never shows {expression}; it says\n{}",
                self.value("document.body.innerText").as_str().unwrap_or("nothing")
            );
            std::thread::yield_now();
        }
    }

    /// The whole page as a PNG file.
    pub fn picture(&mut self, file: &Path) {
        let answer = self.ask("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let data = answer["data"].as_str().unwrap_or("");
        let octets = base64::engine::general_purpose::STANDARD.decode(data).expect("a picture is base64");
        assert!(octets.starts_with(b"\x89PNG"));
        std::fs::write(file, octets).expect("the folder can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = write!(self.tell, "{}\0", json!({ "id": 0, "method": "Browser.close" }));
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
