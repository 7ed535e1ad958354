-- What is kept of the pages of a target's listing: where GitHub answers 304, or
-- sends the same bytes again, a page is neither fetched nor decoded, by any
-- replica and after any restart.
CREATE TABLE muster.page (
	target     text     NOT NULL REFERENCES muster.target (name),
	number     integer  NOT NULL CHECK (number > 0),
	etag       text     NOT NULL, -- empty: none
	credential text     NOT NULL, -- fingerprint of the one that the etag is good for
	sha256     bytea    NOT NULL CHECK (length(sha256) = 32), -- of the body
	total      integer  NOT NULL, -- total_count, as this page told it
	last       integer  NOT NULL, -- number of the last page, as this one told it; 0: it did not
	-- Ties the page to the rows of its runners: a sum over their ids and
	-- fingerprints. Where the rows add up to something else, another page has
	-- shown one of them since, and this one is decoded again.
	shown      bigint   NOT NULL,
	runner_ids bigint[] NOT NULL,
	PRIMARY KEY (target, number)
);

-- The listing of the newest complete sync, by the bodies of its pages, where it
-- showed exactly the runners that are registered; null otherwise. One that is
-- the same to the byte is no news at all.
ALTER TABLE muster.target ADD COLUMN proven_listing bytea CHECK (length(proven_listing) = 32);

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.page TO muster_app;
	END IF;
END
$$;
