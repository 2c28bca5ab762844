//! `openssl ca`: certificates signed from files, without network, sign-in or membership.

use super::missing;
use crate::Result;
use crate::bench::samples::Samples;
use crate::bench::suite::{Run, per_second};
use crate::bench::within::{Timing, nanos};
use crate::bench::{Progress, failed, scratch};
use crate::error::Context as _;
use rcgen::{CertificateParams, DnType, KeyPair};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const CONFIG: &str = "\
[ca]
default_ca = d
[d]
database = index.txt
serial = serial
new_certs_dir = new
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = p
unique_subject = no
default_days = 1
[p]
commonName = supplied
";

/// Certificates per second.
///
/// # Errors
/// When it is installed and does not work.
pub(in crate::bench) fn measure(run: &Run, count: usize, say: Progress) -> Result<Option<Samples>> {
    if !missing(&["openssl"]).is_empty() {
        say("peer not installed: apt-get install openssl");
        return Ok(None);
    }
    let folder = scratch(&run.dir)?;
    let dir = folder.path();
    prepare(dir, count)?;
    let requests: Vec<String> = (0..count).map(|i| format!("{i}.csr")).collect();
    let mut rates = Vec::new();
    for _ in 0..run.repetitions {
        write(dir, "index.txt", "")?;
        write(dir, "serial", "01\n")?;
        let begin = Instant::now();
        let ca = ["ca", "-batch", "-notext", "-config", "ca.cnf", "-out", "all.pem", "-infiles"];
        openssl(dir, &ca, &requests)?;
        let timing = Timing { each_ns: vec![0; count], total_ns: nanos(begin) };
        rates.push(per_second(&timing));
    }
    let rates = Samples::new(rates);
    say(&format!("openssl ca, one batch of {count} files, /s: {rates}"));
    Ok(Some(rates))
}

fn prepare(dir: &Path, count: usize) -> Result<()> {
    let what = || format!("making folders in {}", dir.display());
    fs::create_dir(dir.join("new")).context(what)?;
    write(dir, "ca.cnf", CONFIG)?;
    let new = ["req", "-x509", "-new", "-newkey", "ec", "-pkeyopt"];
    let more = ["ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(dir, &[new.as_slice(), &more, &["-subj", "/CN=bench", "-days", "2"]].concat(), &[])?;
    for i in 0..count {
        let fail = |e: rcgen::Error| failed("making a certificate request", e);
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("u{i}"));
        let csr = params.serialize_request(&key).and_then(|r| r.pem()).map_err(fail)?;
        write(dir, &format!("{i}.csr"), &csr)?;
    }
    Ok(())
}

fn openssl(dir: &Path, args: &[&str], more: &[String]) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(args).args(more).stdin(Stdio::null());
    let out = command.output().context(|| "running openssl".to_owned())?;
    let said = String::from_utf8_lossy(&out.stderr);
    let tail: String = said.lines().rev().take(5).collect::<Vec<_>>().join("; ");
    if out.status.success() { Ok(()) } else { Err(failed("openssl", tail)) }
}

fn write(dir: &Path, name: &str, content: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, content).context(|| format!("writing {}", path.display()))
}
