-- Labels that all of a pool's runners carried, when it last had some online: its
-- next host will carry them, too, and a pool that is empty still has to know what
-- jobs may ask of it.
ALTER TABLE muster.pool ADD COLUMN carried text[] NOT NULL DEFAULT '{}';
