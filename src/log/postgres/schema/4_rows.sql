-- Messages as plain rows, of queues that ask for it (`sqlRows`). Written behind the log by one engine at
-- a time; rows and how far it has come stand in one transaction.
--
-- From which entry of each shard on a queue's messages are rows: in the order of the shards, empty
-- or NULL where they are none. And whether there may be rows that go with it.
ALTER TABLE queues ADD COLUMN rows_from int8[], ADD COLUMN has_rows bool NOT NULL DEFAULT false;

CREATE TABLE message_rows (
    queue text NOT NULL,
    partition text NOT NULL,
    seq int8 NOT NULL,
    id uuid NOT NULL,
    transaction_id text NOT NULL,
    time timestamptz NOT NULL,
    payload jsonb,
    payload_bytes bytea NOT NULL,
    PRIMARY KEY (queue, partition, seq)
);

-- By shard: the entry that is looked at next, and entries that were gone before they were.
CREATE TABLE projected (
    shard int4 PRIMARY KEY,
    next int8 NOT NULL,
    skipped int8 NOT NULL DEFAULT 0
);

-- How far the rows are behind the log: entries, and the age of the oldest one that is to be looked at.
-- Without rows while no queue asks for any. No entry from `next` on may be given back.
CREATE VIEW projection AS
SELECT behind.shard, behind.next, behind.head, behind.head - behind.next AS entries,
       CASE WHEN behind.next < behind.head THEN coalesce(
           (SELECT extract(epoch FROM clock_timestamp() - log.created) FROM log
             WHERE log.shard = behind.shard AND log.head = behind.next), 0) ELSE 0 END::float8 AS seconds,
       behind.skipped
  FROM (SELECT heads.shard, heads.head, coalesce(projected.skipped, 0) AS skipped,
               least(greatest(projected.next, wanted.first), heads.head) AS next
          FROM (SELECT place::int4 - 1 AS shard, min(first) AS first
                  FROM queues, unnest(rows_from) WITH ORDINALITY AS from_entry (first, place)
                 WHERE gone IS NULL GROUP BY place) AS wanted
          JOIN heads ON heads.shard = wanted.shard
          LEFT JOIN projected ON projected.shard = heads.shard
         -- The catalog's shard has no messages.
         WHERE heads.shard < (SELECT shards FROM store)) AS behind;
