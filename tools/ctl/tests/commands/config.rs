//! Which server commands go to, and who said so.

use serde_json::{Value, json};

use crate::world::{Ran, bare, run};

fn ctl(folder: &std::path::Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = bare(folder);
    command.args(arguments).envs(variables.iter().copied());
    run(command, "")
}

fn shown(folder: &std::path::Path, variables: &[(&str, &str)], arguments: &[&str]) -> Value {
    let ran = ctl(folder, variables, arguments).done();
    assert!(!ran.contains("s3cret"), "{ran}");
    serde_json::from_str(&ran).unwrap()
}

#[test]
fn a_command_tells_where_it_would_go_and_who_said_so_and_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config/onrush/ctl.toml");
    let path = ctl(folder.path(), &[], &["config", "path"]).done();
    assert_eq!(path.trim_end(), file.to_str().unwrap());
    assert!(!file.exists(), "it was only asked for");

    let bare = shown(folder.path(), &[], &["config", "show"]);
    assert_eq!(bare["server"], "http://127.0.0.1:6632");
    assert_eq!(bare["serverFrom"], "nobody said otherwise");
    assert_eq!((&bare["hasToken"], &bare["context"]), (&json!(false), &json!(null)));
    assert_eq!(bare["path"], file.to_str().unwrap());

    let add = ["context", "add", "prod", "--server", "https://q.example:7", "--token", "s3cret"];
    assert_eq!(ctl(folder.path(), &[], &add).code, 0);
    let used = shown(folder.path(), &[], &["config", "show"]);
    assert_eq!(
        (&used["server"], &used["tcp"]),
        (&json!("https://q.example:7"), &json!("q.example:6631"))
    );
    for said in ["serverFrom", "tokenFrom"] {
        assert_eq!(used[said], "context prod");
    }
    assert_eq!(
        (&used["tcpFrom"], &used["context"]),
        (&json!("nobody said otherwise"), &json!("prod"))
    );

    let variables = [("ONRUSH_SERVER", "http://env:1"), ("ONRUSH_TOKEN", "s3cret2")];
    let by_variable = shown(folder.path(), &variables, &["config", "show"]);
    assert_eq!(by_variable["serverFrom"], "a variable");
    assert_eq!(
        (&by_variable["hasToken"], &by_variable["tokenFrom"]),
        (&json!(true), &json!("a variable"))
    );
    assert_eq!(by_variable["context"], json!(null));

    let flags = ["config", "show", "--server", "http://flag:2", "--tcp", "flag:3", "-o", "json"];
    let by_flag = shown(folder.path(), &[], &flags);
    assert_eq!((&by_flag["serverFrom"], &by_flag["tcpFrom"]), (&json!("a flag"), &json!("a flag")));
    assert_eq!((&by_flag["hasToken"], &by_flag["context"]), (&json!(false), &json!(null)));

    let table = ctl(folder.path(), &[], &["config", "show", "-o", "table"]).done();
    assert!(table.contains("https://q.example:7") && table.contains("context prod"), "{table}");
    assert!(!table.contains("s3cret"), "{table}");
    ctl(folder.path(), &[], &["config", "show", "--context", "none"]).refused(2, &["no context"]);
}
