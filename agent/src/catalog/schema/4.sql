-- Schema version 4: details are compressed. What was stored before stays as it is.
ALTER TABLE details ADD COLUMN unpacked_size INTEGER NOT NULL DEFAULT 0; -- bytes before; 0: not compressed
