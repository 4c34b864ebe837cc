use super::*;

const NAME: &str = "collector/thing";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Says {
    sequence: u64,
}

fn written(sequence: u64, key: &str) -> Vec<u8> {
    let body = b"what it\nholds".to_vec();
    sign(&Says { sequence }, body, NAME, Key::new(key)).expect("JSON").concat()
}

fn read(bytes: &[u8], key: &str) -> Result<(Says, Bytes), Error> {
    verify(&Bytes::copy_from_slice(bytes), NAME, Key::new(key))
}

#[test]
fn what_was_signed_is_read_and_what_was_changed_is_not() {
    let bytes = written(7, "key");
    let (says, body) = read(&bytes, "key").expect("it is whole");
    assert_eq!((says.sequence, &body[..]), (7, &b"what it\nholds"[..]));
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(read(&changed, "key").is_err(), "byte {place} is another one");
        assert!(read(&bytes[..place], "key").is_err(), "it ends at byte {place}");
    }
    assert!(matches!(read(&[&bytes[..], b"x"].concat(), "key"), Err(Error::Unsigned)));
    assert!(matches!(read(&bytes, "another key"), Err(Error::Unsigned)));
    let elsewhere = verify::<Says>(&bytes.into(), "collector/other", Key::new("key"));
    assert!(matches!(elsewhere, Err(Error::Unsigned)), "in the place of another object");
}

#[test]
fn the_signature_of_one_is_none_of_another() {
    let cut = |bytes: &[u8]| bytes.splitn(3, |byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (mine, later) = (cut(&written(7, "key")), cut(&written(9, "another key")));
    for (head, signature, body) in [(&later[0], &mine[1], &mine[2]), (&mine[0], &mine[1], &later[2][..1].to_vec())] {
        let mixed = [&head[..], b"\n", signature, b"\n", body].concat();
        assert!(matches!(read(&mixed, "key"), Err(Error::Unsigned)));
    }
}

#[test]
fn another_programs_object_is_not_used() {
    let head = format!(r#"{{"program":"{}"}}"#, Digest::of(b"another one")).into_bytes();
    let signature = hex::encode(signing(&head, b"x", NAME, Key::new("key")).finalize().into_bytes());
    let bytes = [&head[..], b"\n", signature.as_bytes(), b"\nx"].concat();
    assert!(matches!(read(&bytes, "key"), Err(Error::Program)));
}
