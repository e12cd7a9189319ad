-- Catalogue, schema version 1. Times are nanoseconds since 1970-01-01 UTC; paths are bytes.

-- Configured image directories.
CREATE TABLE roots (
    id            INTEGER PRIMARY KEY,
    path          BLOB NOT NULL UNIQUE,
    device        INTEGER,              -- of the root directory at the last complete scan
    inode         INTEGER,
    scanned       INTEGER,              -- when the last complete scan ended; NULL: never
    files_checked INTEGER,              -- when the last complete scan that looked at files ended
    settings      TEXT                  -- how it was scanned: other settings find other things
);

-- Directory state: what decides whether a directory is read again.
CREATE TABLE directories (
    id       INTEGER PRIMARY KEY,
    root     INTEGER NOT NULL,
    path     BLOB NOT NULL,             -- relative to the root; empty for the root itself
    inode    INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    volatile INTEGER NOT NULL,          -- read again whatever its times say
    error    TEXT,                      -- why it could not be read
    UNIQUE (root, path)
);

-- Candidates: images and, with image NULL, files that are none (negative verdicts).
CREATE TABLE files (
    directory INTEGER NOT NULL,
    name      BLOB NOT NULL,            -- empty for a sandbox, which is the directory itself
    inode     INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    modified  INTEGER NOT NULL,
    changed   INTEGER NOT NULL,
    volatile  INTEGER NOT NULL,         -- look again whatever its identity says
    image     INTEGER,
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;

-- What the listing shows; the columns are the fields of sifter.v1.Image.
CREATE TABLE images (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
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

-- Finds an image that was moved.
CREATE INDEX images_by_inode ON images (inode);

-- What only view FULL shows: sifter.v1.Image with only those fields.
CREATE TABLE details (
    image INTEGER PRIMARY KEY,
    data  BLOB NOT NULL
);
