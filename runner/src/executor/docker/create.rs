//! Making a container, known to the machine's packet filter by its hardware address.

use std::{collections::HashMap, sync::atomic::Ordering};

use bollard::{
    errors::Error::{self as DockerError, DockerResponseServerError},
    models::{ContainerCreateBody, EndpointSettings, NetworkingConfig},
    query_parameters::CreateContainerOptions,
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{ANSWER_TIMEOUT, Docker, body, container::Container, guard::NETWORK, image::Image, refused};
use crate::executor::{Error, Launch};

/// Where a daemon listens, unless told.
const SOCKET: &str = "/var/run/docker.sock";
/// The version of the API (1.x) from which an address belongs to a network, where bollard has it.
const BY_NETWORK: usize = 44;
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// The daemon's socket, if it is reached by one.
pub(super) fn socket(host: Option<String>) -> Option<String> {
    match host {
        None => Some(SOCKET.to_owned()),
        Some(host) => host.strip_prefix("unix://").map(ToOwned::to_owned),
    }
}

impl Docker {
    pub(super) async fn create(&self, launch: &Launch, image: &Image) -> Result<Container, Error> {
        let has_init = self.has_init.load(Ordering::Relaxed);
        let mut body = body::of(launch, image, &self.config, &self.setting, has_init, self.runner)?;
        let name = body::name(launch);
        let (client, tasks) = (self.client.clone(), self.tasks.clone());
        let address = self.guard.address();
        if address.is_some()
            && let Some(host) = &mut body.host_config
        {
            host.network_mode = Some(NETWORK.to_owned());
        }
        let by_network = self.client.client_version().minor_version >= BY_NETWORK;
        let socket = self.socket.clone();
        // A task of its own: given up half-way, what the daemon made all the same is removed.
        let creating = self.tasks.spawn(async move {
            let id = match (address, socket) {
                (Some(address), Some(socket)) if !by_network => {
                    let version = client.client_version().to_string();
                    let created = create_at(&socket, &version, &name, &body, &address);
                    timeout(ANSWER_TIMEOUT, created)
                        .await
                        .map_err(|_| DockerError::RequestTimeoutError)??
                }
                (address, _) => {
                    body.networking_config = address.map(in_network);
                    let name = CreateContainerOptions {
                        name: Some(name),
                        ..CreateContainerOptions::default()
                    };
                    client.create_container(Some(name), body).await?.id
                }
            };
            Ok(Container::new(client, id, tasks))
        });
        match creating.await.map_err(|error| Error::Broken(error.to_string()))? {
            Ok(container) => Ok(container),
            Err(error) => {
                self.images.forget(&image.name);
                Err(refused("create", &error))
            }
        }
    }
}

fn in_network(address: String) -> NetworkingConfig {
    let endpoint = EndpointSettings {
        mac_address: Some(address),
        ..EndpointSettings::default()
    };
    NetworkingConfig {
        endpoints_config: Some(HashMap::from([(NETWORK.to_owned(), endpoint)])),
    }
}

/// What the daemon answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

#[derive(Deserialize)]
struct Refused {
    message: String,
}

/// Creates a container with a hardware address as older daemons take it, for which bollard's types have no room any more.
async fn create_at(socket: &str, version: &str, name: &str, body: &ContainerCreateBody, address: &str) -> Result<String, DockerError> {
    let mut body = serde_json::to_value(body)?;
    body["MacAddress"] = json!(address);
    let body = body.to_string();
    // To HTTP/1.0, the answer ends where the connection does.
    let request = format!(
        "POST /v{version}/containers/create?name={name} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    created(&answer)
}

/// What an answer says: a status, and behind a blank line an object.
fn created(answer: &[u8]) -> Result<String, DockerError> {
    let broken = || std::io::Error::new(std::io::ErrorKind::InvalidData, "the daemon's answer cannot be read");
    let text = std::str::from_utf8(answer).map_err(|_| broken())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    match status.ok_or_else(broken)? {
        201 => Ok(serde_json::from_str::<Created>(body)?.id),
        status_code => {
            let said = serde_json::from_str(body).map(|Refused { message }| message);
            Err(DockerResponseServerError {
                status_code,
                message: said.unwrap_or_else(|_| body.to_owned()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_s_answer_is_an_id_or_its_reason() {
        let answer = |status, body| created(format!("HTTP/1.0 {status}\r\nServer: Docker\r\n\r\n{body}").as_bytes());
        assert_eq!(answer("201 Created", r#"{"Id":"x","Warnings":[]}"#).ok().as_deref(), Some("x"));
        let error = answer("404 Not Found", r#"{"message":"No such image: x"}"#).err();
        assert!(matches!(error, Some(DockerResponseServerError { status_code: 404, message }) if message == "No such image: x"));
        assert!(matches!(created(b""), Err(DockerError::IOError { .. })));
    }

    #[test]
    fn only_a_socket_is_on_this_machine() {
        assert_eq!(socket(None).as_deref(), Some(SOCKET));
        assert_eq!(socket(Some("unix:///run/d.sock".to_owned())).as_deref(), Some("/run/d.sock"));
        assert_eq!(socket(Some("tcp://d:2375".to_owned())), None);
    }
}
