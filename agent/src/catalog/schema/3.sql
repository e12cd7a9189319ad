-- Schema version 3: the same directories. That their paths are unique is an index of its own, which is
-- made at the end of a first scan: kept up to date row by row it is written a dozen times over.
CREATE TABLE directories_3 (
    id       INTEGER PRIMARY KEY,
    root     INTEGER NOT NULL,
    path     BLOB NOT NULL,             -- relative to the root; empty for the root itself
    inode    INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    volatile INTEGER NOT NULL,          -- read again whatever its times say
    error    TEXT                       -- why it could not be read
);
INSERT INTO directories_3 SELECT * FROM directories;
DROP TABLE directories;
ALTER TABLE directories_3 RENAME TO directories;
CREATE UNIQUE INDEX directories_by_path ON directories (root, path);
