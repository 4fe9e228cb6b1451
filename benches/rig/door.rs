//! One connection to a server's HTTP port, kept open; and what the machine under it can do.
//!
//! In: requests. Out: answers as JSON, and syncs a second of the disk.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A connection.
pub(crate) struct Door {
    stream: BufReader<TcpStream>,
    token: String,
}

impl Door {
    /// To `http://host:port`, as the holder of a token.
    pub(crate) fn open(url: &str, token: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(900))).unwrap();
        Self { stream: BufReader::new(stream), token: token.to_owned() }
    }

    /// An answer that must be a success.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (length, token) = (body.len(), &self.token);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (status, answer) = self.answer();
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null)
    }

    fn answer(&mut self) -> (u16, Value) {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

/// Appends of so many bytes, each with an fdatasync, that one thread gets done in a second on the disk
/// below `folder`: into space that was written before, as the log does it.
pub(crate) fn syncs_per_second(folder: &Path, bytes: usize) -> f64 {
    const SPACE: u64 = 64 << 20;
    const TIME: Duration = Duration::from_millis(1500);
    let path = folder.join("floor");
    let file = std::fs::File::create(&path).unwrap();
    let chunk = vec![0x5a; 1 << 20];
    for at in 0..SPACE >> 20 {
        file.write_all_at(&chunk, at << 20).unwrap();
    }
    file.sync_all().unwrap();
    let append = vec![0xa5; bytes.clamp(1, 1 << 20)];
    let (began, mut at, mut done) = (Instant::now(), 0, 0_u32);
    while began.elapsed() < TIME {
        file.write_all_at(&append, at).unwrap();
        file.sync_data().unwrap();
        at = (at + append.len() as u64) % (SPACE - (1 << 20));
        done += 1;
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path).unwrap();
    rate
}

/// The machine in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({}), memory {}, Linux {}",
        after(&cpu, "model name"),
        after(&memory, "MemTotal"),
        kernel.trim()
    )
}
