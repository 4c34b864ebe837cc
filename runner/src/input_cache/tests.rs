use std::io::{Read as _, Seek as _, Write as _};

use store::Files;

use super::*;

/// A store in a directory, and a cache below a work directory.
struct Yard {
    dir: tempfile::TempDir,
    files: Files,
    staged: AtomicU64,
}

impl Yard {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let url = format!("file://{}", dir.path().join("store").display());
        let files = Files::open(&url.parse().expect("a store"), None).await.expect("a store");
        Self {
            dir,
            files,
            staged: AtomicU64::new(0),
        }
    }

    /// A runner that starts.
    fn cache(&self, max_bytes: u64) -> InputCache {
        InputCache::below(self.dir.path(), max_bytes).expect("a cache")
    }

    async fn stored(&self, content: &str) -> Digest {
        self.files.put_bytes(content.to_owned().into()).await.expect("it is stored")
    }

    fn is_lost_to_store(&self, digest: &Digest) {
        let path = self.dir.path().join("store").join(Files::key(digest).as_ref());
        fs::remove_file(path).expect("it was stored");
    }

    /// Lays a content where nothing is, for a job.
    fn lay(&self, cache: &InputCache, digest: &Digest) -> Option<File> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("staged-{number}"));
        let file = cache.lay(digest, &path, &Stop::default()).expect("the disk works");
        assert_eq!(path.exists(), file.is_some(), "nothing stands where nothing was staged");
        file
    }

    fn text(&self, cache: &InputCache, digest: &Digest) -> Option<String> {
        let mut file = self.lay(cache, digest)?;
        file.rewind().expect("a file");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("a text");
        Some(text)
    }

    /// Has a content kept.
    async fn keep(&self, cache: &InputCache, content: &str) -> Digest {
        let digest = self.stored(content).await;
        assert_eq!(self.text(cache, &digest), None, "it is not there yet");
        let fetched = cache.fetch(&self.files, &digest, content.len() as u64).await.expect("it is stored");
        fetched.expect("it fits").admit();
        digest
    }
}

/// Uses were at different times.
fn tick() {
    let now = now_ms();
    while now_ms() == now {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_cached_input_needs_no_store_also_after_a_restart() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    let digest = yard.keep(&cache, "content").await;
    yard.is_lost_to_store(&digest);
    assert_eq!(yard.text(&cache, &digest).as_deref(), Some("content"));
    let cache = yard.cache(1 << 20);
    for _ in 0..3 {
        assert_eq!(yard.text(&cache, &digest).as_deref(), Some("content"));
    }
}

#[tokio::test]
async fn a_job_that_rewrites_its_file_changes_no_others() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    let digest = yard.keep(&cache, "content").await;
    let kept = fs::metadata(cache.path(&digest)).expect("it is kept");
    for _ in 0..2 {
        let mut file = yard.lay(&cache, &digest).expect("it is kept");
        let staged = file.metadata().expect("a status");
        assert!(staged.ino() != kept.ino() && staged.nlink() == 1, "it is the job's alone");
        file.rewind().expect("a file");
        file.write_all(b"CHANGED").expect("a file");
        file.set_permissions(fs::Permissions::from_mode(0o777)).expect("rights");
    }
    assert_eq!(yard.text(&cache, &digest).as_deref(), Some("content"));
    assert_eq!(fs::metadata(&cache.0.base).expect("a directory").mode() & 0o777, 0o700);
}

/// Changes a byte, with the size and the time that the file had.
fn flip(path: &Path) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).expect("it is kept");
    let before = file.metadata().and_then(|status| status.modified()).expect("a time");
    file.write_all(b"C").expect("a file");
    file.set_modified(before).expect("a time");
}

#[tokio::test]
async fn a_flipped_byte_is_noticed_and_the_content_fetched_again() {
    let yard = Yard::new().await;
    let mut cache = yard.cache(1 << 20);
    let digest = yard.keep(&cache, "content").await;
    for is_new_runner in [false, true] {
        assert_eq!(yard.text(&cache, &digest).as_deref(), Some("content"));
        // The kernel's clock moves in ticks.
        let at = fs::metadata(cache.path(&digest))
            .map(|status| Version::of(&status))
            .expect("it is kept");
        while fs::metadata(cache.path(&digest))
            .map(|status| Version::of(&status))
            .expect("it is kept")
            == at
        {
            flip(&cache.path(&digest));
        }
        if is_new_runner {
            cache = yard.cache(1 << 20);
        }
        assert_eq!(yard.text(&cache, &digest), None);
        assert!(!cache.path(&digest).exists(), "it is of no use");
        let fetched = cache.fetch(&yard.files, &digest, 7).await.expect("it is stored");
        fetched.expect("it fits").admit();
    }
    assert_eq!(yard.text(&cache, &digest).as_deref(), Some("content"));
}

/// Hundreds of workers on one disk, as on a laptop that tries a large grid, must not make 256 directories each.
#[tokio::test]
async fn a_worker_that_keeps_nothing_yet_makes_no_directories() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    (0..=u8::MAX).for_each(|number| drop(cache.shard(number)));
    let made = |cache: &InputCache| fs::read_dir(&cache.0.base).expect("a directory").count();
    assert_eq!(made(&cache), 0);
    yard.keep(&cache, "content").await;
    assert_eq!(made(&cache), 1);
}

