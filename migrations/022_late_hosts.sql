-- A host that comes when its request is over is the pool's all the same: those
-- whose runner is not there are looked for at each sync, for a day.
CREATE INDEX lease_late ON muster.lease (target, deadline) WHERE state = 'expired' AND host IS NOT NULL AND runner_id IS NULL;
CREATE INDEX lease_runner ON muster.lease (target, runner_id) WHERE runner_id IS NOT NULL;

COMMENT ON COLUMN api.leases.state IS 'requested, claimed (a token was asked for with it), registered, online, or expired (not online by its deadline; its host may have come later).';
COMMENT ON COLUMN api.leases.runner_id IS 'The runner that came of it, of an expired one too where its host came within a day; null: none yet.';
