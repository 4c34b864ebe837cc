//! Becomes a limited command of another user: only root may enter its control groups, so that they are entered before.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, process::Command};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// As a shell says that a command could not be begun.
const NOT_BEGUN: i32 = 125;

/// Reads `USER DOOR… -- PROGRAM NAME ARGUMENT…`, and is that program from then on; returns only if it cannot, with an exit code.
pub(super) fn main(arguments: impl Iterator<Item = OsString>) -> i32 {
    let error = become_command(arguments).map_or_else(|error| error, |never| match never {});
    eprintln!("rgrid: the command could not be begun: {error}");
    match error.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::PermissionDenied => 126,
        _ => NOT_BEGUN,
    }
}

fn become_command(mut arguments: impl Iterator<Item = OsString>) -> io::Result<std::convert::Infallible> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let user = arguments.next().and_then(|user| user.to_str()?.parse().ok()).ok_or_else(invalid)?;
    let own = std::process::id().to_string();
    for door in arguments.by_ref().take_while(|argument| argument != "--") {
        std::fs::write(door, &own)?;
    }
    let (program, name) = arguments.next().zip(arguments.next()).ok_or_else(invalid)?;
    setgroups(&[])?;
    setgid(Gid::from_raw(user))?;
    setuid(Uid::from_raw(user))?;
    Err(Command::new(program).arg0(name).args(arguments).exec())
}
