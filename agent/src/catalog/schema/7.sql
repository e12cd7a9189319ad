-- Schema version 7: a start asks for the directories that could not be read, which are few among many.
CREATE INDEX directories_unreadable ON directories (root) WHERE error IS NOT NULL;
