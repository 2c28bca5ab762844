//! Prints what a look-up costs in an account file of 100,000 users: the first of a process, which
//! maps and checks the file, and the later ones.
#![allow(clippy::print_stdout)]

use std::{env, error::Error, fs, hint::black_box, time::Instant};

use xos_base::accounts::{AccountsBuilder, AccountsFile, Owner, User};

const BASE: u32 = 1_879_048_192;
const USERS: u32 = 100_000;
const LOOKUPS: u32 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = env::temp_dir().join(format!("xos-lookup-rate-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let path = dir.join("accounts");
    let names: Vec<String> = (0..USERS).map(|n| format!("person{n}.demo")).collect();
    let mut builder = AccountsBuilder::new(1);
    for (name, uid) in names.iter().zip(BASE + 10..) {
        let home = format!("/home/xos/{name}");
        let shell = "/bin/bash";
        builder.user(User { name, uid, gid: BASE, gecos: "Some Person", home: &home, shell })?;
    }
    builder.group("demo", BASE, names.iter().map(String::as_str))?;
    builder.write_atomic(&path)?;
    println!("{USERS} users: {} bytes", fs::metadata(&path)?.len());
    let start = Instant::now();
    let file = AccountsFile::open(path, Owner::Anybody)?;
    println!("first look: {:?} (map and checksum)", start.elapsed());
    let start = Instant::now();
    for n in 0..LOOKUPS {
        let name = &names[(n.wrapping_mul(7919) % USERS) as usize];
        black_box(file.current()?.view().user_by_name(name)?);
    }
    println!("by name: {:?} each, of which", start.elapsed() / LOOKUPS);
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        black_box(file.current()?);
    }
    println!("  asking whether the file was replaced: {:?}", start.elapsed() / LOOKUPS);
    let start = Instant::now();
    for n in 0..LOOKUPS {
        let uid = BASE + 10 + n.wrapping_mul(7919) % USERS;
        black_box(file.current()?.view().user_by_uid(uid)?);
    }
    println!("by uid: {:?} each", start.elapsed() / LOOKUPS);
    fs::remove_dir_all(&dir)?;
    Ok(())
}
