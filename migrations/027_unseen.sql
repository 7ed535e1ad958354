-- An app may be installed on some repositories while the webhook tells of all. One
-- that GitHub neither lists nor shows to the credential is not compared until the
-- repositories are listed anew.
ALTER TABLE muster.repository
	ADD COLUMN listed boolean NOT NULL DEFAULT true,  -- false: events told of it, and the newest listing did not
	ADD COLUMN unseen boolean NOT NULL DEFAULT false; -- GitHub said that it is not there
