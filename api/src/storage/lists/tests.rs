use super::*;

/// A list of a number; every third is too large to be kept.
fn listed(n: u32) -> Listed {
    let name = |what: &str, m: u32| Digest::of(format!("{what} {n} {m}").as_bytes());
    let outputs = if n.is_multiple_of(3) { 9 } else { n % 3 };
    Listed(
        name("list", 0),
        vec![name("log", 0)],
        (0..outputs).map(|m| name("output", m)).collect(),
    )
}

fn sorted(numbers: impl Iterator<Item = u32>) -> Vec<Listed> {
    let mut all: Vec<Listed> = numbers.map(listed).collect();
    all.sort_by_key(|listed| listed.0);
    all
}

fn text(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut text = Text::begin().expect("memory");
    for listed in sorted(numbers) {
        text.add(&listed).expect("memory");
    }
    text.end().expect("memory")
}

fn lines(text: &[u8]) -> Vec<Listed> {
    Lines::of(text).expect("zstd").collect::<Result<_>>().expect("lines")
}

#[test]
fn small_lists_are_known_and_every_other_one_is_said_to_be_unknown() {
    let text = text((0..60).filter(|n| n % 2 == 0));
    let wanted: Vec<Wanted> = sorted(10..70).into_iter().map(|one| (one.0, true, JobId::new())).collect();
    let mut taken = Vec::new();
    let unknown = known(&wanted, Lines::of(&text).expect("zstd"), |listed, keeps| {
        assert!(keeps);
        taken.push(listed);
    });
    assert_eq!(taken, sorted((10..60).filter(|n| n % 2 == 0 && n % 3 != 0)));
    let unknown: Vec<Digest> = unknown.expect("it is whole").into_iter().map(|one| one.0).collect();
    let others = sorted((10..70).filter(|n| n % 2 == 1 || n % 3 == 0 || *n >= 60));
    assert_eq!(unknown, others.into_iter().map(|one| one.0).collect::<Vec<_>>());
}

#[test]
fn two_texts_become_one_in_order() {
    let (even, odd) = (text((0..50).filter(|n| n % 2 == 0)), text((0..70).filter(|n| n % 2 == 1)));
    let both = lines(&merged(&even, &odd).expect("both are whole"));
    assert_eq!(both, sorted((0..70).filter(|n| n % 3 != 0 && (*n < 50 || n % 2 == 1))));
    let none = text(0..0);
    assert_eq!(lines(&merged(&none, &odd).expect("whole")), lines(&odd));
    assert_eq!(lines(&merged(&odd, &none).expect("whole")), lines(&odd));
}

#[test]
fn a_text_that_ends_early_is_an_error_and_not_a_shorter_one() {
    let text = text(0..600);
    let cut = &text[..text.len() / 2];
    let wanted: Vec<Wanted> = sorted(0..600).into_iter().map(|one| (one.0, true, JobId::new())).collect();
    assert!(known(&wanted, Lines::of(cut).expect("zstd"), |_, _| {}).is_err());
    assert!(merged(cut, &text).is_err() && merged(&text, cut).is_err());
}
