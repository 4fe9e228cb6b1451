//! One cluster: a server process on a folder, a port and a socket of its own.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::HarnessError;
use crate::install::Installation;
use crate::owner::Owner;
use crate::watch::Watch;
use crate::{processes, template};

/// Longer than any start or stop takes, recovery included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of the log's end that an error shows.
const LOG_SHOWN: usize = 3_000;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Connections are cut, transactions rolled back, and the next start has nothing to recover.
    Fast,
    /// At once and without a checkpoint: the next start recovers from the write-ahead log.
    Immediate,
}

/// A cluster with its server. Dropped, or when the test process ends in whatever way, its processes
/// are killed and its folder is removed.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    owner: Owner,
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
    _watch: Watch,
}

impl Cluster {
    /// Makes a cluster and starts its server. Waits until it takes connections.
    ///
    /// # Errors
    /// [`HarnessError`], in words that say what to do.
    pub fn start(installation: &Installation) -> Result<Self, HarnessError> {
        Self::start_with(installation, &[])
    }

    /// As [`Self::start`], with settings such as `max_connections=20`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        installation: &Installation,
        settings: &[&str],
    ) -> Result<Self, HarnessError> {
        let owner = Owner::choose()?;
        let folder = tempfile::Builder::new().prefix("onrush-pg-").tempdir();
        let folder =
            folder.map_err(HarnessError::io("making a folder in", std::env::temp_dir()))?;
        // The watch removes it from here on, even if this process is killed.
        let folder = folder.keep().canonicalize().map_err(HarnessError::io("finding", "it"))?;
        let watch = Watch::over(&folder)?;
        owner.give(&folder)?;
        template::copy(installation, owner, &folder.join("data"))?;
        let mut cluster = Self {
            installation: installation.clone(),
            owner,
            folder,
            port: free_port()?,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            server: None,
            _watch: watch,
        };
        cluster.start_again()?;
        Ok(cluster)
    }

    /// Which server it runs.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Where its server listens on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of one of its databases over loopback; `postgres` is always there.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The same over its socket.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgresql://postgres@{folder}:{}/{database}", self.port)
    }

    /// Runs SQL in a database and returns the rows as unaligned text.
    ///
    /// # Errors
    /// [`HarnessError::Program`] with what the server said.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, HarnessError> {
        let mut psql = self.installation.program("psql");
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.url(database)]);
        let output = psql.output().map_err(HarnessError::io("running", "psql"))?;
        if !output.status.success() {
            let output = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(HarnessError::Program { program: "psql".into(), output });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Kills the server's main process without a word, as the system does when memory is short. Its
    /// other processes see that and end; returns when the last one has.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let _gone = server.kill();
        let _gone = server.wait();
        let deadline = Instant::now() + PATIENCE;
        while !processes::working_in(&self.data()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        // Whatever is still there after a minute hangs in the kernel's hands.
        processes::signal_all(&self.data(), Signal::KILL);
    }

    /// Kills all of its processes in the middle of what they do; returns when they are gone.
    pub fn kill_all(&mut self) {
        processes::signal_all(&self.data(), Signal::KILL);
        self.kill();
    }

    /// Stops the server; returns when it is gone.
    pub fn stop(&mut self, how: Stop) {
        let Some(mut server) = self.server.take() else { return };
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        if let Some(pid) = Pid::from_raw(i32::try_from(server.id()).unwrap_or_default()) {
            let _gone = kill_process(pid, signal);
        }
        let _gone = server.wait();
    }

    /// Freezes all of its processes: it takes connections no more, answers nothing, and closes
    /// nothing either, as a machine does that hangs or a network that swallows everything.
    pub fn freeze(&self) {
        processes::signal_all(&self.data(), Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        processes::signal_all(&self.data(), Signal::CONT);
    }

    /// Starts the server after [`Self::kill`] or [`Self::stop`], on the same port. Waits until it
    /// takes connections.
    ///
    /// # Errors
    /// [`HarnessError::NotReady`] with the end of the server's log.
    pub fn start_again(&mut self) -> Result<(), HarnessError> {
        if self.server.is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut server = self.spawn()?;
            let reason = loop {
                if self.is_ready(server.id()) {
                    self.server = Some(server);
                    return Ok(());
                }
                match server.try_wait() {
                    Ok(None) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                    Ok(None) => {
                        let _gone = server.kill();
                        let _gone = server.wait();
                        break "a minute has passed".to_owned();
                    }
                    ended => break format!("it ended: {ended:?}"),
                }
            };
            // Processes of a server that was killed may hold its memory for a moment.
            let log = self.log();
            if !log.contains("shared memory block") || Instant::now() >= deadline {
                return Err(HarnessError::NotReady { reason, log });
            }
            std::thread::sleep(PAUSE * 10);
        }
    }

    /// Copies a file into the data folder, for the server alone to read: a key, say.
    ///
    /// # Errors
    /// [`HarnessError::Io`].
    pub fn install(&self, from: &Path, name: &str) -> Result<(), HarnessError> {
        let to = self.data().join(name);
        std::fs::copy(from, &to).map_err(HarnessError::io("copying to", &to))?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&to, private).map_err(HarnessError::io("closing", &to))?;
        self.owner.give(&to)
    }

    /// Adds lines to the server's configuration; they count from its next start on.
    ///
    /// # Errors
    /// [`HarnessError::Io`].
    pub fn configure(&self, lines: &str) -> Result<(), HarnessError> {
        let path = self.data().join("postgresql.conf");
        let file = std::fs::OpenOptions::new().append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
        written.map_err(HarnessError::io("adding to", path))
    }

    /// The end of what the server wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let shown = log.len().saturating_sub(LOG_SHOWN);
        String::from_utf8_lossy(log.get(shown..).unwrap_or_default()).into_owned()
    }

    fn spawn(&self) -> Result<Child, HarnessError> {
        let path = self.log_path();
        // Anew for each start, so that an error shows this start's words.
        let log = File::create(&path).map_err(HarnessError::io("making", &path))?;
        let mut command = self.owner.run(self.installation.program("postgres"));
        command.arg("-D").arg(self.data());
        let port = self.port.to_string();
        let folder = self.folder.display().to_string();
        let own = [
            ("fsync", "on"),
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", &folder),
            ("shared_buffers", "64MB"),
        ];
        for (name, value) in own {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        let other = log.try_clone().map_err(HarnessError::io("opening", &path))?;
        command.current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log).stderr(other);
        // What interrupts the test from a terminal is not meant for the server.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(HarnessError::io("running", "postgres"))
    }

    /// Whether the server itself says so: it does in the last line of its pid file.
    fn is_ready(&self, pid: u32) -> bool {
        let told = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = told.lines();
        lines.next() == Some(&pid.to_string())
            && lines.nth(6).is_some_and(|it| it.trim() == "ready")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Its folder, which is removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody will start it again, so there is nothing that a gentler end would save.
        self.thaw();
        if let Some(mut server) = self.server.take() {
            let _gone = server.kill();
            let _gone = server.wait();
        }
    }
}

/// A port of loopback that nobody listens on now. Somebody else may take it before the server does;
/// then the start fails and says so.
fn free_port() -> Result<u16, HarnessError> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|it| it.local_addr());
    address.map(|it| it.port()).map_err(HarnessError::io("finding a port of", "127.0.0.1"))
}
