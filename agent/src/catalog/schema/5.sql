-- Schema version 5: when the inode of an image was made tells it from another that has got its number.
ALTER TABLE files ADD COLUMN born INTEGER; -- NULL: not told, or no image
ALTER TABLE roots ADD COLUMN born INTEGER; -- of the root directory at the last complete scan
