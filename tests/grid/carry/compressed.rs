//! Files that travel compressed: smaller on their way, and the same at its end.

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::grid::{Grid, Part};
use rand::RngCore as _;
use reqwest::{Method, Response, header};

use crate::cli::here::{Came, Here};

/// A table that shrinks, and noise that does not.
fn contents() -> (Vec<u8>, Vec<u8>) {
    let table: String = (0..60_000).map(|n| format!("{n},Zürich,{}\n", n % 7)).collect();
    let mut noise = vec![0; 300_000];
    rand::rng().fill_bytes(&mut noise);
    (table.into_bytes(), noise)
}

#[tokio::test]
async fn what_travels_compressed_arrives_as_it_was() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let (table, noise) = contents();
    here.write("table.csv", &table)?
        .write("noise.bin", &noise)?
        .write("small.txt", "small")?;
    here.write(
        "copy.py",
        "import shutil, sys\nfor name in sys.argv[1:]:\n    shutil.copy(name, 'out-' + name)\nopen('empty', 'w')\n",
    )?;
    let rgrid = |words: &[&str]| -> Result<Came> { Ok(here.command(words).env("RGRID_COMPRESS", "true").output()?.into()) };
    let came = rgrid(&["run", "copy.py", "table.csv", "noise.bin", "small.txt"])?;
    ensure!(came.code == 0, "{}", came.err());
    for (name, content) in [("table.csv", &table[..]), ("noise.bin", &noise), ("small.txt", b"small")] {
        ensure!(here.read(&format!("out-{name}"))? == content, "{name}");
    }
    ensure!(here.read("empty")?.is_empty());
    let came = rgrid(&["run", "--verbose", "copy.py", "table.csv", "noise.bin", "small.txt"])?;
    ensure!(came.err().contains("4 files, 4 already there; 0 B sent"), "{}", came.err());
    Ok(())
}

async fn put(grid: &Grid, digest: Digest, body: &[u8], headers: &[(&str, String)]) -> Result<Response> {
    let mut request = grid.request(Method::PUT, &format!("files/{digest}")).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    Ok(request.send().await?)
}

#[tokio::test]
async fn a_compressed_body_is_what_it_says_or_refused() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api]).await?;
    let (table, _) = contents();
    let (digest, small) = (Digest::of(&table), zstd::encode_all(&table[..], 3)?);
    let coding = |name: &str| ("content-encoding", name.to_owned());
    let length = |bytes: usize| ("rgrid-content-length", bytes.to_string());
    for (body, headers, status, words) in [
        (&small[..], vec![coding("zstd")], 411, "Rgrid-Content-Length"),
        (&small[..], vec![coding("br"), length(table.len())], 400, "`br` is not supported"),
        (b"no zstd", vec![coding("zstd"), length(table.len())], 400, "nothing was stored"),
        // A bomb is stopped where it exceeds what it said.
        (&small[..], vec![coding("zstd"), length(1000)], 422, "nothing was stored"),
        (
            &small[..small.len() / 2],
            vec![coding("zstd"), length(table.len())],
            400,
            "nothing was stored",
        ),
    ] {
        let answer = put(&grid, digest, body, &headers).await?;
        let (came, text) = (answer.status().as_u16(), answer.text().await?);
        ensure!(came == status && text.contains(words), "{headers:?}: {came} {text}");
        let there = grid.request(Method::HEAD, &format!("files/{digest}")).send().await?;
        assert_eq!(there.status().as_u16(), 404, "nothing was stored");
    }
    let answer = put(&grid, digest, &small, &[coding("zstd"), length(table.len())]).await?;
    assert_eq!(answer.status().as_u16(), 201);
    let whole = grid.request(Method::GET, &format!("files/{digest}")).send().await?;
    ensure!(whole.bytes().await? == table, "what was compressed");
    Ok(())
}

#[tokio::test]
async fn an_answer_is_compressed_for_whom_that_pays() -> Result<()> {
    let grid = Grid::start_only(&[Part::Api]).await?;
    let (table, noise) = contents();
    for content in [&table, &noise] {
        let stored = put(&grid, Digest::of(content), content, &[]).await?;
        assert_eq!(stored.status().as_u16(), 201);
    }
    let ask = async |content: &[u8], accept: &str, range: Option<&str>| -> Result<(bool, Vec<u8>)> {
        let path = format!("files/{}", Digest::of(content));
        let mut request = grid.request(Method::GET, &path).header(header::ACCEPT_ENCODING, accept);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let answer = request.send().await?;
        let coded = answer.headers().get(header::CONTENT_ENCODING).is_some_and(|value| value == "zstd");
        Ok((coded, answer.bytes().await?.to_vec()))
    };
    let (coded, body) = ask(&table, "gzip, zstd;q=0.5", None).await?;
    ensure!(coded && body.len() < table.len() / 2, "{} of {} bytes", body.len(), table.len());
    ensure!(zstd::decode_all(&body[..])? == table);
    for (content, accept, range) in [
        (&noise, "zstd", None),
        (&table, "gzip", None),
        (&table, "zstd;q=0", None),
        (&table, "zstd", Some("bytes=10-")),
    ] {
        let (coded, body) = ask(content, accept, range).await?;
        let from = range.map_or(0, |_| 10);
        ensure!(!coded && body == content.get(from..).context("a part")?, "{accept} {range:?}");
    }
    Ok(())
}