#[tokio::test]
async fn a_partly_fetched_input_of_a_killed_runner_is_not_used() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    let (whole, torn) = (yard.keep(&cache, "whole").await, yard.keep(&cache, "torn").await);
    // A power cut keeps names of what it does not keep.
    fs::write(cache.path(&torn), "").expect("a file");
    let half = cache.dir(whole.as_bytes()[0]).join(".rgrid-half");
    fs::write(&half, "who").expect("a file");
    let link = cache
        .dir(whole.as_bytes()[0])
        .join(format!("{:02x}{}", whole.as_bytes()[0], "0".repeat(62)));
    std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
    let cache = yard.cache(1 << 20);
    assert_eq!(yard.text(&cache, &whole).as_deref(), Some("whole"));
    assert_eq!(yard.text(&cache, &torn), None);
    assert!(!half.exists() && link.symlink_metadata().is_err());
    assert_eq!(cache.0.counted.load(Ordering::Relaxed), LEAST);
}

#[tokio::test]
async fn the_cache_keeps_its_limit_and_evicts_the_least_recently_used() {
    let yard = Yard::new().await;
    let cache = yard.cache(4 * LEAST);
    let mut kept = Vec::new();
    for content in ["a", "b", "c"] {
        kept.push(yard.keep(&cache, content).await);
        tick();
    }
    assert_eq!(yard.text(&cache, &kept[0]).as_deref(), Some("a"), "used again");
    tick();
    kept.push(yard.keep(&cache, "d").await);
    tick();
    kept.push(yard.keep(&cache, "e").await);
    let there = |cache: &InputCache| kept.iter().map(|digest| cache.path(digest).exists()).collect::<Vec<_>>();
    assert_eq!(there(&cache), [true, false, false, true, true]);
    assert!(cache.0.counted.load(Ordering::Relaxed) <= 4 * LEAST);
    let huge = yard.stored(&"x".repeat(5 << 14)).await;
    let fetched = cache.fetch(&yard.files, &huge, 5 << 14).await.expect("it is stored");
    assert!(fetched.is_none(), "it is larger than all that fits");
    assert_eq!(there(&cache), [true, false, false, true, true], "and costs no other its place");
    // The next runner, which may keep less, knows which was used last.
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::open(cache.path(&kept[3]))
        .and_then(|file| file.set_modified(old))
        .expect("a time");
    let next = yard.cache(2 * LEAST);
    next.trim_to(2 * LEAST);
    assert_eq!(there(&next), [true, false, false, false, true]);
    let none = yard.cache(0);
    none.trim_to(0);
    assert_eq!(there(&none), [false; 5]);
}

#[tokio::test]
async fn a_use_after_a_long_time_is_noted_for_the_next_runner_and_proves_as_much_as_before() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    let digest = yard.keep(&cache, "content").await;
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::open(cache.path(&digest))
        .and_then(|file| file.set_modified(old))
        .expect("a time");
    let cache = yard.cache(1 << 20);
    assert!(yard.lay(&cache, &digest).is_some());
    let noted = fs::metadata(cache.path(&digest))
        .and_then(|status| status.modified())
        .expect("a time");
    assert!(noted > old + Duration::from_secs(1800));
    let (_, _, proven) = cache.open(&digest).expect("it is kept");
    assert_eq!(proven, cache.0.telling);
}

#[tokio::test]
async fn jobs_that_want_the_same_at_once_fetch_it_once() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    let digest = yard.stored("content").await;
    assert_eq!(yard.text(&cache, &digest), None);
    let first = cache.fetch(&yard.files, &digest, 7).await.expect("it is stored").expect("it fits");
    let second = cache.fetch(&yard.files, &digest, 7);
    tokio::pin!(second);
    assert!(futures::poll!(&mut second).is_pending(), "it waits for the first");
    yard.is_lost_to_store(&digest);
    first.admit();
    assert!(second.await.expect("the store is not asked").is_some());
    assert!(cache.0.flights.lock().is_empty());
}

#[tokio::test]
async fn a_job_waits_only_once_for_another_jobs_fetch() {
    let yard = Yard::new().await;
    let cache = yard.cache(1 << 20);
    let digest = Digest::of(b"nowhere");
    assert_eq!(yard.text(&cache, &digest), None);
    let mut flight = cache.turn(&digest).await.expect("nobody else wants it");
    let waiting = cache.fetch(&yard.files, &digest, 7);
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    flight.failed();
    drop(flight);
    assert!(waiting.await.expect("the store is not asked").is_none());
    assert!(cache.fetch(&yard.files, &digest, 7).await.is_err(), "later jobs ask the store");
    assert!(cache.0.flights.lock().is_empty());
}

#[test]
fn the_cache_leaves_as_much_disk_free_as_it_uses() {
    assert_eq!(limit(100, 1000, 0), 100);
    assert_eq!(limit(100, 60, 40), 50);
    assert_eq!(limit(100, 0, 40), 20);
    assert_eq!(limit(0, 1000, 40), 0);
}

#[test]
fn a_link_is_not_used_as_a_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("elsewhere")).expect("a directory");
    std::os::unix::fs::symlink("elsewhere", dir.path().join("inputs")).expect("a link");
    assert!(InputCache::below(dir.path(), 1).is_err());
}
