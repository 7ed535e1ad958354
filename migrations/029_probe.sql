-- Readiness proves that a row can be written by writing this one.
CREATE TABLE muster.probe (
	id         boolean PRIMARY KEY CHECK (id),
	written_at timestamptz NOT NULL
);
