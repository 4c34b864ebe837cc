//! Whatever is published and passed on by a server, the real client receives every message over one connection.

use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt as _;
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{
    Relay, UNDELIVERABLE,
    repair::{self, Announced, Defect},
    scan::{Replaced, Scanner},
};

const LONG: Duration = Duration::from_secs(20);

/// A message as a server would pass it on.
#[derive(Debug, Clone)]
struct Sent {
    subject: Vec<u8>,
    reply: Option<Vec<u8>>,
    header: Option<Vec<u8>>,
    payload: Vec<u8>,
}

impl Sent {
    fn with_header(header: &[u8]) -> Self {
        Self {
            subject: b"some.subject".to_vec(),
            reply: None,
            header: Some(header.to_vec()),
            payload: b"payload".to_vec(),
        }
    }

    fn frame(&self, subscription: &str) -> Vec<u8> {
        let mut line = self.subject.clone();
        line.extend(format!(" {subscription} ").into_bytes());
        if let Some(reply) = &self.reply {
            line.extend(reply);
            line.push(b' ');
        }
        let length = self.payload.len();
        let (verb, lengths, header) = match &self.header {
            None => ("MSG ", length.to_string(), &[][..]),
            Some(header) => ("HMSG ", format!("{} {}", header.len(), header.len() + length), &header[..]),
        };
        [verb.as_bytes(), &line, lengths.as_bytes(), b"\r\n", header, &self.payload, b"\r\n"].concat()
    }
}

/// A fake server: it sends its first line, sends the messages to the first subscription, and reports what is published.
async fn serve(listener: TcpListener, messages: Vec<Sent>, published: mpsc::UnboundedSender<String>) -> std::io::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        converse(connection, &messages, &published).await?;
    }
}

async fn converse(connection: TcpStream, messages: &[Sent], published: &mpsc::UnboundedSender<String>) -> std::io::Result<()> {
    let (from, mut to) = connection.into_split();
    let info = r#"INFO {"server_id":"x","server_name":"x","version":"2.15.1","go":"","host":"127.0.0.1","port":1,"headers":true,"max_payload":1048576,"proto":1,"client_id":1}"#;
    to.write_all(format!("{info}\r\n").as_bytes()).await?;
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "PING" {
            to.write_all(b"PONG\r\n").await?;
        } else if let Some(subscribed) = line.strip_prefix("SUB ") {
            let subscription = subscribed.rsplit(' ').next().unwrap_or_default();
            for message in messages {
                to.write_all(&message.frame(subscription)).await?;
            }
        } else if line.starts_with("PUB ") {
            published.send(line).ok();
        }
    }
    Ok(())
}

/// The messages that the real client receives, after a check that it can still publish over the same connection.
async fn received(messages: Vec<Sent>) -> anyhow::Result<Vec<async_nats::Message>> {
    let count = messages.len();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("nats://{}", listener.local_addr()?).parse()?;
    let (sender, mut published) = mpsc::unbounded_channel();
    let _serving = AbortOnDropHandle::new(TaskTracker::new().spawn(serve(listener, messages, sender)));
    let (relay, _replaced) = Relay::start(&[server]).await?;
    let client = async_nats::connect(relay.addresses[0].to_string()).await?;
    let subscription = client.subscribe("wanted").await?;
    let got = tokio::time::timeout(LONG, subscription.take(count).collect::<Vec<_>>()).await?;
    client.publish("afterwards", "".into()).await?;
    let published = tokio::time::timeout(LONG, published.recv()).await?;
    anyhow::ensure!(
        published.is_some_and(|line| line.starts_with("PUB afterwards")),
        "cannot publish any more"
    );
    let connects = client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed);
    anyhow::ensure!(connects == 1, "{connects} connections were needed");
    Ok(got)
}

fn reason(message: &async_nats::Message) -> Option<&str> {
    super::undeliverable(message.headers.as_ref())
}

