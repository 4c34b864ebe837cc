//! `rgrid secret`: values that only the workers see.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use bus::{
    grid::secrets::{self, Key},
    ids::{Namespace, Token},
};
use chrono::Utc;
use clap::{Args, Subcommand};
use client::Client;
use dialoguer::Password;
use model::{PublicKey, SecretView, Secrets, SetSecret};
use reqwest::Method;

use crate::{
    connect::Connect,
    failure::usage,
    output::{Align, ago, print, print_json, print_line, table},
    text,
};

const EXAMPLES: &str = "\
Examples:
  rgrid secret set API_TOKEN                    prompts for the value
  pass show api | rgrid secret set API_TOKEN    reads the value from a pipe
  rgrid run --secret API_TOKEN fetch.py         in the script: os.environ['API_TOKEN']
  rgrid run --secret TOKEN=API_TOKEN fetch.py   in the script: os.environ['TOKEN']
  rgrid secret list; rgrid secret rm API_TOKEN

A value is encrypted on this machine with a key that only the grid's workers can decrypt with: neither the API nor the log or the tables contain the value. If a script prints the value, the log shows *** instead.";

/// Manage secrets: values that only the workers can read
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    verb: SecretVerb,
}

#[derive(Debug, Subcommand)]
enum SecretVerb {
    /// Set a secret; the value is read from standard input or a prompt
    Set(NamedArgs),
    /// List the secrets: name, time, and who set it
    List(ListArgs),
    /// Remove a secret
    Rm(NamedArgs),
    /// Create the encryption key of a grid whose services are started separately
    Keygen(KeygenArgs),
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// The secret's name
    #[arg(value_name = "NAME")]
    name: Token,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
struct KeygenArgs {
    /// Where to write it; FILE.pub gets its public half, which is enough for `rgrid api`
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Whose {
    /// The namespace of the secret
    #[arg(long, value_name = "NAME", env = "RGRID_NAMESPACE", default_value = "default")]
    namespace: Namespace,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn secret(args: SecretArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        SecretVerb::Set(args) => set(args).await?,
        SecretVerb::List(args) => list(args).await?,
        SecretVerb::Rm(NamedArgs { name, whose }) => {
            whose.client_and(Method::DELETE, Some(&name)).await?;
        }
        SecretVerb::Keygen(args) => keygen(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Whose {
    async fn client_and(&self, method: Method, name: Option<&Token>) -> anyhow::Result<reqwest::Response> {
        let client = self.connect.client()?;
        Ok(client.send(self.request(&client, method, name)).await?)
    }

    fn request(&self, client: &Client, method: Method, name: Option<&Token>) -> reqwest::RequestBuilder {
        let path = name.map_or_else(|| "/v1/secrets".to_owned(), |name| format!("/v1/secrets/{name}"));
        client.request(method, &path).query(&[("namespace", &self.namespace)])
    }
}

async fn set(NamedArgs { name, whose }: NamedArgs) -> anyhow::Result<()> {
    let client = whose.connect.client()?;
    let PublicKey { key } = client.get("/v1/secrets/key", &()).await?;
    let key: secrets::PublicKey = key.parse().context("the grid's key for secrets cannot be read")?;
    let value = value(&name)?;
    let sealed = secrets::seal(&key, &whose.namespace, &name, &value)
        .map_err(|error| usage(format!("the value of `{name}` cannot be kept: {error}")))?;
    let body = SetSecret {
        sealed,
        by: Some(user_and_host()),
    };
    let _: SecretView = client.json(whose.request(&client, Method::PUT, Some(&name)).json(&body)).await?;
    Ok(())
}

/// The user and the host, such as `ada@desk`, so that others know whom to ask.
pub(crate) fn user_and_host() -> String {
    let by = std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| "somebody".to_owned());
    format!("{by}@{}", rustix::system::uname().nodename().to_string_lossy())
}

/// The value: asked for without an echo, or all of standard input but the newline that `echo` adds.
fn value(name: &Token) -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        return Ok(Password::new().with_prompt(format!("Value of {name}")).interact()?);
    }
    let mut bytes = Vec::new();
    let most = secrets::MAX_BYTES as u64 + 2;
    io::stdin()
        .take(most)
        .read_to_end(&mut bytes)
        .context("cannot read the value from standard input")?;
    let text = text::decode(bytes).map_err(|_| {
        usage(format!(
            "the value of `{name}` is not text (UTF-8); encode it, for instance with base64"
        ))
    })?;
    let text = text
        .strip_suffix('\n')
        .map(|text| text.strip_suffix('\r').unwrap_or(text))
        .unwrap_or(&text);
    Ok(text.to_owned())
}

async fn list(ListArgs { json, whose }: ListArgs) -> anyhow::Result<()> {
    let client = whose.connect.client()?;
    let found: Secrets = client.json(whose.request(&client, Method::GET, None)).await?;
    if json {
        return print_json(&found);
    }
    if found.secrets.is_empty() {
        return print_line(&format!("there are no secrets in namespace {}", whose.namespace));
    }
    let now = Utc::now();
    let row = |secret: SecretView| vec![secret.name.to_string(), ago(secret.set_at, now), secret.set_by.unwrap_or_default()];
    let columns = [("NAME", Align::Left), ("SET", Align::Left), ("BY", Align::Left)];
    print(&table(&columns, found.secrets.into_iter().map(row).collect()))
}

fn keygen(KeygenArgs { file }: &KeygenArgs) -> anyhow::Result<()> {
    let key = Key::generate();
    let write = |path: &PathBuf, mode: u32, text: &str| {
        let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        open.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write the key to {}; name a file that is not there yet", path.display()))
    };
    write(file, 0o600, &key.to_text())?;
    let mut public = file.clone().into_os_string();
    public.push(".pub");
    write(&public.into(), 0o644, &format!("{}\n", key.public()))
}
