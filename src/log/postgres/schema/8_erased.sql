-- Messages that were deleted one by one. The log has their bytes until their piece goes; whoever reads in
-- SQL is not to see them any more. Goes with its partition.
CREATE TABLE erased (
    shard int4 NOT NULL,
    number int8 NOT NULL,
    seq int8 NOT NULL,
    PRIMARY KEY (shard, number, seq)
);
-- Whoever starts next adds what was deleted before, as it does with names.
UPDATE store SET is_named = false;

-- All messages that the log has, of queues that exist, but for those that were deleted. What was written
-- twice counts once, where it stands first.
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
                            AS id) AS made
 WHERE NOT EXISTS (SELECT FROM erased
                    WHERE erased.shard = batch.shard AND erased.number = batch.number
                      AND erased.seq = batch.first_seq + record.place);

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
   AND NOT EXISTS (SELECT FROM erased
                    WHERE erased.shard = batches.shard AND erased.number = batches.number
                      AND erased.seq = batches.first_seq + record.place)
 ORDER BY wanted.name, batches.first_seq + record.place
$$;
