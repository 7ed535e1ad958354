-- Whether events of a target still come is asked before each of its comparisons.
CREATE INDEX delivery_target_at ON muster.delivery (target, at);
