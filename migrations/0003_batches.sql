-- Batches: jobs that were submitted together. How many of its members stand where is counted from `jobs`.

ALTER TABLE jobs ADD COLUMN batch_id uuid;
-- Its place in the batch, from 0.
ALTER TABLE jobs ADD COLUMN batch_index integer;
CREATE INDEX jobs_batch ON jobs (batch_id, batch_index) WHERE batch_id IS NOT NULL;

CREATE TABLE batches (
    id                  uuid PRIMARY KEY,
    namespace           text NOT NULL,
    -- The sequence of batch.submitted: the order of lists (newest first), and their cursor.
    submitted_sequence  bigint NOT NULL,
    name                text NOT NULL,
    total               integer NOT NULL,
    -- How many may be ready, claimed or running at once; null: not limited.
    parallel            integer,
    -- With so many failures it is stopped; null: never.
    max_failures        integer,
    fail_fast           boolean NOT NULL,
    -- The batch whose members it tries again.
    retry_of            uuid,
    submitted_at        timestamptz NOT NULL,
    -- When all of its members were in the log; null: they are not.
    sealed_at           timestamptz,
    -- When too many had failed.
    stopped_at          timestamptz,
    -- When a user ended it, and what they said.
    cancelled_at        timestamptz,
    cancel_reason       text
);

CREATE INDEX batches_newest ON batches (namespace, submitted_sequence DESC);
