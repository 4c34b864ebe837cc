//! The URL of a file store.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use bus::ids::Token;
use percent_encoding::percent_decode_str;
use url::Url;

/// The URL of a file store. `Display` leaves the credentials out.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `nats://<bucket>?replicas=<n>`: a `JetStream` object store, created if it does not exist.
    Nats {
        /// The bucket; `rgrid-files` by default.
        bucket: Token,
        /// How many servers store a copy, 1 to 5; 1 by default.
        replicas: usize,
    },
    /// `s3://<bucket>?endpoint=<url>&region=<name>`: an existing bucket in S3 or `MinIO`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The server, unless it is Amazon's; addressed in path style.
        endpoint: Option<Url>,
        /// The region, unless the environment names it.
        region: Option<String>,
        /// The access key and its secret, from the URL's user info; otherwise the usual `AWS_…` variables apply.
        credentials: Option<(String, String)>,
        /// Whether clients transfer files directly, by presigned URLs.
        public: Public,
    },
    /// `file:///<dir>`: a directory, created if it does not exist.
    File {
        /// The directory, absolute.
        dir: PathBuf,
    },
}

/// Where clients, which have no credentials, reach an S3 store.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Public {
    /// At the endpoint, like the services.
    #[default]
    AsHere,
    /// At another address: `public=<url>`.
    At(Box<Url>),
    /// Nowhere: `public=none`. Every file goes through the API.
    None,
}

/// An invalid URL of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is not a file store: {why}; use `nats://<bucket>`, `s3://<bucket>?endpoint=<url>` or `file:///<directory>`")]
pub struct InvalidUrl {
    /// What was given, without its credentials.
    pub url: String,
    /// What is wrong with it.
    pub why: Cow<'static, str>,
}

/// The bucket of `nats://`.
const DEFAULT_BUCKET: &str = "rgrid-files";

/// The most replicas of a stream in `JetStream`.
const REPLICAS_MAX: usize = 5;

impl FromStr for StoreUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        parse(text).map_err(|why| InvalidUrl { url: redacted(text), why })
    }
}

fn parse(text: &str) -> Result<StoreUrl, Cow<'static, str>> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "nats" => parse_nats(&url),
        "s3" => parse_s3(&url),
        "file" => url
            .to_file_path()
            .map(|dir| StoreUrl::File { dir })
            .map_err(|()| "write the absolute path of the directory after three slashes".into()),
        other => Err(format!("unknown scheme `{other}:`").into()),
    }
}

fn parse_nats(url: &Url) -> Result<StoreUrl, Cow<'static, str>> {
    if url.port().is_some() || !url.username().is_empty() || !matches!(url.path(), "" | "/") {
        return Err("write only a bucket after `nats://`; the server is the one that the grid is connected to".into());
    }
    let bucket = url.host_str().filter(|host| !host.is_empty()).unwrap_or(DEFAULT_BUCKET);
    let mut replicas = 1;
    for (key, value) in url.query_pairs() {
        match &*key {
            "replicas" => {
                replicas = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=REPLICAS_MAX).contains(n))
                    .ok_or_else(|| format!("`replicas={value}` is not 1 to {REPLICAS_MAX}"))?;
            }
            other => return Err(format!("`nats://` has no option `{other}`").into()),
        }
    }
    let bucket = bucket.parse().map_err(|error: bus::ids::ParseError| error.to_string())?;
    Ok(StoreUrl::Nats { bucket, replicas })
}

fn parse_s3(url: &Url) -> Result<StoreUrl, Cow<'static, str>> {
    let bucket = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or("the bucket is missing")?
        .to_owned();
    if url.port().is_some() || !matches!(url.path(), "" | "/") {
        return Err("write only a bucket after `s3://`; name the server in `?endpoint=`".into());
    }
    let (mut endpoint, mut region, mut public) = (None, None, Public::AsHere);
    for (key, value) in url.query_pairs() {
        match &*key {
            "endpoint" => endpoint = Some(endpoint_of(&value)?),
            "public" if value == "none" => public = Public::None,
            "public" => public = Public::At(Box::new(endpoint_of(&value)?)),
            "region" => region = Some(value.into_owned()),
            other => return Err(format!("`s3://` has no option `{other}`").into()),
        }
    }
    let plain = |text| {
        percent_decode_str(text)
            .decode_utf8()
            .map(Cow::into_owned)
            .map_err(|_| "its credentials are not UTF-8")
    };
    let credentials = match (url.username(), url.password()) {
        ("", None) => None,
        (key, Some(secret)) if !key.is_empty() => Some((plain(key)?, plain(secret)?)),
        _ => return Err("write credentials as `<access key>:<secret>@`, with `/`, `@` and `+` percent-encoded".into()),
    };
    Ok(StoreUrl::S3 {
        bucket,
        endpoint,
        region,
        credentials,
        public,
    })
}

