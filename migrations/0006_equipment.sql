-- What each worker can run scripts by: what `rgrid runtimes` shows.

-- The last worker.equipped event of its session, without the session:
-- {"runtimes":{"python":{"versions":["3.11.2"],"images":["python:3-slim"]}},"images":{"python:3-slim":"sha256:…"},"platform":"linux/amd64"}.
-- Null until the session says it.
ALTER TABLE workers ADD COLUMN equipment jsonb;