/// Headers that published messages have had, or could have, with their defect.
fn headers() -> Vec<(&'static [u8], Option<Defect>)> {
    vec![
        (b"NATS/1.0\r\nX: y\r\n\r\n", None),
        ("NATS/1.0\r\nX: größer\r\n\r\n".as_bytes(), None),
        (b"NATS/1.0\r\nX: one\r\n two\r\n\r\n", None),
        (b"NATS/1.0\r\n\r\n", None),
        (b"NATS/1.0\r\nX: \xff\r\n\r\n", Some(Defect::NotText)),
        (b"NATS/1.0\r\n\xffX: y\r\n\r\n", Some(Defect::NotText)),
        (b"NATS/1.0\r\nX: a\rb\r\n\r\n", Some(Defect::CarriageReturn)),
        (b"NATS/1.0\r\nX: a\r\n b\rc\r\n\r\n", Some(Defect::CarriageReturn)),
        (b"NATS/1.0\r\nno colon\r\n\r\n", Some(Defect::Line)),
        (b"NATS/1.0\r\n above: nothing\r\n\r\n", Some(Defect::Name)),
        (b"NATS/1.0\r\nwhite space: y\r\n\r\n", Some(Defect::Name)),
        (b"NATS/1.0 nonsense\r\n\r\n", Some(Defect::Status)),
        (
            b"NATS/1.0 409 Consumer Deleted\r\nNats-Stream: S\r\nNats-Sequence: 1\r\n\r\n",
            Some(Defect::Status),
        ),
        (b"NATS/1.0 404 Message Not Found\r\n\r\n", None),
        (b"HTTP/1.1\r\n\r\n", Some(Defect::Version)),
        (b"\r\n", Some(Defect::Version)),
        (b"", Some(Defect::Version)),
    ]
}

#[tokio::test]
async fn every_malformed_header_is_named_and_closes_no_connection() -> anyhow::Result<()> {
    let sent = headers().into_iter().map(|(header, _)| Sent::with_header(header)).collect();
    let got = received(sent).await?;
    for (message, (header, defect)) in got.iter().zip(headers()) {
        let shown = header.escape_ascii();
        assert_eq!(reason(message), defect.map(|defect| defect.to_string()).as_deref(), "{shown}");
        // A replacement cannot be mistaken for an event.
        assert_eq!(message.payload.is_empty(), defect.is_some(), "{shown}");
        assert_eq!(message.subject.as_str(), "some.subject");
    }
    Ok(())
}

#[tokio::test]
async fn a_subject_that_is_not_text_is_made_readable() -> anyhow::Result<()> {
    let subjects: [&[u8]; 4] = [
        b"rgrid.evt.\xff",
        "rgrid.evt.a\u{a0}b".as_bytes(),
        b"rgrid.evt.\x0b",
        "rgrid.evt.ü".as_bytes(),
    ];
    let sent = subjects.into_iter().flat_map(|subject| {
        let mut message = Sent::with_header(b"NATS/1.0\r\n\r\n");
        message.subject = subject.to_vec();
        let bare = Sent {
            header: None,
            ..message.clone()
        };
        [message, bare]
    });
    let got = received(sent.collect()).await?;
    for pair in got[..6].iter() {
        assert!(
            pair.subject.starts_with("rgrid.evt.") && pair.subject.contains('\u{fffd}'),
            "{pair:?}"
        );
        assert_eq!(reason(pair), Some(Defect::Subject.to_string().as_str()));
    }
    for pair in got[6..].iter() {
        assert_eq!((pair.subject.as_str(), reason(pair)), ("rgrid.evt.ü", None));
    }
    Ok(())
}

#[test]
fn a_replacement_keeps_its_sequence_and_its_link() {
    let header = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 7\r\nX: \xff\r\nNats-Stream: RGRID_EVENTS\r\nNats-Sequence: 9\r\n\r\n";
    let line = format!("HMSG _INBOX.x 4 {0} {0}", header.len());
    let announced = Announced::read(line.as_bytes()).expect("a message");
    assert_eq!(repair::place(&announced, header), Some(("RGRID_EVENTS".to_owned(), 9)));
    let instead = String::from_utf8(repair::replacement(&announced, header, Defect::NotText)).expect("text");
    for kept in ["Nats-Expected-Last-Subject-Sequence: 7\r\n", "Nats-Sequence: 9\r\n", UNDELIVERABLE] {
        assert!(instead.contains(kept), "{instead}");
    }
    assert!(!instead.contains("X:"), "{instead}");
    for (reply, sequence) in [
        ("$JS.ACK.RGRID_INBOX.intake.1.12.3.1700000000000000000.0", 12),
        ("$JS.ACK.hub.ACCOUNT.RGRID_INBOX.intake.1.13.3.1700000000000000000.0.token", 13),
    ] {
        let line = format!("HMSG rgrid.submit.a.b 4 {reply} 0 0");
        let announced = Announced::read(line.as_bytes()).expect("a message");
        assert_eq!(repair::place(&announced, b""), Some(("RGRID_INBOX".to_owned(), sequence)));
    }
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    let unfit = |byte: &u8| !b" \t\r\n".contains(byte);
    prop_oneof![
        Just(b"rgrid.evt.default".to_vec()),
        Just(b"$JS.ACK.S.c.1.2.3.4.5".to_vec()),
        vec(any::<u8>().prop_filter("white space ends a word", unfit), 1..40),
        "\\PC{1,20}"
            .prop_map(String::into_bytes)
            .prop_filter("white space ends a word", move |text| text.iter().all(unfit)),
    ]
}

