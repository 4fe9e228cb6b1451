//! Contexts: named servers, their tokens, and encryption.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::world::{Ran, World, bare, run};

/// Runs a command without any variable that says where a server is.
fn ctl(world: &World, arguments: &[&str], input: &str) -> Ran {
    let mut command = bare(world.folder.path());
    command.args(arguments);
    run(command, input)
}

#[test]
fn a_server_is_named_once_and_used_ever_after() {
    let world = World::with(&["server.token=secret"]);
    let (server, tcp) = (world.server.http_url(), world.tcp.clone());
    let none = ctl(&world, &["context", "list", "-o", "table"], "");
    assert!(none.code == 0 && none.err.contains("context add"), "{none:?}");
    let added = ctl(
        &world,
        &["context", "add", "dev", "--server", &server, "--tcp", &tcp, "--token-file", "-"],
        "secret\n",
    );
    assert_eq!(added.code, 0, "{added:?}");
    assert!(!added.out.contains("secret"), "{added:?}");
    let file = world.folder.path().join("config/onrush/ctl.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        ctl(&world, &["push", "q", "--payload", "1"], "").code,
        0,
        "the first one is in use"
    );

    let other = ctl(
        &world,
        &["context", "add", "other", "--server", "https://elsewhere", "-o", "table"],
        "",
    );
    assert!(other.code == 0 && other.out.contains("context use other"), "{other:?}");
    assert_eq!(ctl(&world, &["queues", "list"], "").code, 0, "it stays in use");
    assert_eq!(ctl(&world, &["context", "use", "other"], "").code, 0);
    let all = ctl(&world, &["context", "list"], "").done();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!(
        (&all[0]["name"], &all[0]["current"], &all[0]["hasToken"]),
        (&json!("dev"), &json!(false), &json!(true))
    );
    assert_eq!(
        (&all[1]["name"], &all[1]["current"], &all[1]["hasToken"]),
        (&json!("other"), &json!(true), &json!(false))
    );
    let table = ctl(&world, &["context", "ls", "-o", "table"], "").done();
    assert!(table.starts_with("IN USE  NAME") && !table.contains("secret"), "{table}");
    assert_eq!(ctl(&world, &["queues", "list", "--context", "dev"], "").code, 0);

    let mut by_variable = bare(world.folder.path());
    by_variable.args(["queues", "list"]).env("ONRUSH_CONTEXT", "dev");
    assert_eq!(run(by_variable, "").code, 0);

    // Whoever names another server does not hand it this one's token.
    ctl(&world, &["queues", "list", "--server", &server], "").refused(4, &["unauthenticated"]);
    ctl(&world, &["context", "use", "none"], "").refused(2, &["no context \"none\"", "dev, other"]);
    assert_eq!(ctl(&world, &["context", "delete", "other"], "").code, 0);
    ctl(&world, &["context", "delete", "other"], "").refused(2, &["no context"]);
    ctl(&world, &["context", "add", "x"], "").refused(2, &["--server"]);
    ctl(&world, &["context", "add", "x", "--server", "ftp://x"], "")
        .refused(2, &["neither http nor https"]);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        kept.contains("[contexts.dev]") && !kept.contains("other") && !kept.contains("current"),
        "{kept}"
    );
}

#[test]
fn a_file_that_is_wrong_or_open_to_others_is_told() {
    let world = World::new();
    let server = world.server.http_url();
    assert_eq!(
        ctl(&world, &["context", "add", "dev", "--server", &server, "--token", "t"], "").code,
        0
    );
    let file = world.folder.path().join("config/onrush/ctl.toml");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let warned = ctl(&world, &["queues", "list"], "");
    assert!(warned.code == 0 && warned.err.contains("chmod 600"), "{warned:?}");
    std::fs::write(&file, "contexts = 7").unwrap();
    ctl(&world, &["queues", "list"], "").refused(2, &["ctl.toml"]);
    ctl(
        &world,
        &["queues", "list", "--ca-file", "none.pem", "--server", "https://127.0.0.1:1"],
        "",
    )
    .refused(2, &["ctl.toml"]);
}

#[test]
fn both_ports_are_spoken_to_encrypted() {
    let certificates = tempfile::tempdir().unwrap();
    let at = |name: &str| certificates.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(at("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(at("cert.pem"), made.cert.pem()).unwrap();
    let settings =
        [format!("tls.cert_file={}", at("cert.pem")), format!("tls.key_file={}", at("key.pem"))];
    let world = World::with(&settings.iter().map(String::as_str).collect::<Vec<&str>>());
    let port = |addr: &str| addr.rsplit(':').next().unwrap().to_owned();
    let server = format!("https://localhost:{}", port(&world.server.http_url()));
    let tcp = format!("localhost:{}", port(&world.tcp));
    let add =
        ["context", "add", "tls", "--server", &server, "--tcp", &tcp, "--ca-file", &at("cert.pem")];
    assert_eq!(ctl(&world, &add, "").code, 0);
    assert_eq!(ctl(&world, &["push", "q", "--payload", "1"], "").code, 0);
    assert_eq!(ctl(&world, &["pop", "q"], "").lines()[0]["data"], 1);
    assert!(ctl(&world, &["queues", "list"], "").done().contains("\"name\": \"q\""));
    // Nobody who is not trusted is spoken to.
    let stranger = ["--server", &server, "queues", "list"];
    ctl(&world, &stranger, "").refused(3, &["cannot reach https://localhost"]);
    let stranger = ["--server", &server, "--tcp", &tcp, "pop", "q"];
    ctl(&world, &stranger, "").refused(3, &["cannot reach tcp://localhost"]);
}
