use std::io::Write as _;

use super::*;

const GZIP: &[u8] = &[0x1f, 0x8b];

/// A member of a test's archive: its path as it stands in the header, its kind, what it links to, its content.
type Raw<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

fn file<'a>(path: &'a str, content: &'a [u8]) -> Raw<'a> {
    (path, EntryType::Regular, "", content)
}

fn archive(members: &[Raw<'_>]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, link, content) in members {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, *content).expect("memory");
    }
    tar.into_inner().expect("memory")
}

fn id(config: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(config);
    format!("sha256:{}", Digest::finish(hasher))
}

/// What Docker would get of the image whose configuration is `{}`.
fn made_anew(archive: &[u8], bytes_max: u64) -> io::Result<Vec<(String, Vec<u8>)>> {
    let plan = Survey::of(archive, bytes_max)?.plan(&id(b"{}"))?;
    let mut out = Vec::new();
    plan.write(archive, &mut out)?;
    let mut files = Vec::new();
    for entry in tar::Archive::new(&out[..]).entries()? {
        let mut entry = entry?;
        assert_eq!(entry.header().entry_type(), EntryType::Regular);
        let (path, mut content) = (entry.path()?.to_string_lossy().into_owned(), Vec::new());
        entry.read_to_end(&mut content)?;
        files.push((path, content));
    }
    Ok(files)
}

fn refused(archive: &[u8]) -> String {
    made_anew(archive, 1 << 20).expect_err("refused").to_string()
}

const SAVED: &[u8] = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["1/layer.tar","2/layer.tar"]}]"#;

#[test]
fn docker_gets_the_image_s_own_files_and_no_name() -> io::Result<()> {
    let honest = archive(&[
        ("1/", EntryType::Directory, "", b""),
        file("1/layer.tar", b"first"),
        ("2/layer.tar", EntryType::Symlink, "../1/layer.tar", b""),
        file("2/VERSION", b"1.0"),
        file("c.json", b"{}"),
        file("repositories", br#"{"b":{"2":"id"}}"#),
        file("index.json", b"{}"),
        ("x", EntryType::Link, "manifest.json", b""),
        file("./manifest.json", SAVED),
    ]);
    let files = made_anew(&honest, 1 << 20)?;
    let manifest = br#"[{"Config":"config.json","Layers":["layer-1.tar","layer-1.tar"],"RepoTags":null}]"#;
    let expected = [("manifest.json", &manifest[..]), ("layer-1.tar", b"first"), ("config.json", b"{}")];
    assert_eq!(files, expected.map(|(path, content)| (path.to_owned(), content.to_vec())));
    Ok(())
}

#[test]
fn a_path_that_programs_read_differently_is_refused() {
    let pax = |line: &str| format!("{} {line}\n", line.len() + 4).into_bytes();
    let whole = [
        file("c.json", b"{}"),
        file("1/layer.tar", b"1"),
        file("2/layer.tar", b"2"),
        file("manifest.json", SAVED),
    ];
    let with = |more: &[Raw<'_>]| refused(&archive(&[&whole[..], more].concat()));
    for path in [
        "/manifest.json",
        "x/../manifest.json",
        "x//y",
        "a/./b",
        "..",
        "a\\b",
        "a\nb",
        "manifest.json/",
    ] {
        let said = with(&[file(path, b"[]")]);
        assert!(said.starts_with("it has the path `"), "{path}: {said}");
    }
    for kind in [EntryType::Regular, EntryType::Symlink] {
        let said = with(&[("manifest.json", kind, "x", b"")]);
        assert_eq!(said, "it holds `manifest.json` twice", "{kind:?}");
    }
    let long = [("L", EntryType::GNULongName, "", &b"manifest.json\0"[..]), file("x", b"[]")];
    assert_eq!(with(&long), "it holds `manifest.json` twice");
    let record = pax("path=manifest.json");
    assert_eq!(
        with(&[("p", EntryType::XHeader, "", &record), file("x", b"[]")]),
        "it holds `manifest.json` twice"
    );
    assert!(with(&[("g", EntryType::XGlobalHeader, "", &record)]).contains("for all that follows"));
}

#[test]
fn what_an_image_needs_is_a_file_of_the_archive() {
    for (layer, words) in [
        (
            ("2/layer.tar", EntryType::Link, "1/layer.tar", &b""[..]),
            "it lacks the file `2/layer.tar`",
        ),
        (
            ("2/layer.tar", EntryType::Symlink, "../../etc/passwd", b""),
            "it lacks the file `2/layer.tar`",
        ),
        (("2/layer.tar", EntryType::Symlink, "/1/layer.tar", b""), "it lacks the file"),
        (("2/layer.tar", EntryType::GNUSparse, "", b""), "it lacks the file"),
    ] {
        let said = refused(&archive(&[
            file("c.json", b"{}"),
            file("1/layer.tar", b"1"),
            layer,
            file("manifest.json", SAVED),
        ]));
        assert!(said.contains(words), "{said}");
    }
    let other = archive(&[file("c.json", b"{ }"), file("manifest.json", SAVED)]);
    assert_eq!(refused(&other), "it does not hold that image");
    assert!(refused(&archive(&[file("c.json", b"{}")])).contains("no manifest.json"));
    assert!(refused(&archive(&[file("manifest.json", b"{")])).contains("manifest.json cannot be read"));
}

#[test]
fn an_archive_is_read_in_bounded_memory_and_to_a_bounded_size() -> io::Result<()> {
    let long = vec![b'a'; 1 << 20];
    assert!(refused(&archive(&[("L", EntryType::GNULongName, "", &long)])).contains("longer than 65536 bytes"));
    assert!(refused(&archive(&[("x", EntryType::XHeader, "", &long)])).contains("longer than 65536 bytes"));
    let spaces = vec![b' '; 5 << 20];
    let listed = archive(&[file("manifest.json", &spaces)]);
    assert!(
        Survey::of(&listed[..], u64::MAX)
            .expect_err("refused")
            .to_string()
            .contains("longer than")
    );
    let many: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    let many: Vec<_> = many.iter().map(|path| file(path, b"")).collect();
    assert!(refused(&archive(&many)).contains("more than 10000 members"));

    let (zeros, mut packed) = (
        vec![0; 2 << 20],
        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()),
    );
    packed.write_all(&zeros)?;
    let packed = packed.finish()?;
    assert!(packed.starts_with(GZIP));
    let whole = |layer: &[u8]| {
        archive(&[
            file("c.json", b"{}"),
            file("1/layer.tar", layer),
            file("2/layer.tar", b"2"),
            file("manifest.json", SAVED),
        ])
    };
    for layer in [&zeros, &packed, &zstd::encode_all(&zeros[..], 1)?] {
        assert!(refused(&whole(layer)).contains("far more than was announced"));
        assert!(made_anew(&whole(layer), 3 << 20).is_ok());
    }
    Ok(())
}

#[test]
fn a_damaged_archive_is_refused() {
    let whole = archive(&[file("c.json", b"{}"), file("manifest.json", SAVED)]);
    assert_eq!(
        Survey::of(&whole[..700], 1 << 20).expect_err("cut").kind(),
        io::ErrorKind::UnexpectedEof
    );
    let mut changed = whole;
    changed[3] ^= 1;
    assert_eq!(refused(&changed), "a header of it is damaged");
}
