-- Repositories have their turn by when they last had one, and not by when they
-- were last compared: those that cannot be would be the first in every part, and
-- keep all others from theirs.
ALTER TABLE muster.repository ADD COLUMN tried_at timestamptz; -- when it was last not compared to the end; null: it was, since
