//! Completions and manual pages.

use crate::world::{bare, run};

#[test]
fn completions_are_made_for_every_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = bare(folder.path());
        command.args(["completions", shell]);
        let script = run(command, "").done();
        assert!(
            script.contains("onrushctl") && script.contains("maintenance"),
            "{shell}: {script}"
        );
    }
    // The shell that is there everywhere takes it.
    let mut command = bare(folder.path());
    command.args(["completions", "bash"]);
    let script = run(command, "").done();
    let mut bash = std::process::Command::new("bash");
    let file = folder.path().join("completions.bash");
    std::fs::write(&file, format!("{script}\ncomplete -p onrushctl\n")).unwrap();
    bash.arg("--norc").arg(file);
    assert!(run(bash, "").done().contains("onrushctl"));
}

#[test]
fn manual_pages_are_printed_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bare(folder.path());
    command.arg("man");
    let page = run(command, "").done();
    assert!(page.contains(".TH onrushctl 1") && page.contains("Exit codes"), "{page}");
    let pages = folder.path().join("man1");
    let mut command = bare(folder.path());
    command.arg("man").arg(&pages);
    run(command, "").done();
    for name in [
        "onrushctl.1",
        "onrushctl-queues.1",
        "onrushctl-queues-create.1",
        "onrushctl-dlq-jobs-wait.1",
    ] {
        assert!(pages.join(name).is_file(), "{name}");
    }
    let page = std::fs::read_to_string(pages.join("onrushctl-queues-create.1")).unwrap();
    assert!(page.contains("retry\\-limit"), "{page}");
    let mut command = bare(folder.path());
    command.arg("man").arg(pages.join("onrushctl.1"));
    run(command, "").refused(2, &["onrushctl.1"]);
}
