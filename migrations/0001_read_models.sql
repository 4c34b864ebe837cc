-- The read models: a fold of RGRID_EVENTS, written by the projector alone. Dropped and rebuilt (`rgrid projector rebuild`),
-- they come out identical, row for row, all but worker_heartbeats, which is a cache.
--
-- No names are qualified: a rebuild makes the same tables in a schema of its own, then swaps. No foreign keys between
-- jobs, attempts and artifacts: one transaction of one writer keeps them consistent, and a check per row would cost
-- more than the row.

CREATE TABLE jobs (
    id                  uuid PRIMARY KEY,
    -- The sequence of job.submitted: the order of lists (newest first), and their cursor.
    submitted_sequence  bigint NOT NULL,
    -- The sequence of its last event.
    sequence            bigint NOT NULL,
    namespace           text NOT NULL,
    queue               text NOT NULL,
    -- What lists call it: spec.name, else the command's first word.
    name                text NOT NULL,
    -- queued, claimed, running, succeeded, failed, timed_out, out_of_memory, cancelled, dead
    state               text NOT NULL,
    -- The state where it ended other than well, else null. See the index.
    failure             text,
    -- Null where there are none.
    labels              jsonb,
    -- The whole JobSpec, as it was submitted. `json`: kept as text, which costs the least to write.
    spec                json NOT NULL,
    submitted_at        timestamptz NOT NULL,
    -- When the command of its last attempt started.
    started_at          timestamptz,
    ended_at            timestamptz,
    cancel_requested_at timestamptz,
    cancel_reason       text,
    -- The number of its last attempt; 0 before the first.
    attempt             integer NOT NULL DEFAULT 0,
    -- Who made its last attempt.
    worker              text,
    -- The exit code that stands for its end in a shell; null while it lives, and for a dead one.
    exit_code           integer,
    -- How it ended: an Outcome ({"kind":"failed","exit_code":3}), {"kind":"cancelled"}, or {"kind":"lost","cause":{…}} for a dead one.
    outcome             json
) WITH (fillfactor = 75);

-- `state` stands in no index, and in no predicate of one: an update that touches no indexed column is heap-only and costs a third.
CREATE INDEX jobs_newest ON jobs (namespace, submitted_sequence DESC);
CREATE INDEX jobs_queue ON jobs (namespace, queue, submitted_sequence DESC);
-- For state=queued|claimed|running: `ended_at IS NULL AND state = …`.
CREATE INDEX jobs_live ON jobs (namespace, submitted_sequence DESC) WHERE ended_at IS NULL;
-- For every end but succeeded, which is what lists are full of anyway: `failure = …`.
CREATE INDEX jobs_failed ON jobs (namespace, failure, submitted_sequence DESC) WHERE failure IS NOT NULL;
-- For label=k=v: `labels @> '{"k":"v"}'`.
CREATE INDEX jobs_labels ON jobs USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;

CREATE TABLE attempts (
    job_id          uuid NOT NULL,
    number          integer NOT NULL,
    worker          text NOT NULL,
    session         uuid NOT NULL,
    -- docker, process, noop
    executor        text,
    -- The image and its digest, or the interpreter's path.
    environment     text,
    claimed_at      timestamptz NOT NULL,
    started_at      timestamptz,
    ended_at        timestamptz,
    -- As jobs.outcome, and {"kind":"lost","cause":{…}} for every attempt that was given up.
    outcome         json,
    wall_ms         bigint,
    cpu_ms          bigint,
    memory_bytes    bigint,
    -- The manifest that was committed: its SHA-256 (32 bytes), and what it adds up to.
    manifest_sha256 bytea,
    files           bigint,
    bytes           bigint,
    stdout_bytes    bigint,
    stderr_bytes    bigint,
    PRIMARY KEY (job_id, number)
) WITH (fillfactor = 85);

-- The output files of committed attempts. Keyed by their place in the manifest: a path may be longer than an index takes.
CREATE TABLE artifacts (
    job_id      uuid NOT NULL,
    attempt     integer NOT NULL,
    position    integer NOT NULL,
    path        text NOT NULL,
    sha256      bytea NOT NULL,
    size        bigint NOT NULL,
    executable  boolean NOT NULL,
    PRIMARY KEY (job_id, attempt, position)
);

CREATE TABLE workers (
    id              text PRIMARY KEY,
    -- Its last session.
    session         uuid NOT NULL,
    -- live, lost, left
    state           text NOT NULL,
    cpu_milli       bigint NOT NULL,
    memory_bytes    bigint NOT NULL,
    queues          text[] NOT NULL,
    executors       text[] NOT NULL,
    labels          jsonb NOT NULL,
    versions        jsonb NOT NULL,
    host            text NOT NULL,
    pid             bigint NOT NULL,
    registered_at   timestamptz NOT NULL,
    -- When the session was lost or left.
    ended_at        timestamptz,
    -- The sequence of its last event.
    sequence        bigint NOT NULL
);

-- Each worker's last beat, at most a second old: a cache of RGRID_PRESENCE. Nothing depends on it.
CREATE TABLE worker_heartbeats (
    worker              text PRIMARY KEY REFERENCES workers (id) ON DELETE CASCADE,
    session             uuid NOT NULL,
    -- When the broker stored it: one clock for every worker.
    last_beat           timestamptz NOT NULL,
    cpu_milli_free      bigint NOT NULL,
    memory_bytes_free   bigint NOT NULL,
    load                real NOT NULL,
    -- What it is executing: [["<job>", <attempt>], …]
    attempts            json NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX idx_heartbeats_last ON worker_heartbeats (last_beat);

-- How far the log is folded. Written in the same transaction as the rows, and only from the sequence that the writer
-- believes in: two projectors can never both write.
CREATE TABLE projection_checkpoint (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence    bigint NOT NULL,
    -- Counted up by a rebuild, so that a running projector forgets what it remembers of the old tables.
    generation  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

INSERT INTO projection_checkpoint (sequence) VALUES (0);

-- What could not be folded: set aside, so that it never stops the projector, and kept to be looked at.
CREATE TABLE projection_skipped (
    sequence    bigint PRIMARY KEY,
    subject     text NOT NULL,
    reason      text NOT NULL
);
