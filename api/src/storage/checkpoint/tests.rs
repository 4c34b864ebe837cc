use super::*;

fn header() -> Header {
    Header {
        program: *PROGRAM,
        at: Utc::now(),
        log_made: "1".to_owned(),
        sequence: 7,
        event: Digest::of(b"an event"),
    }
}

fn written(header: &Header, key: &str) -> Vec<u8> {
    let mut fold = Fold::default();
    let content = format!("{{\"x\":\"{}\"}}", Digest::of(b"needed"));
    fold.take("rgrid.evt.sys.thing.a", 1, content.as_bytes(), Utc::now());
    packed(&fold, header, Key::new(key)).expect("memory").concat()
}

fn read(bytes: &[u8], key: &str) -> Result<(Header, Fold), Error> {
    let (header, body) = opened(&Bytes::copy_from_slice(bytes), Key::new(key))?;
    Ok((header, unpacked(&body)?))
}

#[test]
fn what_was_signed_is_read_and_what_was_changed_is_not() {
    let (header, bytes) = (header(), written(&header(), "key"));
    let (found, fold) = read(&bytes, "key").expect("it is whole");
    assert_eq!((found.sequence, found.event), (header.sequence, header.event));
    assert_eq!(fold.named().collect::<Vec<_>>(), [Digest::of(b"needed")]);
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(read(&changed, "key").is_err(), "byte {place} is another one");
        assert!(read(&bytes[..place], "key").is_err(), "it ends at byte {place}");
    }
    assert!(matches!(read(&[&bytes[..], b"x"].concat(), "key"), Err(Error::Unsigned)));
    assert!(matches!(read(&bytes, "another key"), Err(Error::Unsigned)));
}

#[test]
fn the_signature_of_one_is_none_of_another() {
    let cut = |bytes: &[u8]| {
        let lines: Vec<Vec<u8>> = bytes.splitn(3, |byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines
    };
    let mine = cut(&written(&header(), "key"));
    let later = Header { sequence: 9, ..header() };
    let theirs = cut(&written(&later, "another key"));
    for (head, signature, body) in [(&theirs[0], &mine[1], &mine[2]), (&mine[0], &mine[1], &theirs[2][..1].to_vec())] {
        let mixed = [&head[..], b"\n", signature, b"\n", body].concat();
        assert!(matches!(read(&mixed, "key"), Err(Error::Unsigned)));
    }
}

#[test]
fn another_programs_checkpoint_is_not_used() {
    let other = Header {
        program: Digest::of(b"another one"),
        ..header()
    };
    assert!(matches!(read(&written(&other, "key"), "key"), Err(Error::Program)));
}
