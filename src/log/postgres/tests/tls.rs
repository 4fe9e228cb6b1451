//! Encrypted connections against a real server with a certificate of its own authority.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

/// An authority's certificate, and a server's that it signed for a name.
fn write_certificates(folder: &Path, name: &str) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("authority.pem"), issuer.pem()).unwrap();
    std::fs::write(folder.join("server.pem"), server.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

fn secure_cluster(name: &str) -> (Cluster, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path(), name);
    let mut cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    cluster.stop(onrush_pgharness::Stop::Fast);
    for file in ["server.pem", "server.key"] {
        cluster.install(&folder.path().join(file), file).unwrap();
    }
    let settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
    cluster.configure(settings).unwrap();
    cluster.start_again().unwrap();
    (cluster, folder)
}

/// Whether the log opens with these parameters, and whether its connections are encrypted then.
fn encrypted(cluster: &Cluster, parameters: &str) -> Result<bool, String> {
    let url = format!("{}?{parameters}", cluster.url("postgres"));
    let database = Database::parse(&url).unwrap();
    let open_patience = Duration::from_secs(2);
    let config = PostgresConfig { database, open_patience, ..config(cluster, "s") };
    let (log, _) = PostgresLog::open(config, &newcomer()).map_err(|error| error.to_string())?;
    let session = log.shared.writers[0].session().unwrap();
    let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(contract::block_on(session.client.query_one(asked, &[])).unwrap().get(0))
}

#[test]
fn every_mode_means_what_libpq_means_by_it() {
    let (cluster, folder) = secure_cluster("127.0.0.1");
    let root = folder.path().join("authority.pem").display().to_string().replace('/', "%2F");
    assert_eq!(encrypted(&cluster, "sslmode=disable"), Ok(false));
    for parameters in ["", "sslmode=prefer", "sslmode=require"] {
        assert_eq!(encrypted(&cluster, parameters), Ok(true), "{parameters}");
    }
    for mode in ["verify-ca", "verify-full"] {
        let known = format!("sslmode={mode}&sslrootcert={root}");
        assert_eq!(encrypted(&cluster, &known), Ok(true), "{mode}");
        // The system knows nothing of our authority.
        let refused = encrypted(&cluster, &format!("sslmode={mode}")).unwrap_err();
        assert!(refused.contains("certificate") || refused.contains("Issuer"), "{refused}");
    }
}

#[test]
fn a_certificate_of_another_host_serves_verify_ca_and_not_verify_full() {
    let (cluster, folder) = secure_cluster("db.example.org");
    let root = folder.path().join("authority.pem").display().to_string().replace('/', "%2F");
    let with = |mode| encrypted(&cluster, &format!("sslmode={mode}&sslrootcert={root}"));
    assert_eq!(with("verify-ca"), Ok(true));
    let refused = with("verify-full").unwrap_err();
    assert!(refused.contains("name") || refused.contains("Name"), "{refused}");
}

#[test]
fn a_server_without_encryption_is_refused_where_it_is_asked_for() {
    let cluster = Cluster::start(&installations().unwrap().remove(0)).unwrap();
    assert_eq!(encrypted(&cluster, "sslmode=prefer"), Ok(false));
    let refused = encrypted(&cluster, "sslmode=require").unwrap_err();
    assert!(refused.contains("TLS"), "{refused}");
}
