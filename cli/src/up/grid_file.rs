//! `grid.json`: the addresses and credentials of an embedded grid, made once and kept.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, bail, ensure};
use bus::ids::Token;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    dir::{DataDir, ensure_own},
    part::Part,
    ports::{self, Held, Wish},
    record::replace,
};

/// The user that rgrid's services are on NATS and in `PostgreSQL`.
const USER: &str = "rgrid";
/// The user of the NATS system account, for what only the server knows (disconnects).
const SYSTEM_USER: &str = "rgrid-system";

/// What a client or a service needs to know of an embedded grid. Readable by its owner alone: it holds every credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GridFile {
    /// The NATS server, with the credentials of rgrid's account.
    pub(crate) nats_url: Url,
    /// The same server, with the credentials of its system account.
    pub(crate) nats_system_url: Url,
    /// The database, with credentials.
    pub(crate) database_url: Url,
    /// The HTTP API.
    pub(crate) api_url: Url,
    /// The key that the API asks for.
    pub(crate) api_key: String,
    /// Where files are stored; `nats://` is the grid's own NATS server.
    pub(crate) store_url: String,
    /// What this machine's worker is called.
    pub(crate) worker: Token,
    /// The parts whose port the user named: it is an error if that port is taken.
    #[serde(default)]
    pub(super) given_ports: Vec<Part>,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    pub(super) nats_port: Option<u16>,
    pub(super) postgres_port: Option<u16>,
    pub(super) api_port: Option<u16>,
    pub(super) store: Option<String>,
}

/// The grid's ports, each held until its server starts.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) nats: Held,
    pub(super) postgres: Held,
    pub(super) api: Held,
}

impl GridFile {
    /// Reads the file of the grid in a data directory.
    ///
    /// # Errors
    /// If no grid was ever up there, or the file may not be read, or is not one.
    pub(crate) fn load(data_dir: &Path) -> anyhow::Result<Self> {
        Self::find(data_dir)?.with_context(|| {
            format!(
                "there is no grid in {}; start one with `rgrid up`, or name another --data-dir",
                data_dir.display()
            )
        })
    }

