-- What each worker has to run scripts by, as it said last: a cache of RGRID_EQUIPMENT, and no part of the fold (decision 0014).
--
-- No foreign key, and no order between the two streams: what is said may come before its worker's registration is folded. Readers take
-- the row for which session and registered_at are those of the worker, and where there is none, workers.equipment: what a runner of an
-- earlier version said in the log (worker.equipped.v1).
CREATE TABLE worker_equipment (
    worker          text PRIMARY KEY,
    session         uuid NOT NULL,
    -- When that session was registered, as in workers. A session that goes on over a restart of its runner is registered again, and
    -- what the runner before said of it counts no more.
    registered_at   timestamptz NOT NULL,
    -- When the broker stored it: one clock for every worker. A week after, it goes with the next word of any worker.
    said_at         timestamptz NOT NULL,
    -- As workers.equipment.
    equipment       jsonb NOT NULL
);
