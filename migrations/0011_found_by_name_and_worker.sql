-- Lists by name and by worker that do not read every job, and lists of what lives that do not read what has ended.
--
-- The indexes are not built CONCURRENTLY: that cannot be done in a transaction, nor in a schema that is being rebuilt. Building them
-- holds up writing alone, and who writes is the projector, which waits for this anyway. The new column has the table written anew
-- (some seconds for a million jobs), and lists wait for that once.

-- The worker of a job that has ended. Of one that lives, `worker` changes with each attempt: an index on that would make every claim
-- cost a third more (see 0001), and those that live are few. An update that leaves this null touches no index.
ALTER TABLE jobs ADD COLUMN ended_on text GENERATED ALWAYS AS (CASE WHEN ended_at IS NOT NULL THEN worker END) STORED;
CREATE INDEX jobs_worker ON jobs (namespace, ended_on, submitted_sequence DESC) WHERE ended_on IS NOT NULL;
CREATE INDEX jobs_name ON jobs (namespace, name, submitted_sequence DESC);

-- Whoever lists what lives reads the entries of `jobs_live` whose jobs have ended since the last vacuum: by default a fifth of the table,
-- of a million jobs 200,000. With a fixed bound, 10,000 at most, and what a minute adds (autovacuum_naptime).
ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE attempts SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000, autovacuum_analyze_scale_factor = 0.02);
