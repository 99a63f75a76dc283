//! sd_notify(3), as a service manager hears it, and what `check` and `tune` say of the machine.

use crate::proxy::{PATIENCE, config};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

/// The service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    /// Reads what is told until a message has this line; whether another line came on the way.
    #[track_caller]
    fn until(&self, line: &str, meanwhile: &str) -> bool {
        let mut seen = false;
        let mut buffer = [0; 4096];
        loop {
            let read = crate::reading::undisturbed(|| self.0.recv(&mut buffer))
                .unwrap_or_else(|error| panic!("{line} is not told: {error}"));
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            seen |= text.lines().any(|told| told == meanwhile);
            if text.lines().any(|told| told == line) {
                return seen;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_start_life_reload_and_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cpm-pf.toml"), config("")).expect("the folder can be written");
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).expect("a socket in a folder"));
    manager.0.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let mut program = Command::new("sh")
        .args(["-c", "WATCHDOG_PID=$$ exec \"$0\" run --config cpm-pf.toml", env!("CARGO_BIN_EXE_cpm-pf")])
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let signal = |name: &str| {
        assert!(Command::new("kill").args([&format!("-{name}"), &program.id().to_string()]).status().expect("kill").success());
    };
    manager.until("READY=1", "");
    manager.until("WATCHDOG=1", "");
    signal("HUP");
    manager.until("RELOADING=1", "");
    manager.until("READY=1", "");
    manager.until("WATCHDOG=1", "");
    signal("TERM");
    manager.until("STOPPING=1", "");
    assert!(program.wait().expect("it is our child").success());
}

#[test]
fn check_warns_of_the_machine_on_standard_error_and_tune_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cpm-pf.toml");
    std::fs::write(&file, config("[cores]\nmedia = [1000]\n")).expect("the folder can be written");
    let run = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_cpm-pf")).args([command, "--config"]).arg(&file).output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, shown, warned) = run("check");
    assert_eq!(code, Some(0), "the file is right, whatever the machine");
    assert!(shown.contains("media = [1000]") && !shown.contains("warning"));
    assert!(warned.contains("warning: cores.media: CPU 1000 is not online"), "{warned}");
    let (code, page, _) = run("tune");
    assert_eq!(code, Some(0));
    assert!(
        page.starts_with("this machine: Linux ") && page.contains("\nmust: cores.media: CPU 1000 is not online\n  why: "),
        "{page}"
    );
}