fn endpoint_of(text: &str) -> Result<Url, Cow<'static, str>> {
    let endpoint = Url::parse(text).map_err(|error| format!("the endpoint `{text}` is not a URL ({error})"))?;
    if matches!(endpoint.scheme(), "http" | "https") {
        Ok(endpoint)
    } else {
        Err(format!("the endpoint `{text}` is neither `http://` nor `https://`").into())
    }
}

/// The text without what is before an `@`, so that no secret is logged.
fn redacted(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats { bucket, replicas: 1 } => write!(f, "nats://{bucket}"),
            Self::Nats { bucket, replicas } => write!(f, "nats://{bucket}?replicas={replicas}"),
            Self::S3 {
                bucket, endpoint: None, ..
            } => write!(f, "s3://{bucket}"),
            Self::S3 {
                bucket,
                endpoint: Some(endpoint),
                ..
            } => write!(f, "s3://{bucket}?endpoint={endpoint}"),
            Self::File { dir } => write!(f, "file://{}", dir.display()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_read() -> Result<(), Box<dyn std::error::Error>> {
        assert_eq!("nats://".parse::<StoreUrl>()?.to_string(), "nats://rgrid-files");
        assert_eq!(
            "nats://other?replicas=3".parse::<StoreUrl>()?.to_string(),
            "nats://other?replicas=3"
        );
        assert_eq!(
            "file:///var/lib/files".parse::<StoreUrl>()?,
            StoreUrl::File {
                dir: "/var/lib/files".into()
            }
        );
        let s3 = "s3://key:se%2Fcret@bucket?endpoint=http://127.0.0.1:9000&region=eu".parse::<StoreUrl>()?;
        let StoreUrl::S3 {
            bucket,
            endpoint,
            region,
            credentials,
            public,
        } = &s3
        else {
            panic!("{s3} is S3")
        };
        assert_eq!((bucket.as_str(), region.as_deref()), ("bucket", Some("eu")));
        assert_eq!(endpoint.as_ref().map(Url::as_str), Some("http://127.0.0.1:9000/"));
        assert_eq!(credentials, &Some(("key".to_owned(), "se/cret".to_owned())));
        assert!(*public == Public::AsHere);
        for (text, expected) in [
            ("none", Public::None),
            ("https://files.example", Public::At(Box::new("https://files.example".parse()?))),
        ] {
            let StoreUrl::S3 { public, .. } = format!("s3://b?public={text}").parse()? else {
                panic!("{text} is S3")
            };
            assert!(public == expected, "{text}");
        }
        assert!(!format!("{s3:?}").contains("cret"), "no secret is shown");
        Ok(())
    }

    #[test]
    fn an_invalid_url_is_refused_with_a_reason() {
        for (text, why) in [
            ("ftp://x", "unknown scheme `ftp:`"),
            ("/tmp/x", "relative URL without a base"),
            ("nats://127.0.0.1:4222", "only a bucket"),
            ("nats://b?replicas=9", "not 1 to 5"),
            ("nats://b?replica=3", "no option `replica`"),
            ("s3://", "the bucket is missing"),
            ("s3://b/prefix", "only a bucket"),
            ("s3://b?endpoint=minio:9000", "neither `http://`"),
            ("s3://key@b", "write credentials as"),
            ("s3://b?public=minio:9000", "neither `http://`"),
        ] {
            let error = text.parse::<StoreUrl>().expect_err("refused").to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let error = "s3://key:secret@b?x=1".parse::<StoreUrl>().expect_err("refused").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
