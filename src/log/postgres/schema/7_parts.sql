-- An entry in rows that each fill a page: part 0 has its first 8000 bytes, part 1 the next, and each of
-- them says how many bytes the entry has. As one row it was cut by the database, into rows a quarter as
-- long with an index entry each. An entry from before this step is one part, whatever its length, and
-- its `len` is NULL.
--
-- Statements of a server from before this step read half entries. They name a column that there is no
-- more, so they fail instead, and that server waits until it is replaced.
ALTER TABLE log RENAME COLUMN body TO bytes;
ALTER TABLE log ALTER COLUMN bytes SET STORAGE MAIN;
ALTER TABLE log ADD COLUMN part int4 NOT NULL DEFAULT 0, ADD COLUMN len int4;
ALTER TABLE log DROP CONSTRAINT log_pkey, ADD PRIMARY KEY (shard, head, piece, part);

-- Entries whole. Parts are joined only where the body is asked for.
CREATE VIEW entries AS
SELECT shard, head, piece, created, coalesce(len, octet_length(bytes)) AS len, brief,
       CASE WHEN len > octet_length(bytes) THEN (
           SELECT string_agg(parts.bytes, '' ORDER BY parts.part) FROM log AS parts
            WHERE parts.shard = log.shard AND parts.head = log.head AND parts.piece = log.piece)
       ELSE bytes END AS body
  FROM log
 WHERE part = 0;

-- All messages that the log has, of queues that exist. What was written twice counts once, where it
-- stands first.
CREATE OR REPLACE VIEW messages AS
SELECT queues.name AS queue, partitions.name AS partition, batch.first_seq + record.place AS seq,
       made.id, coalesce(record.transaction_id, made.id::text) AS transaction_id,
       timestamptz 'epoch' + batch.time_ms * interval '1 millisecond' AS time,
       CASE WHEN record.is_json THEN as_json(record.payload_bytes) END AS payload,
       record.payload_bytes
  FROM (SELECT DISTINCT ON (entries.shard, found.number, found.first_seq)
               entries.shard, entries.head, entries.piece, found.*
          FROM entries CROSS JOIN LATERAL entry_batches(entries.body, NULL, 0) AS found
         ORDER BY entries.shard, found.number, found.first_seq, entries.head) AS batch
  JOIN partitions ON partitions.shard = batch.shard AND partitions.number = batch.number
  JOIN queues ON queues.queue = partitions.queue AND queues.gone IS NULL
 CROSS JOIN LATERAL (SELECT entries.body FROM entries
                      WHERE entries.shard = batch.shard AND entries.head = batch.head
                        AND entries.piece = batch.piece OFFSET 0) AS entry
 CROSS JOIN LATERAL batch_records(entry.body, batch.start) AS record
 CROSS JOIN LATERAL (SELECT message_id(batch.time_ms, batch.number, batch.first_seq + record.place)
                            AS id) AS made;

-- The same of one queue, or of one partition of it, from a sequence on; it reads only the shards that
-- hold them. With its owner's rights, so it is for those only who are granted it.
CREATE OR REPLACE FUNCTION messages(queue text, partition text DEFAULT NULL, from_seq int8 DEFAULT 0)
RETURNS SETOF messages
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
WITH wanted AS MATERIALIZED (
    SELECT partitions.shard, partitions.number, partitions.name
      FROM queues JOIN partitions ON partitions.queue = queues.queue
     WHERE queues.name = $1 AND queues.gone IS NULL AND ($2 IS NULL OR partitions.name = $2)
), shards AS MATERIALIZED (
    SELECT shard, array_agg(number) AS numbers FROM wanted GROUP BY shard
), batches AS MATERIALIZED (
    SELECT DISTINCT ON (entry.shard, found.number, found.first_seq)
           entry.shard, entry.head, entry.piece, found.*
      FROM shards
     -- Shard by shard by their index, whatever is thought of how large the log is.
     CROSS JOIN LATERAL (SELECT * FROM entries
                         WHERE entries.shard = shards.shard OFFSET 0) AS entry
     CROSS JOIN LATERAL entry_batches(entry.body, shards.numbers, $3) AS found
     ORDER BY entry.shard, found.number, found.first_seq, entry.head
)
SELECT $1, wanted.name, batches.first_seq + record.place,
       made.id, coalesce(record.transaction_id, made.id::text),
       timestamptz 'epoch' + batches.time_ms * interval '1 millisecond',
       CASE WHEN record.is_json THEN as_json(record.payload_bytes) END,
       record.payload_bytes
  FROM batches
  JOIN wanted ON wanted.shard = batches.shard AND wanted.number = batches.number
 CROSS JOIN LATERAL (SELECT entries.body FROM entries
                      WHERE entries.shard = batches.shard AND entries.head = batches.head
                        AND entries.piece = batches.piece OFFSET 0) AS entry
 CROSS JOIN LATERAL batch_records(entry.body, batches.start) AS record
 CROSS JOIN LATERAL (SELECT message_id(batches.time_ms, batches.number,
                                       batches.first_seq + record.place) AS id) AS made
 WHERE batches.first_seq + record.place >= $3
 ORDER BY wanted.name, batches.first_seq + record.place
$$;

-- How far the rows are behind the log: entries, and the age of the oldest one that is to be looked at.
-- Without rows while no queue asks for any. No entry from `next` on may be given back.
CREATE OR REPLACE VIEW projection AS
SELECT behind.shard, behind.next, behind.head, behind.head - behind.next AS entries,
       CASE WHEN behind.next < behind.head THEN coalesce(
           (SELECT extract(epoch FROM clock_timestamp() - log.created) FROM log
             WHERE log.shard = behind.shard AND log.head = behind.next
               AND log.part = 0), 0) ELSE 0 END::float8 AS seconds,
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
