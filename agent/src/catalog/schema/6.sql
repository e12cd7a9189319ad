-- Schema version 6: an image is one row. What many images have in common is kept once, and what only view
-- FULL shows is at the end of the row, where nothing else has to pass over it.

-- What many images have in common. One that no image has any more goes when there are many.
CREATE TABLE commons (
    id                 INTEGER PRIMARY KEY,
    uid                INTEGER NOT NULL,
    gid                INTEGER NOT NULL,
    mode               INTEGER NOT NULL,
    links              INTEGER NOT NULL,
    format             INTEGER NOT NULL,
    format_version     TEXT NOT NULL,
    status             INTEGER NOT NULL,
    reference_source   INTEGER NOT NULL,
    update_time_source INTEGER NOT NULL,
    arch               TEXT NOT NULL,
    file_system        TEXT NOT NULL,
    compressor         TEXT NOT NULL,
    sbom               TEXT NOT NULL,
    encryption         INTEGER NOT NULL,
    UNIQUE (uid, gid, mode, links, format, format_version, status, reference_source, update_time_source,
            arch, file_system, compressor, sbom, encryption)
);
INSERT INTO commons (uid, gid, mode, links, format, format_version, status, reference_source,
                     update_time_source, arch, file_system, compressor, sbom, encryption)
SELECT DISTINCT uid, gid, mode, links, format, format_version, status, reference_source,
                update_time_source, arch, file_system, compressor, sbom, encryption FROM images;

CREATE TABLE images_6 (
    id             INTEGER PRIMARY KEY,
    root           INTEGER NOT NULL,
    directory      INTEGER NOT NULL,
    name           BLOB NOT NULL,
    common         INTEGER NOT NULL,
    inode          INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    modified       INTEGER NOT NULL,
    changed        INTEGER NOT NULL,
    accessed       INTEGER NOT NULL,
    allocated      INTEGER NOT NULL,
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
INSERT INTO images_6
SELECT images.id, root, directory, name, commons.id, inode, size, modified, changed, accessed, allocated,
       image_id, uuid, status_message, repository, tag, base, update_time, create_time, signatures,
       content_digest, data, coalesce(unpacked_size, 0)
FROM images
JOIN commons USING (uid, gid, mode, links, format, format_version, status, reference_source,
                    update_time_source, arch, file_system, compressor, sbom, encryption)
LEFT JOIN details ON details.image = images.id;
DROP TABLE images;
DROP TABLE details;
ALTER TABLE images_6 RENAME TO images;
