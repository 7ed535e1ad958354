-- The pool that asked for a runner's host counts it, whatever labels it was
-- registered with: else one whose hosts come without its labels would ask for
-- others for ever.
ALTER TABLE muster.runner ADD COLUMN pool text;

COMMENT ON COLUMN api.findings.kind IS 'unlabelled_job (asks for no label, so nobody can tell which hosts it waits for), unserved_job (asks for labels that neither a pool nor a runner outside of pools has) or mislabelled_host (was asked for by a pool and registered without its labels).';
COMMENT ON COLUMN api.findings.subject IS 'The labels asked for, the repository of unlabelled jobs, or the pool of mislabelled hosts.';
COMMENT ON COLUMN api.findings.detail IS 'How many jobs, of which repository the longest waiting is, and the pool that lacks the fewest labels; or how many hosts, and what they lack.';