    /// Reads the file, if there is one.
    pub(super) fn find(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        ensure_own(data_dir)?;
        let path = data_dir.join("grid.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| {
                format!(
                    "{} is damaged; restore it, or remove it: `rgrid up` makes new credentials",
                    path.display()
                )
            }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The file of the grid that is about to start: as it was, with ports that are free, or new.
    pub(super) fn settle(dir: &DataDir, wishes: &Wishes) -> anyhow::Result<(Self, Ports)> {
        let kept = Self::find(dir.root())?;
        let wish = |part: Part, asked: Option<u16>| Wish {
            port: asked.or_else(|| kept.as_ref().and_then(|kept| kept.port(part))),
            given: asked.is_some() || kept.as_ref().is_some_and(|kept| kept.given_ports.contains(&part)),
        };
        let wished = [
            (Part::Nats, wishes.nats_port, "--nats-port"),
            (Part::Postgres, wishes.postgres_port, "--postgres-port"),
            (Part::Api, wishes.api_port, "--api-port"),
        ];
        for (at, (_, port, flag)) in wished.iter().enumerate() {
            let twice = wished.iter().take(at).find(|(_, other, _)| port.is_some() && other == port);
            if let Some((_, _, other)) = twice {
                bail!("{other} and {flag} name the same port; choose two");
            }
        }
        let [nats, postgres, api] = wished.map(|(part, asked, flag)| ports::hold(wish(part, asked), flag));
        let ports = Ports {
            nats: nats?,
            postgres: postgres?,
            api: api?,
        };
        let given = wished
            .iter()
            .filter(|(part, asked, _)| wish(*part, *asked).given)
            .map(|(part, ..)| *part);
        let given: Vec<Part> = given.collect();
        let mut grid = kept.map_or_else(Self::generate, Ok)?;
        grid.given_ports = given;
        grid.set_ports(&ports)?;
        if let Some(store) = &wishes.store {
            grid.store_url.clone_from(store);
        }
        let text = serde_json::to_vec_pretty(&grid)?;
        replace(&dir.grid_file(), &text, true).with_context(|| format!("cannot write {}", dir.grid_file().display()))?;
        Ok((grid, ports))
    }

    fn generate() -> anyhow::Result<Self> {
        let url = |scheme: &str, user: &str, path: &str| Url::parse(&format!("{scheme}://{user}:{}@127.0.0.1:1{path}", secret()));
        Ok(Self {
            nats_url: url("nats", USER, "")?,
            nats_system_url: url("nats", SYSTEM_USER, "")?,
            // Nothing is encrypted on loopback; saying so saves each connection a round trip.
            database_url: url("postgres", USER, "/rgrid?sslmode=disable")?,
            api_url: Url::parse("http://127.0.0.1:1")?,
            api_key: secret(),
            store_url: "nats://".to_owned(),
            worker: worker_name(&rustix::system::uname().nodename().to_string_lossy()),
            given_ports: Vec::new(),
        })
    }

    fn set_ports(&mut self, ports: &Ports) -> anyhow::Result<()> {
        let urls = [
            (&mut self.nats_url, ports.nats.port),
            (&mut self.nats_system_url, ports.nats.port),
            (&mut self.database_url, ports.postgres.port),
            (&mut self.api_url, ports.api.port),
        ];
        for (url, port) in urls {
            ensure!(url.set_port(Some(port)).is_ok(), "grid.json has a URL that takes no port: {url}");
        }
        Ok(())
    }

    /// The API's address, as one would type it.
    pub(super) fn api_address(&self) -> &str {
        self.api_url.as_str().trim_end_matches('/')
    }

    /// The port that a part listens on.
    pub(super) fn port(&self, part: Part) -> Option<u16> {
        match part {
            Part::Nats => self.nats_url.port(),
            Part::Postgres => self.database_url.port(),
            Part::Api => self.api_url.port_or_known_default(),
            Part::Projector | Part::Watcher | Part::Runner => None,
        }
    }
}

/// 192 random bits, as text that needs no quoting anywhere.
fn secret() -> String {
    let mut bytes = [0; 24];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// A machine's name as a worker's: the first label of its host name, with `-` for what a token cannot hold.
pub(crate) fn worker_name(host: &str) -> Token {
    let label = host.split('.').next().unwrap_or_default();
    let kept: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(Token::MAX_LEN)
        .collect();
    kept.trim_matches('-').parse().unwrap_or_else(|_| bus::ids::default_token())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_becomes_a_worker_name() {
        assert_eq!(worker_name("node-7.example.org").to_string(), "node-7");
        assert_eq!(worker_name("Bücher mühle").to_string(), "B-cher-m-hle");
        assert_eq!(worker_name("").to_string(), "default");
        assert_eq!(worker_name(&"x".repeat(100)).to_string().len(), Token::MAX_LEN);
    }

    #[test]
    fn what_was_made_once_is_kept() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let dir = DataDir::new(Some(temp.path()))?;
        let (first, ports) = GridFile::settle(&dir, &Wishes::default())?;
        drop(ports);
        let (second, _ports) = GridFile::settle(&dir, &Wishes::default())?;
        assert_eq!(first, second);
        assert_eq!(GridFile::load(temp.path())?, second);
        assert_ne!(first.nats_url.password(), first.nats_system_url.password());
        // Its ports are held by now: the grid chooses others, and keeps the rest.
        let (third, _ports) = GridFile::settle(
            &dir,
            &Wishes {
                store: Some("s3://b".into()),
                ..Wishes::default()
            },
        )?;
        assert_ne!(third.api_url, second.api_url);
        assert_eq!((third.api_key, third.store_url.as_str()), (second.api_key, "s3://b"));
        Ok(())
    }

    #[test]
    fn a_named_port_stays_named() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let dir = DataDir::new(Some(temp.path()))?;
        let (first, ports) = GridFile::settle(&dir, &Wishes::default())?;
        drop(ports);
        let api_port = first.port(Part::Api);
        let (_, held) = GridFile::settle(
            &dir,
            &Wishes {
                api_port,
                ..Wishes::default()
            },
        )?;
        let error = GridFile::settle(&dir, &Wishes::default())
            .expect_err("the port is held")
            .to_string();
        assert_eq!(
            error,
            format!(
                "port {} is in use; end what listens there, or choose another --api-port",
                held.api.port
            )
        );
        let twice = Wishes {
            api_port,
            nats_port: api_port,
            ..Wishes::default()
        };
        let error = GridFile::settle(&dir, &twice).expect_err("one port, two servers").to_string();
        assert_eq!(error, "--nats-port and --api-port name the same port; choose two");
        Ok(())
    }

    #[test]
    fn where_no_grid_ever_was_the_error_says_how_to_start_one() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let error = GridFile::load(temp.path()).expect_err("there is none").to_string();
        assert!(error.ends_with("start one with `rgrid up`, or name another --data-dir"), "{error}");
        Ok(())
    }
}
