-- Finding an earlier job that was made of the same: what `rgrid run --reuse` asks.

-- bus::reuse::key of the job, 32 bytes; null where its result is never another's.
ALTER TABLE jobs ADD COLUMN reuse_key bytea;
CREATE INDEX jobs_reuse ON jobs (reuse_key, submitted_sequence DESC) WHERE reuse_key IS NOT NULL;
