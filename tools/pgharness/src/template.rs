//! The empty cluster that all others are copies of: `initdb` takes seconds, a copy does not.
//!
//! One per release and owner, kept beside what cargo builds; made under another name and renamed, so
//! that test processes that start together never see half of one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FlockOperation;

use crate::HarnessError;
use crate::install::{Installation, target};
use crate::owner::Owner;

/// Copies the template of a release to `to`, which must not exist, making the template first where
/// there is none.
pub(crate) fn copy(server: &Installation, owner: Owner, to: &Path) -> Result<(), HarnessError> {
    let template = make(server, owner)?;
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"]).arg(&template).arg(to);
    // As ourselves: owners go along.
    run(copy, "cp")
}

fn make(server: &Installation, owner: Owner) -> Result<PathBuf, HarnessError> {
    let folder = target().join("pg/templates");
    std::fs::create_dir_all(&folder).map_err(HarnessError::io("making", &folder))?;
    let name = format!("{}-{}", server.version(), owner.tag());
    let made = folder.join(&name);
    let lock_path = folder.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).map_err(HarnessError::io("making", &lock_path))?;
    let locked = rustix::fs::flock(&lock, FlockOperation::LockExclusive);
    locked.map_err(|error| HarnessError::io("locking", &lock_path)(error.into()))?;
    if made.exists() {
        return Ok(made);
    }
    // In a place that its owner may reach, wherever the repository lies.
    let work = tempfile::Builder::new().prefix("onrush-initdb-").tempdir();
    let work = work.map_err(HarnessError::io("making a folder in", std::env::temp_dir()))?;
    owner.give(work.path())?;
    let data = work.path().join("data");
    let mut initdb = owner.run(server.program("initdb"));
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
    initdb.args(["--locale=C", "--no-sync", "--no-instructions"]).current_dir(work.path());
    run(initdb, "initdb")?;
    let unfinished = folder.join(format!("{name}.new"));
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(HarnessError::io("removing", &unfinished))?;
    }
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(&data).arg(&unfinished);
    run(copy, "cp")?;
    std::fs::rename(&unfinished, &made).map_err(HarnessError::io("naming", &made))?;
    Ok(made)
}

/// Runs a program to its end.
pub(crate) fn run(mut command: Command, program: &str) -> Result<(), HarnessError> {
    let output = command.output().map_err(HarnessError::io("running", program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&said).into_owned();
    Err(HarnessError::Program { program: program.to_owned(), output })
}
