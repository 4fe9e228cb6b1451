//! Sees to it that nothing is left behind: a shell waits for the end of the test process, however it
//! comes, and then ends the cluster and removes its folder.
//!
//! Its only tie to the test process is a pipe that the system closes with it. It signals nothing but
//! processes that work in the cluster's own data folder.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::HarnessError;

/// What the shell does when its input ends; `$1` is the cluster's folder.
const SCRIPT: &str = r#"
cat >/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
    found=""
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/cwd" 2>/dev/null)" = "$1/data" ] || continue
        found=yes
        kill -KILL "${process#/proc/}" 2>/dev/null
    done
    [ -z "$found" ] && break
    sleep 0.2
done
rm -rf "$1"
"#;

/// The shell. Dropping it lets it do its work, and waits for it.
#[derive(Debug)]
pub(crate) struct Watch {
    shell: Child,
}

impl Watch {
    /// Watches over a cluster's folder; it is removed when this process ends or drops the watch.
    pub(crate) fn over(folder: &Path) -> Result<Self, HarnessError> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(folder);
        // A group of its own: what interrupts the test from a terminal must not end the watch.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = command.spawn().map_err(HarnessError::io("running", "sh"))?;
        Ok(Self { shell })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It cannot fail in a way that anybody could mend here.
        let _ = self.shell.wait();
    }
}
