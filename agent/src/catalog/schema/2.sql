-- Schema version 2: what a scan stores of a new image, and asks of a known one, costs less.

-- A rescan compares the time of the last access: it need not look into `images` for it.
ALTER TABLE files ADD COLUMN accessed INTEGER NOT NULL DEFAULT 0;
UPDATE files SET accessed = images.accessed FROM images WHERE images.id = files.image;

-- Moved images are found by the listing in memory.
DROP INDEX images_by_inode;

-- The same table with numbers that the agent chooses.
CREATE TABLE images_2 (
    id                 INTEGER PRIMARY KEY,
    root               INTEGER NOT NULL,
    directory          INTEGER NOT NULL,
    name               BLOB NOT NULL,
    inode              INTEGER NOT NULL,
    size               INTEGER NOT NULL,
    modified           INTEGER NOT NULL,
    changed            INTEGER NOT NULL,
    accessed           INTEGER NOT NULL,
    allocated          INTEGER NOT NULL,
    uid                INTEGER NOT NULL,
    gid                INTEGER NOT NULL,
    mode               INTEGER NOT NULL,
    links              INTEGER NOT NULL,
    image_id           BLOB,
    uuid               BLOB,
    format             INTEGER NOT NULL,
    format_version     TEXT NOT NULL,
    status             INTEGER NOT NULL,
    status_message     TEXT NOT NULL,
    repository         TEXT NOT NULL,
    tag                TEXT NOT NULL,
    reference_source   INTEGER NOT NULL,
    base               TEXT NOT NULL,
    update_time        INTEGER NOT NULL,
    update_time_source INTEGER NOT NULL,
    create_time        INTEGER,
    arch               TEXT NOT NULL,
    file_system        TEXT NOT NULL,
    compressor         TEXT NOT NULL,
    sbom               TEXT NOT NULL,
    encryption         INTEGER NOT NULL,
    signatures         BLOB,            -- sifter.v1.Image with only that field
    content_digest     BLOB
);
INSERT INTO images_2 SELECT * FROM images;
DROP TABLE images;
ALTER TABLE images_2 RENAME TO images;
