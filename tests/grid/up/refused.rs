//! What `rgrid up` cannot start with, and how it says so.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{BROKEN_NATS, OLD_NATS, Place, said};

/// Fails to bring up a grid, and says how it was refused; nothing of it may be left.
fn refused(place: &Place, command: &mut Command) -> Result<String> {
    let output = said(&command.output()?, 1)?;
    let pids = place.pids()?;
    ensure!(pids.is_empty(), "left running: {pids:?}");
    Ok(output)
}

#[test]
fn an_old_nats_server_is_refused() -> Result<()> {
    let place = Place::new()?;
    let old = place.program("old-nats-server", OLD_NATS)?;
    let reason = refused(&place, place.command("up")?.arg("--detach").env("RGRID_NATS_SERVER", &old))?;
    assert!(
        reason.contains(&format!("nats-server 2.10.29 at {} is too old", old.display())),
        "{reason}"
    );
    assert!(
        reason.contains("2.14.5 or newer") && reason.contains("github.com/nats-io/nats-server/releases"),
        "{reason}"
    );
    Ok(())
}

#[test]
fn a_machine_without_postgresql_is_told_how_to_get_it() -> Result<()> {
    let place = Place::new()?;
    let reason = refused(&place, place.command("up")?.arg("--detach").env("RGRID_POSTGRES_BIN", "/nowhere"))?;
    assert!(
        reason.contains("cannot use PostgreSQL from RGRID_POSTGRES_BIN=/nowhere"),
        "{reason}"
    );
    Ok(())
}

#[test]
fn a_part_that_cannot_start_is_named_with_what_it_said() -> Result<()> {
    let place = Place::new()?;
    let broken = place.program("broken-nats-server", BROKEN_NATS)?;
    let reason = refused(&place, place.command("up")?.arg("--detach").env("RGRID_NATS_SERVER", &broken))?;
    assert!(
        reason.contains("nats does not start: exit code 7: `no luck today`; see "),
        "{reason}"
    );
    assert!(!reason.contains("is up"), "{reason}");
    place.up().context("a failed start is in the way of the next")?;
    Ok(())
}

#[test]
fn a_port_in_use_is_refused_if_it_was_named() -> Result<()> {
    let place = Place::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    for flag in ["--nats-port", "--postgres-port", "--api-port"] {
        let reason = refused(&place, place.command("up")?.args(["--detach", flag, &port]))?;
        assert!(
            reason.contains(&format!("port {port} is in use; end what listens there, or choose another {flag}")),
            "{reason}"
        );
    }
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_used_is_refused() -> Result<()> {
    let outer = tempfile::tempdir()?;
    let inner = outer.path().join("grid");
    let (mode, expected) = if rustix::process::geteuid().is_root() {
        // The database's own user cannot pass.
        (0o700, "its own user cannot enter")
    } else {
        (0o500, "cannot create the data directory")
    };
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(mode))?;
    let place = Place::new()?;
    let mut command = Command::new(place.command("up")?.get_program());
    let output = command.args(["up", "--detach", "--data-dir"]).arg(&inner).output()?;
    let reason = said(&output, 1)?;
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o700))?;
    assert!(
        reason.contains(expected) && reason.contains("choose another --data-dir"),
        "{reason}"
    );
    Ok(())
}
