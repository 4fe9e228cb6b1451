-- Reading messages in SQL: what the engine stored, taken apart by the database itself. The layout is
-- that of `src/state/codec.rs` and of the record batch in `protocol/README.md`.
--
-- The search path of this step ends with `pg_temp`, and the functions keep it: nobody who calls them
-- can slip a table of their own under a name that they use.

-- Little-endian numbers at an offset from 0.
CREATE FUNCTION le16(bytes bytea, at int4) RETURNS int4
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN get_byte(bytes, at) + (get_byte(bytes, at + 1) << 8);

CREATE FUNCTION le32(bytes bytea, at int4) RETURNS int8
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN get_byte(bytes, at) + (get_byte(bytes, at + 1) << 8) + (get_byte(bytes, at + 2) << 16)
     + (get_byte(bytes, at + 3)::int8 << 24);

CREATE FUNCTION le64(bytes bytea, at int4) RETURNS int8
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN le32(bytes, at) | (le32(bytes, at + 4) << 32);

-- A message's id: its time, partition and sequence in a UUIDv7.
CREATE FUNCTION message_id(time_ms int8, partition int8, seq int8) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(time_ms), 12, '0') || '7' || lpad(to_hex(partition >> 20), 3, '0')
     || to_hex((1::int8 << 63) | ((partition & 1048575) << 42) | seq))::uuid;

-- Bytes as text; bytes that text cannot hold, a zero or what is no UTF-8, are shown escaped.
CREATE FUNCTION as_text(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN data_exception THEN
    RETURN encode(bytes, 'escape');
END $$;

-- A payload as JSON; NULL where it is none, or none that `jsonb` can hold (`\u0000` for one).
CREATE FUNCTION as_json(bytes bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END $$;

-- Where the batches of an entry stand: of these partitions, or of all where that is NULL, with a
-- message from this sequence on. `start` is the offset of the record batch.
CREATE FUNCTION entry_batches(
    entry bytea, numbers int8[], from_seq int8,
    OUT number int8, OUT first_seq int8, OUT time_ms int8, OUT start int4
) RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
DECLARE
    -- Fetched once, and not again for every number that is read from it.
    body CONSTANT bytea := entry || ''::bytea;
    behind int4 := 32;
    here int4;
    records int8;
    tag int4;
BEGIN
    FOR effect IN 1..le32(body, 24) LOOP
        here := behind + 8;
        behind := here + le32(body, behind + 4);
        tag := get_byte(body, here - 8);
        -- An append, or the same batch written again.
        CONTINUE WHEN tag NOT IN (2, 3);
        number := le32(body, here);
        CONTINUE WHEN number <> ALL (numbers);
        records := le32(body, here + 4);
        first_seq := le64(body, here + 8);
        CONTINUE WHEN first_seq + records <= from_seq;
        time_ms := le64(body, here + 16);
        -- Fingerprints stand between, 16 bytes a record.
        start := here + 24 + (get_byte(body, here - 7) & 1) * 16 * records;
        RETURN NEXT;
    END LOOP;
END $$;

-- The records of a batch, by their place in it.
CREATE FUNCTION batch_records(
    entry bytea, start int4,
    OUT place int4, OUT transaction_id text, OUT is_json bool, OUT payload_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path FROM CURRENT AS $$
DECLARE
    body CONSTANT bytea := substring(entry FROM start + 1 FOR 16 + le32(
        substring(entry FROM start + 9 FOR 4), 0)::int4);
    behind int4 := 16;
    here int4;
    flags int4;
    bytes int4;
BEGIN
    IF get_byte(body, 1) & 14 <> 0 THEN
        RAISE EXCEPTION 'this batch is compressed or encrypted; ask a server for its messages';
    END IF;
    FOR nth IN 1..le32(body, 4) LOOP
        place := nth - 1;
        here := behind + 5;
        behind := behind + 4 + le32(body, behind)::int4;
        flags := get_byte(body, here - 1);
        is_json := flags & 8 <> 0;
        transaction_id := NULL;
        IF flags & 1 <> 0 THEN
            bytes := get_byte(body, here);
            transaction_id := as_text(substring(body FROM here + 2 FOR bytes));
            here := here + 1 + bytes;
        END IF;
        IF flags & 2 <> 0 THEN
            here := here + 16;
        END IF;
        IF flags & 4 <> 0 THEN
            here := here + 2 + le16(body, here);
        END IF;
        payload_bytes := substring(body FROM here + 1 FOR behind - here);
        RETURN NEXT;
    END LOOP;
END $$;

-- All messages that the log has, of queues that exist. What was written twice counts once, where it
-- stands first.
CREATE VIEW messages AS
SELECT queues.name AS queue, partitions.name AS partition, batch.first_seq + record.place AS seq,
       made.id, coalesce(record.transaction_id, made.id::text) AS transaction_id,
       timestamptz 'epoch' + batch.time_ms * interval '1 millisecond' AS time,
       CASE WHEN record.is_json THEN as_json(record.payload_bytes) END AS payload,
       record.payload_bytes
  FROM (SELECT DISTINCT ON (log.shard, found.number, found.first_seq)
               log.shard, log.head, log.piece, found.*
          FROM log CROSS JOIN LATERAL entry_batches(log.body, NULL, 0) AS found
         ORDER BY log.shard, found.number, found.first_seq, log.head) AS batch
  JOIN partitions ON partitions.shard = batch.shard AND partitions.number = batch.number
  JOIN queues ON queues.queue = partitions.queue AND queues.gone IS NULL
 CROSS JOIN LATERAL (SELECT log.body FROM log
                      WHERE log.shard = batch.shard AND log.head = batch.head
                        AND log.piece = batch.piece OFFSET 0) AS entry
 CROSS JOIN LATERAL batch_records(entry.body, batch.start) AS record
 CROSS JOIN LATERAL (SELECT message_id(batch.time_ms, batch.number, batch.first_seq + record.place)
                            AS id) AS made;

-- The same of one queue, or of one partition of it, from a sequence on; it reads only the shards that
-- hold them. With its owner's rights, so it is for those only who are granted it.
CREATE FUNCTION messages(queue text, partition text DEFAULT NULL, from_seq int8 DEFAULT 0)
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
     CROSS JOIN LATERAL (SELECT log.* FROM log WHERE log.shard = shards.shard OFFSET 0) AS entry
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
 CROSS JOIN LATERAL (SELECT log.body FROM log
                      WHERE log.shard = batches.shard AND log.head = batches.head
                        AND log.piece = batches.piece OFFSET 0) AS entry
 CROSS JOIN LATERAL batch_records(entry.body, batches.start) AS record
 CROSS JOIN LATERAL (SELECT message_id(batches.time_ms, batches.number,
                                       batches.first_seq + record.place) AS id) AS made
 WHERE batches.first_seq + record.place >= $3
 ORDER BY wanted.name, batches.first_seq + record.place
$$;
REVOKE EXECUTE ON FUNCTION messages(text, text, int8) FROM PUBLIC;
