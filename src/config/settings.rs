//! The table of all settings: the only place where one is declared.
//!
//! In: nothing. Out: [`Settings`], a struct per section, and [`SETTINGS`], the rows that variables,
//! flags, the template and error texts are made of. To add a setting is to add a row here: its doc
//! says the unit and the reason, its default and limits stand beside it. Limits *between* settings
//! stand in `config::check`. Read by every file of `config`, by `cli`, and by whoever starts a room.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::choice::{
    Dialect, Durability, JwtAlgorithm, LogFormat, LogLevel, Secret, SubscriptionMode,
};
use super::table::settings;
use super::value::{DAY, GIB, HOUR, KIB, MIB, MINUTE, Rule, SECOND};

settings! {
    /// Where the server listens, where it keeps its data, who may enter, and what it tells.
    server: Server {
        /// Address of the HTTP API and the dashboard. Loopback unless tokens are asked for, since whoever
        /// reaches it may read and write. The variables HOST and PORT each replace their half of it.
        http_addr: SocketAddr = loopback(6632), Rule::Address,
            names ["ONRUSH_HTTP_ADDR"], flag "http-addr";
        /// Address of the binary protocol. Loopback for the same reason.
        tcp_addr: SocketAddr = loopback(6631), Rule::Address,
            names ["ONRUSH_TCP_ADDR"], flag "tcp-addr";
        /// Folder of the store; made when it is missing. One server at a time may own it.
        data_dir: PathBuf = PathBuf::from("./onrush-data"), Rule::Path,
            names ["ONRUSH_DATA_DIR"], flag "data-dir";
        /// Allows an address that other machines reach although nobody is asked for a token. Off, because
        /// a queue that is open to a network should be a decision and not an accident.
        allow_insecure_bind: bool = false, Rule::Switch,
            names ["ONRUSH_ALLOW_INSECURE_BIND"];
        /// A token whose holder may do everything; empty: none. Tokens with names and roles stand in
        /// the section auth. Better given by the variable
        /// ONRUSH_TOKEN_FILE, the path of a file that holds it: a flag shows in the list of processes.
        token: Secret = Secret::default(), Rule::Secret { bytes_max: 4096 },
            names ["ONRUSH_TOKEN"];
        /// Whether a push to a queue that does not exist makes it, with default settings. Off, such a
        /// push is refused, so that a misspelt name does not become a queue.
        auto_create_queues: bool = true, Rule::Switch;
        /// How much is logged.
        log_level: LogLevel = LogLevel::Info, Rule::Choice(LogLevel::WORDS),
            names ["ONRUSH_LOG_LEVEL", "LOG_LEVEL"], flag "log-level";
        /// How a line of the log looks: text on a terminal and JSON elsewhere, or always one of them.
        log_format: LogFormat = LogFormat::Auto, Rule::Choice(LogFormat::WORDS),
            names ["ONRUSH_LOG_FORMAT"];
        /// Threads that serve connections; 0 means one per core.
        worker_threads: usize = 0, Rule::Count { min: 0, max: 1024 },
            names ["ONRUSH_WORKER_THREADS"];
    }

    /// Who may do what. With nothing set here, and no server.token, everybody may do everything.
    auth: Auth {
        /// Tokens, parted by commas, each name:role:hash as "onrush token new" prints them. Roles are
        /// read-only, read-write and admin.
        tokens: String = String::new(), Rule::Text { bytes_max: 64 * 1024 };
        /// A file of such tokens, one a line; it is read again when it changes.
        tokens_file: String = String::new(), Rule::Text { bytes_max: 4096 };
        /// Whether JSON Web Tokens are taken.
        jwt_enabled: bool = false, Rule::Switch, names ["JWT_ENABLED"];
        /// How they must be signed; "auto" takes each algorithm for which there is a key.
        jwt_algorithm: JwtAlgorithm = JwtAlgorithm::Hs256, Rule::Choice(JwtAlgorithm::WORDS),
            names ["JWT_ALGORITHM"];
        /// The secret of HS256.
        jwt_secret: Secret = Secret::default(), Rule::Secret { bytes_max: 4096 },
            names ["JWT_SECRET"];
        /// A public key of RS256 or EdDSA: PEM, or the path of a file that holds it.
        jwt_public_key: String = String::new(), Rule::Lines { bytes_max: 16 * 1024 },
            names ["JWT_PUBLIC_KEY"];
        /// Where public keys are published as a JSON Web Key Set, http or https.
        jwt_jwks_url: String = String::new(), Rule::Text { bytes_max: 2048 },
            names ["JWT_JWKS_URL"];
        /// Age in seconds at which published keys are fetched again. A token with an unknown key lets
        /// them be fetched at once.
        jwt_jwks_refresh_s: u64 = 3600, Rule::Count { min: 1, max: 604_800 },
            names ["JWT_JWKS_REFRESH_INTERVAL"];
        /// How long fetching them may take.
        jwt_jwks_timeout_ms: u64 = 5_000, Rule::Millis { min: 10, max: MINUTE },
            names ["JWT_JWKS_TIMEOUT_MS"];
        /// Who must have issued a token; empty takes any.
        jwt_issuer: String = String::new(), Rule::Text { bytes_max: 1024 }, names ["JWT_ISSUER"];
        /// Whom a token must be for; empty takes any.
        jwt_audience: String = String::new(), Rule::Text { bytes_max: 1024 },
            names ["JWT_AUDIENCE"];
        /// How many seconds clocks may be apart.
        jwt_clock_skew_s: u64 = 30, Rule::Count { min: 0, max: 3600 }, names ["JWT_CLOCK_SKEW"];
        /// Paths for which nobody is asked, parted by commas: exact, or all below one that ends in /.
        /// Figures that are left out here need the role read-only.
        skip_paths: String = "/health,/metrics/prometheus,/metrics,/".to_owned(),
            Rule::Text { bytes_max: 4096 }, names ["JWT_SKIP_PATHS"];
        /// The claim that holds a token's role.
        jwt_role_claim: String = "role".to_owned(), Rule::Text { bytes_max: 255 },
            names ["JWT_ROLES_CLAIM"];
        /// The claim that holds a list of roles.
        jwt_roles_claim: String = "roles".to_owned(), Rule::Text { bytes_max: 255 },
            names ["JWT_ROLES_ARRAY_CLAIM"];
        /// What the role admin is called there.
        jwt_role_admin: String = "admin".to_owned(), Rule::Text { bytes_max: 255 },
            names ["JWT_ROLE_ADMIN"];
        /// What the role read-write is called there.
        jwt_role_read_write: String = "read-write".to_owned(), Rule::Text { bytes_max: 255 },
            names ["JWT_ROLE_READ_WRITE"];
        /// What the role read-only is called there.
        jwt_role_read_only: String = "read-only".to_owned(), Rule::Text { bytes_max: 255 },
            names ["JWT_ROLE_READ_ONLY"];
    }

    /// Encryption of both ports. With a certificate and a key they take nothing but TLS.
    tls: Tls {
        /// The certificate and those between it and an authority, in PEM. Read again when it changes.
        cert_file: String = String::new(), Rule::Text { bytes_max: 4096 };
        /// Its private key, in PEM. Read again when it changes.
        key_file: String = String::new(), Rule::Text { bytes_max: 4096 };
        /// How often it is looked whether the two, or the file of tokens, have changed.
        reload_interval_ms: u64 = 5_000, Rule::Millis { min: 50, max: HOUR };
        /// How long a client may take to agree on keys.
        handshake_timeout_ms: u64 = 10_000, Rule::Millis { min: 100, max: MINUTE };
    }

    /// The HTTP API.
    http: Http {
        /// How the API answers at the root: in its own way, or as clients of Queen expect it.
        /// Under /queen it always answers as those clients expect.
        dialect: Dialect = Dialect::Onrush, Rule::Choice(Dialect::WORDS), flag "http-dialect";
        /// The largest body of a request, in bytes. Clients push lists of thousands of messages in
        /// one body, so it is much larger than a message.
        body_bytes_max: usize = 64 * 1024 * 1024, Rule::Bytes { min: 64 * KIB, max: GIB };
        /// How long a client may take to send the head of a request. A slow head holds a connection.
        header_timeout_ms: u64 = 10_000, Rule::Millis { min: 100, max: 10 * MINUTE };
        /// How long a connection may rest between two requests. Longer than the 60 s after which
        /// usual proxies give up, so that it is never us who closes under a request on its way.
        idle_timeout_ms: u64 = 75_000, Rule::Millis { min: SECOND, max: HOUR };
        /// Origins whose pages may use the API in a browser, parted by commas, such as
        /// `https://ops.example.org`; * stands for all. Empty allows none.
        cors_origins: String = String::new(), Rule::Text { bytes_max: 4096 };
    }

    /// The binary protocol.
    wire: Wire {
        /// The largest frame, in bytes. It is refused as soon as its length is read, before memory
        /// is taken for it.
        frame_bytes_max: usize = 16 * 1024 * 1024, Rule::Bytes { min: 64 * KIB, max: 16 * MIB };
        /// The largest record batch, in bytes; the format itself allows no more than the default.
        batch_bytes_max: usize = 8 * 1024 * 1024, Rule::Bytes { min: 16 * KIB, max: 8 * MIB };
        /// The size at which a larger push is split into batches, in bytes. Larger batches no longer
        /// make the log faster, but hold a commit up.
        batch_target_bytes: usize = 4 * 1024 * 1024, Rule::Bytes { min: 16 * KIB, max: 8 * MIB };
        /// The largest payload of one message, in bytes. Every message takes that much of a ring, of a
        /// commit and of what a pop may hold, so larger things are better kept elsewhere and named.
        message_bytes_max: usize = 4 * 1024 * 1024, Rule::Bytes { min: KIB, max: 8 * MIB };
        /// Requests of one connection that may be unanswered at a time; the reader waits beyond it.
        in_flight_max: u32 = 1024, Rule::Count { min: 1, max: 65_536 };
        /// Connections at a time, of each protocol for itself. Each one costs some kilobytes and a
        /// file handle.
        connections_max: usize = 20_000, Rule::Count { min: 1, max: 1_000_000 };
        /// How long a new connection may take to say hello. Until then nobody knows who it is.
        hello_timeout_ms: u64 = 5_000, Rule::Millis { min: 100, max: MINUTE };
        /// How long a frame that has begun may take to be complete. A half frame holds memory.
        frame_timeout_ms: u64 = 30_000, Rule::Millis { min: 100, max: 10 * MINUTE };
    }

    /// Rings in memory, where messages wait for their batch.
    buffer: Buffer {
        /// How long a QoS 0 message may wait for its batch, when the push does not say. It is also
        /// how much a crash can take of what QoS 0 was answered for.
        buffer_ms: u64 = 100, Rule::Millis { min: 1, max: MINUTE };
        /// How many messages of a partition end that wait early, when the push does not say.
        buffer_max: usize = 100, Rule::Count { min: 1, max: 1_000_000 };
        /// Messages that one ring may hold. A full ring refuses QoS 0 and makes QoS 1 and 2 wait.
        ring_messages_max: usize = 65_536, Rule::Count { min: 1, max: 16_777_216 };
        /// Bytes that one ring may hold, so that one partition cannot take the whole budget.
        ring_bytes_max: usize = 16 * 1024 * 1024, Rule::Bytes { min: 64 * KIB, max: 4 * GIB };
        /// Bytes that all rings together may hold: the ceiling of memory for messages on their way.
        /// Some tens of milliseconds of what a disk takes; more only makes what waits fall out of the
        /// processor's caches.
        budget_bytes: usize = 32 * 1024 * 1024, Rule::Bytes { min: MIB, max: 256 * GIB };
        /// How long a QoS 1 or 2 push may wait for its commit, when the push does not say. After it
        /// the answer is that the outcome is not known.
        append_timeout_ms: u64 = 30_000, Rule::Millis { min: 100, max: 10 * MINUTE };
    }

    /// The log on disk and what is kept beside it.
    store: Store {
        /// When QoS 1 and 2 are answered. "sync": the disk has it. "os": only the system has it,
        /// and loss of power may take messages that were answered for.
        durability: Durability = Durability::Sync, Rule::Choice(Durability::WORDS),
            flag "durability";
        /// Shards of a new store. Counts only when the store is made: a partition's shard follows
        /// from its number, so it can never change afterwards.
        shards: u32 = 64, Rule::Count { min: 1, max: 1024 };
        /// Size of a file of the log, in bytes. Space comes back in these pieces.
        segment_bytes: u64 = 128 * 1024 * 1024, Rule::Bytes { min: MIB, max: GIB };
        /// Newest messages of all partitions that stay in memory, in bytes, so that consumers that
        /// keep up read nothing back from disk.
        hot_tail_bytes: usize = 32 * 1024 * 1024, Rule::Bytes { min: 0, max: 256 * GIB };
        /// How often the state beside the log is written. A start applies what came after it.
        checkpoint_interval_ms: u64 = 5_000, Rule::Millis { min: 100, max: HOUR };
        /// How long a transaction id is remembered: QoS 2 promises no duplicate within it.
        dedup_horizon: Duration = days(7), Rule::Span { min: MINUTE, max: 365 * DAY };
        /// Transaction ids are forgotten in pieces of this length, so they are remembered for up to
        /// one piece longer.
        dedup_generation: Duration = days(1), Rule::Span { min: 10 * SECOND, max: 365 * DAY };
        /// How often messages that outlived their queue's retention are looked for.
        retention_interval_ms: u64 = 300_000, Rule::Millis { min: SECOND, max: DAY },
            names ["RETENTION_INTERVAL"];
        /// A file of the log is rewritten when less than this share of it is live. With a quarter,
        /// each live byte is rewritten rarely and space stays bounded.
        compaction_live_ratio: f64 = 0.25, Rule::Ratio { min: 0.0, max: 0.9 };
        /// Memory for the index of state on disk, in bytes.
        cache_bytes: u64 = 8 * 1024 * 1024, Rule::Bytes { min: MIB, max: 256 * GIB };
    }

    /// PostgreSQL, in the place of the log on disk: for data in a database that is there already, and
    /// for several servers that share one store. Without a URL or a host there is no database.
    database: Database {
        /// Where the database is: postgresql://user:password@host:port/name, with libpq's parameters
        /// sslmode and sslrootcert. Better given by the variable ONRUSH_DATABASE_URL_FILE, the path of
        /// a file that holds it: a flag shows in the list of processes.
        url: Secret = Secret::default(), Rule::Secret { bytes_max: 4096 }, flag "database-url";
        /// The host of the database, where there is no URL; a path is the folder of its socket.
        host: String = String::new(), Rule::Text { bytes_max: 255 }, names ["PG_HOST"];
        /// The port, where there is no URL.
        port: u16 = 5432, Rule::Count { min: 1, max: 65_535 }, names ["PG_PORT"];
        /// The name of the database, where there is no URL.
        name: String = "postgres".to_owned(), Rule::Text { bytes_max: 63 }, names ["PG_DB"];
        /// As whom it is used, where there is no URL.
        user: String = "postgres".to_owned(), Rule::Text { bytes_max: 63 }, names ["PG_USER"];
        /// The password, where there is no URL.
        password: Secret = Secret::default(), Rule::Secret { bytes_max: 1024 },
            names ["PG_PASSWORD"];
        /// Whether connections must be encrypted, where there is no URL. Off, they are where the
        /// server offers it.
        use_ssl: bool = false, Rule::Switch, names ["PG_USE_SSL"];
        /// Whether an encrypted connection is refused when the system's authorities do not know the
        /// server's certificate, where there is no URL.
        verify_ssl: bool = true, Rule::Switch, names ["PG_SSL_REJECT_UNAUTHORIZED"];
        /// The schema that holds the store; made when it is missing. Several stores fit into one
        /// database.
        schema: String = "onrush".to_owned(), Rule::Text { bytes_max: 48 };
        /// How long making a connection may take.
        connect_timeout_ms: u64 = 1_000, Rule::Millis { min: 50, max: MINUTE },
            names ["DB_CONNECTION_TIMEOUT"];
        /// How long a commit may take until it is not known what became of it, and how long the answer to
        /// a question may: whoever waits for one holds up commits.
        append_timeout_ms: u64 = 3_000, Rule::Millis { min: 100, max: 10 * MINUTE },
            names ["DB_STATEMENT_TIMEOUT"];
        /// How long a commit waits for another server's lock. It holds its own for no longer than the
        /// database takes, so a long wait means that somebody hangs.
        lock_timeout_ms: u64 = 1_000, Rule::Millis { min: 10, max: MINUTE },
            names ["DB_LOCK_TIMEOUT"];
        /// How often a server that has nothing else to do looks at what others did; where it hears of
        /// that from them, once a second is enough. At an hour it looks only when it must.
        follow_interval_ms: u64 = 50, Rule::Millis { min: 1, max: HOUR };
        /// Pushes of at least so many bytes together are committed in parts side by side, on as many
        /// connections: the database works on a commit in one process.
        parts_bytes_min: u64 = 256 * 1024, Rule::Bytes { min: 1, max: 16 * 1024 * GIB };
    }

    /// The log that takes pushes while the store is away, or while they are held back on purpose.
    failover: Failover {
        /// Bytes that it may take on disk. Beyond it pushes are refused until the store is back.
        disk_bytes_max: u64 = 8 * 1024 * 1024 * 1024,
            Rule::Bytes { min: 64 * MIB, max: 16 * 1024 * GIB };
        /// How long a store that fails is tried again before pushes go to this log. Most breaks are
        /// shorter than a client notices.
        suspect_ms: u64 = 500, Rule::Millis { min: 1, max: MINUTE };
        /// How often a store that is away is looked for.
        probe_ms: u64 = 100, Rule::Millis { min: 10, max: MINUTE };
    }

    /// Keys for queues that ask for encryption. Without one such a queue is refused, and so is a push to
    /// it: nothing is stored in clear instead.
    encryption: Encryption {
        /// One key: 64 hexadecimal digits; it has the number 0. Better given by the variable
        /// ONRUSH_ENCRYPTION_KEY_FILE, the path of a file that holds it.
        key: Secret = Secret::default(), Rule::Secret { bytes_max: 64 },
            names ["QUEEN_ENCRYPTION_KEY"];
        /// A file of numbered keys, in TOML, of which one is active: new messages get it, the others
        /// open what they sealed. Empty where there is none. See docs/encryption.md.
        key_ring: String = String::new(), Rule::Text { bytes_max: 4096 };
        /// How often that file is read again; what it says counts from then on, without a restart.
        reload_ms: u64 = 1_000, Rule::Millis { min: 10, max: HOUR };
    }

    /// How processes are evaluated, and the most that a class may ask for. What a class does not ask for is
    /// the class's default, or the most where that is less.
    processes: Processes {
        /// Evaluations at a time; 0 means one per core. Code that takes long gets half as many beside them.
        evaluators: usize = 0, Rule::Count { min: 0, max: 1024 };
        /// Pops of processes that are worked off at a time, beside one of each class. One class may have
        /// half of them.
        places: usize = 64, Rule::Count { min: 1, max: 4096 };
        /// How long a process is held at a time; held on while it works. So long it rests when a server
        /// that shares the store is gone.
        lease_ms: u64 = 10_000, Rule::Millis { min: SECOND, max: HOUR };
        /// Memory for state of processes that were met lately, in bytes.
        cache_bytes: usize = 64 * 1024 * 1024, Rule::Bytes { min: MIB, max: 256 * GIB };
        /// Steps that the code of one slot may take, at most.
        fuel_max: u64 = 10_000_000, Rule::Count { min: 1, max: 1_000_000_000_000 };
        /// Time that one slot may take, at most.
        slot_time_max_ms: u64 = 60_000, Rule::Millis { min: 1, max: HOUR };
        /// Memory that one slot may take, in bytes.
        memory_bytes_max: u64 = 32 * 1024 * 1024, Rule::Bytes { min: MIB, max: 4 * GIB };
        /// Messages that one slot may send, at most.
        outbox_entries_max: u64 = 1_000, Rule::Count { min: 1, max: 10_000 };
        /// Bytes of messages that one slot may send.
        outbox_bytes_max: u64 = 4 * 1024 * 1024, Rule::Bytes { min: KIB, max: 8 * MIB };
        /// Bytes of state that one process may keep.
        state_bytes_max: u64 = 1024 * 1024 * 1024, Rule::Bytes { min: KIB, max: 256 * GIB };
        /// Messages of a cascade that follow one after the other.
        hops_max: u32 = 10_000, Rule::Count { min: 1, max: 10_000 };
        /// Messages of one cascade.
        messages_max: u64 = 100_000_000, Rule::Count { min: 1, max: 100_000_000 };
        /// Messages that may wait in one process.
        backlog_max: u64 = 1_000_000_000, Rule::Count { min: 1, max: 1_000_000_000 };
    }

    /// What consumers get when they do not say.
    delivery: Delivery {
        /// How long a pop that may wait does so, when it does not say.
        pop_timeout_ms: u64 = 30_000, Rule::Millis { min: 0, max: HOUR },
            names ["DEFAULT_TIMEOUT"];
        /// Messages that a pop over HTTP gets, when it does not say.
        pop_batch: u32 = 1, Rule::Count { min: 1, max: 10_000 }, names ["DEFAULT_BATCH_SIZE"];
        /// Where a group starts in a partition that is new to it, when it does not say.
        subscription_mode: SubscriptionMode = SubscriptionMode::Unset,
            Rule::Choice(SubscriptionMode::WORDS), names ["DEFAULT_SUBSCRIPTION_MODE"];
        /// Bytes of messages that one pop may return; one message always fits.
        pop_bytes_max: usize = 4 * 1024 * 1024, Rule::Bytes { min: 64 * KIB, max: 16 * MIB };
        /// Messages that one pop may ask for; the protocol itself allows no more than the default.
        messages_max: u32 = 10_000, Rule::Count { min: 1, max: 10_000 };
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn days(count: u64) -> Duration {
    Duration::from_millis(count * DAY)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_obeys_its_own_rule() {
        for (setting, value) in SETTINGS.iter().zip(Settings::default().values()) {
            let text = setting.rule.show(&value);
            assert_eq!(setting.rule.read(&text), Some(value), "{}", setting.path);
        }
    }

    #[test]
    fn there_is_a_row_per_field() {
        assert_eq!(SETTINGS.len(), Settings::default().values().len());
        assert_eq!(SECTIONS.len(), 12);
    }

    #[test]
    fn no_name_stands_for_two_settings() {
        let mut names = BTreeSet::new();
        for setting in SETTINGS {
            for variable in setting.variables() {
                // A row may repeat its own full name; another row may not have it.
                assert!(names.insert(variable.clone()), "{variable} of {}", setting.path);
            }
            if let Some(flag) = setting.flag {
                assert!(names.insert(flag.to_owned()), "--{flag}");
            }
        }
    }

    #[test]
    fn times_without_a_unit_in_their_name_ask_for_one_in_the_value() {
        for setting in SETTINGS {
            let takes_milliseconds = matches!(setting.rule, Rule::Millis { .. });
            assert_eq!(setting.key.ends_with("_ms"), takes_milliseconds, "{}", setting.path);
        }
    }

    #[test]
    fn every_setting_says_what_it_is_for() {
        for setting in SETTINGS {
            let words: usize =
                setting.docs.iter().map(|line| line.split_whitespace().count()).sum();
            assert!(words >= 4, "{} is not explained", setting.path);
        }
    }
}
