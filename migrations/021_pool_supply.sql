-- A runner that takes one workflow job leaves once it has had it, whatever the
-- newest listing showed; and a pool whose row was made to be locked is not yet
-- one that was decided on.
CREATE OR REPLACE VIEW api.pools AS
	SELECT name AS pool, target, labels, min, max, desired, online, busy, booting, draining, queued, in_progress,
		demand_at, confidence, leases_expired, reason, decided_at
	FROM muster.pool
	WHERE decided_at IS NOT NULL;
COMMENT ON COLUMN api.pools.max IS 'Most hosts it may have, those that boot, leave, or went offline within boot_deadline included.';
COMMENT ON COLUMN api.pools.online IS 'Its runners that were online and not leaving.';
COMMENT ON COLUMN api.pools.draining IS 'Its runners that were online and leaving: being taken away, or with the one workflow job behind them that they take.';
