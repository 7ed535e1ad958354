-- The brake: a policy halts where much of its target goes dark at once.
ALTER TABLE muster.policy
	ADD COLUMN halted_by  text,        -- reason code of the halt; null: active, or halted by a version that did not say
	ADD COLUMN brake_from timestamptz; -- what walks up to then showed an operator has looked at; null: nothing
-- Counted before every deletion. Both are small: few runners of a sound fleet are offline, and none is missing.
CREATE INDEX runner_offline ON muster.runner (target, status_since) WHERE removed_at IS NULL AND status = 'offline';
CREATE INDEX runner_missing ON muster.runner (target, missing_since) WHERE missing_since IS NOT NULL;