fn header() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b": ".to_vec()),
        Just(b" ".to_vec()),
        Just(b"Nats-Stream: S".to_vec()),
        Just(b"Name: value".to_vec()),
        Just("N\u{e9}: \u{2003}".as_bytes().to_vec()),
        Just(b" 404 gone".to_vec()),
        Just(b" 099".to_vec()),
        vec(any::<u8>(), 0..8),
    ];
    prop_oneof![
        vec(part, 0..10).prop_map(|parts| [b"NATS/1.0".to_vec(), parts.concat()].concat()),
        vec(any::<u8>(), 0..60),
    ]
}

fn message() -> impl Strategy<Value = Sent> {
    let payload = vec(any::<u8>(), 0..50);
    (word(), proptest::option::of(word()), proptest::option::of(header()), payload).prop_map(|(subject, reply, header, payload)| Sent {
        subject,
        reply,
        header,
        payload,
    })
}

/// Whether a message is passed on unchanged.
fn passes(sent: &Sent) -> bool {
    let frame = sent.frame("1");
    let end = memchr::memmem::find(&frame, b"\r\n").expect("a line");
    let announced = Announced::read(&frame[..end]).expect("a message");
    repair::defect(&announced, sent.header.as_deref().unwrap_or_default(), sent.header.is_some()).is_none()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_message_closes_the_clients_connection(messages in vec(message(), 1..24)) {
        let runtime = Runtime::new().expect("a runtime");
        let got = runtime.block_on(received(messages.clone()));
        let got = got.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        prop_assert_eq!(got.len(), messages.len());
        for (got, sent) in got.iter().zip(&messages) {
            if passes(sent) {
                prop_assert_eq!(got.subject.as_bytes(), &sent.subject[..]);
                prop_assert_eq!(&got.payload[..], &sent.payload[..]);
            } else {
                prop_assert!(reason(got).is_some());
            }
        }
    }

    #[test]
    fn the_points_at_which_the_bytes_are_cut_do_not_matter(messages in vec(message(), 0..12), cuts in vec(1_usize..50, 1..20)) {
        let whole: Vec<u8> = messages.iter().flat_map(|message| message.frame("7")).chain(*b"PING\r\n").collect();
        let mut at_once = BytesMut::from(&whole[..]);
        let (mut scanner, mut replaced) = (Scanner::default(), Vec::new());
        let expected = scanner.scan(&mut at_once, &mut replaced).map_err(|error| TestCaseError::fail(error.to_string()))?.concat();
        prop_assert!(at_once.is_empty());

        let (mut scanner, mut in_parts, mut buffer, mut rest) = (Scanner::default(), Vec::<Replaced>::new(), BytesMut::new(), &whole[..]);
        let mut found = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, behind) = rest.split_at((*cut).min(rest.len()));
            buffer.extend_from_slice(part);
            rest = behind;
            found.extend(scanner.scan(&mut buffer, &mut in_parts).map_err(|error| TestCaseError::fail(error.to_string()))?.concat());
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(in_parts, replaced);
    }

    #[test]
    fn bytes_that_no_server_sends_end_without_a_panic(bytes in vec(any::<u8>(), 0..200), prefix in prop_oneof![Just("HMSG "), Just("MSG "), Just("")]) {
        let mut input = BytesMut::from(&[prefix.as_bytes(), &bytes[..], b"\r\n"].concat()[..]);
        let _garbled_or_not = Scanner::default().scan(&mut input, &mut Vec::new());
    }
}
