-- Conditions, retries and expiry of jobs; cordons and restarts of workers.

-- When a held job may start, or a retrying one is tried again; null while no time matters.
ALTER TABLE jobs ADD COLUMN due_at timestamptz;

-- Until when the worker's session may be silent, because its runner announced a restart.
ALTER TABLE workers ADD COLUMN restarting_until timestamptz;
-- An operator's word that it is to take no new work; it holds over sessions.
ALTER TABLE workers ADD COLUMN cordoned_at timestamptz;
ALTER TABLE workers ADD COLUMN cordon_reason text;
-- Whether what it executes is to leave it as well, and when what has not is ended.
ALTER TABLE workers ADD COLUMN cordon_drain boolean NOT NULL DEFAULT false;
ALTER TABLE workers ADD COLUMN cordon_deadline timestamptz;
