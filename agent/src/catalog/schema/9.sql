-- Schema version 9: where file systems were mounted below a root, so that one that is not mounted any more is told
-- from a directory that was emptied. Paths relative to the root, each with a NUL behind it.
ALTER TABLE roots ADD COLUMN mounts BLOB NOT NULL DEFAULT x'';
