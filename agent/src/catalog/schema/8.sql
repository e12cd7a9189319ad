-- Schema version 8: what tells of a file or directory whether it changed is one value. It is always written and
-- read as a whole, by each scan for all of them, and a value more costs as much as eight bytes more do not.
-- Each number has eight bytes, the highest first: see catalog/facts.rs.
CREATE TABLE directories_8 (
    id       INTEGER PRIMARY KEY,
    root     INTEGER NOT NULL,
    path     BLOB NOT NULL,             -- relative to the root; empty for the root itself
    facts    BLOB,                      -- inode, modified, changed; NULL: not read yet
    volatile INTEGER NOT NULL,          -- read again whatever its times say
    error    TEXT                       -- why it could not be read
);
INSERT INTO directories_8
SELECT id, root, path,
       CASE WHEN inode != 0 THEN unhex(printf('%016x%016x%016x', inode, modified, changed)) END,
       volatile, error
FROM directories;
DROP TABLE directories;
ALTER TABLE directories_8 RENAME TO directories;
CREATE INDEX directories_unreadable ON directories (root) WHERE error IS NOT NULL;
CREATE UNIQUE INDEX directories_by_path ON directories (root, path);

CREATE TABLE files_8 (
    directory INTEGER NOT NULL,
    name      BLOB NOT NULL,            -- empty for a sandbox, which is the directory itself
    facts     BLOB NOT NULL,            -- inode, size, modified, changed, accessed
    volatile  INTEGER NOT NULL,         -- look again whatever its facts say
    image     INTEGER,                  -- NULL: it is none
    born      INTEGER,                  -- when the inode was made; NULL: not told, or no image
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;
INSERT INTO files_8
SELECT directory, name, unhex(printf('%016x%016x%016x%016x%016x', inode, size, modified, changed, accessed)),
       volatile, image, born
FROM files;
DROP TABLE files;
ALTER TABLE files_8 RENAME TO files;

CREATE TABLE images_8 (
    id             INTEGER PRIMARY KEY,
    root           INTEGER NOT NULL,
    directory      INTEGER NOT NULL,
    name           BLOB NOT NULL,
    common         INTEGER NOT NULL,
    facts          BLOB NOT NULL,       -- inode, size, modified, changed, accessed, allocated
    image_id       BLOB,
    uuid           BLOB,
    status_message TEXT NOT NULL,
    repository     TEXT NOT NULL,
    tag            TEXT NOT NULL,
    base           TEXT NOT NULL,
    update_time    INTEGER NOT NULL,
    create_time    INTEGER,
    signatures     BLOB,                -- sifter.v1.Image with only that field
    content_digest BLOB,
    details        BLOB,                -- what only view FULL shows, in the same way; NULL: nothing
    details_size   INTEGER NOT NULL     -- bytes before they were compressed; 0: they are not
);
INSERT INTO images_8
SELECT id, root, directory, name, common,
       unhex(printf('%016x%016x%016x%016x%016x%016x', inode, size, modified, changed, accessed, allocated)),
       image_id, uuid, status_message, repository, tag, base, update_time, create_time, signatures,
       content_digest, details, details_size
FROM images;
DROP TABLE images;
ALTER TABLE images_8 RENAME TO images;
