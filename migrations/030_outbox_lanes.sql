-- Each stream has a lane of its own in the outbox, so that messages for a stream
-- that is full do not stand before messages for another one. The index gives the
-- due messages of a lane in order: those that were never claimed first, by age.
ALTER TABLE muster.outbox ADD COLUMN lane text NOT NULL GENERATED ALWAYS AS (
	CASE
		WHEN starts_with(subject, 'muster.v1.trigger.') THEN 'trigger'
		WHEN starts_with(subject, 'muster.v1.provision.') THEN 'provision'
		WHEN starts_with(subject, 'muster.v1.event.') THEN 'event'
		WHEN starts_with(subject, 'muster.v1.host.') THEN 'host'
		ELSE 'other'
	END) STORED;
DROP INDEX muster.outbox_claim;
CREATE INDEX outbox_claim ON muster.outbox (lane, claimed_until, created_at);
