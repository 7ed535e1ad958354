-- Deliveries that told of a workflow job and were turned away. While one stands
-- here, muster does not know all that GitHub told (issue 10). It goes when the
-- delivery comes again, or when the workflow jobs of the target were compared.
CREATE TABLE muster.refused_delivery (
	target      text NOT NULL,
	delivery_id text NOT NULL, -- empty: not known
	at          timestamptz NOT NULL,
	reason      text NOT NULL,
	PRIMARY KEY (target, delivery_id)
) WITH (fillfactor = 80);

DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
		GRANT SELECT, INSERT, UPDATE, DELETE ON muster.refused_delivery TO muster_app;
	END IF;
END
$$;
