-- Names that people know, beside the entries that give them. A queue that is gone keeps its row until
-- the names of its partitions are swept away. Numbers are never given again.
CREATE TABLE queues (
    queue int8 PRIMARY KEY,
    name text,
    created timestamptz NOT NULL DEFAULT now(),
    gone timestamptz
);
CREATE INDEX queues_by_name ON queues (name);
CREATE TABLE partitions (
    shard int4 NOT NULL,
    number int8 NOT NULL,
    queue int8 NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (shard, number)
);
CREATE INDEX partitions_by_name ON partitions (queue, name);
-- Whether what was there before this step has its names.
ALTER TABLE store ADD COLUMN is_named bool NOT NULL DEFAULT false;
