//! The service of another language (`scripts/intake.py`), spoken to by lines.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::api::served::LONG;

/// A running service, ended with this handle.
pub(super) struct Service {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Service {
    pub(super) fn start(url: &str) -> Result<Self> {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let python = root.join(".rgrid/venv/bin/python");
        ensure!(python.is_file(), "{} is missing; `make test` makes it", python.display());
        let mut child = Command::new(python)
            .arg(root.join("tests/grid/scripts/intake.py"))
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("no stdin")?;
        let output = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self {
            _child: child,
            input,
            output,
        })
    }

    /// Has the service do something, and returns what it says of it.
    pub(super) async fn call(&mut self, command: &Value) -> Result<Value> {
        self.input.write_all(format!("{command}\n").as_bytes()).await?;
        let line = tokio::time::timeout(LONG * 2, self.output.next_line()).await??;
        Ok(serde_json::from_str(&line.context("the service ended; its error is above")?)?)
    }

    /// Submits, and waits for the answer.
    pub(super) async fn submit(&mut self, subject: &str, body: &str, headers: Value) -> Result<Value> {
        self.call(&json!({ "do": "submit", "subject": subject, "body": body, "headers": headers }))
            .await
    }
}
