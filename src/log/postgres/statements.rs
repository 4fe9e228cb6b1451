//! The SQL of a session, whole.
//!
//! Tables are named without their schema: every session's `search_path` says which it is.

/// Asks for commits that survive the machine, whatever the cluster's default; one that asks for even
/// more is left alone. Never less: after a crash of the server the database would have forgotten
/// entries that engines have applied.
pub(super) const COMMIT_DURABLY: &str = "SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

/// The server's version number, and whether it syncs at all.
pub(super) const SERVER: &str = "SELECT current_setting('server_version_num')::int, \
     current_setting('fsync')::bool";

/// Whether the database holds every letter there is.
pub(super) const IS_UNICODE: &str =
    "SELECT current_setting('server_encoding') IN ('UTF8', 'SQL_ASCII')";

/// No shard has this number.
pub(super) const NO_SHARD: i32 = -1;

/// Appends one entry of one part if its shard's head is where it should be and it is nobody else's
/// turn; 1 or 0 rows. Parameters: shard, expected head, bytes, body, engine, brief.
pub(super) const APPEND_ONE: &str = "
WITH moved AS (
    UPDATE heads SET head = head + 1, bytes = bytes + $3::int4, tail = $3::int4,
           turn_until = '-infinity'
     WHERE shard = $1::int4 AND head = $2::int8
       AND (turn_of = $5::int8 OR turn_until < clock_timestamp())
    RETURNING piece
)
INSERT INTO log (shard, head, piece, len, bytes, brief)
SELECT $1::int4, $2::int8, piece, $3::int4, $4::bytea, $6::bytea FROM moved";

/// Appends entries of several shards if all heads are where they should be and none is
/// somebody else's turn; all rows or none. Heads are locked in the order of their shards, so that two
/// engines never wait for each other in a ring.
/// Parameters: per shard its number, expected head, count of entries, bytes, bytes of the last; per
/// part of an entry the entry's shard and number, the part's bytes; the engine; per part the brief of
/// the entry, its place in the entry and the bytes of the entry; other shards and the heads that they
/// must still have.
///
/// Parts are taken from their arrays one by one: as a table in `FROM` they would all be copied first.
macro_rules! append_many {
    ($names:literal) => {
        concat!(
            "
WITH asked AS (
    SELECT * FROM unnest($1::int4[], $2::int8[], $3::int4[], $4::int8[], $5::int4[])
        AS asked (shard, expected, entries, bytes, tail)
), locked AS (
    SELECT heads.shard FROM heads JOIN asked ON heads.shard = asked.shard
     WHERE heads.head = asked.expected
       AND (heads.turn_of = $9::int8 OR heads.turn_until < clock_timestamp())
     ORDER BY heads.shard FOR UPDATE OF heads
), checked AS (
    SELECT count(*) = cardinality($1::int4[]) AND NOT EXISTS (
               SELECT FROM unnest($13::int4[], $14::int8[]) AS relied (shard, head)
                 JOIN heads ON heads.shard = relied.shard WHERE heads.head <> relied.head
           ) AS all_stand
      FROM locked
), moved AS (
    UPDATE heads SET head = heads.head + asked.entries, bytes = heads.bytes + asked.bytes,
           tail = asked.tail, turn_until = '-infinity'
      FROM asked, checked
     WHERE checked.all_stand AND heads.shard = asked.shard
    RETURNING heads.shard, heads.piece
)",
            $names,
            "
INSERT INTO log (shard, head, piece, bytes, brief, part, len)
SELECT entry.shard, entry.head, (SELECT piece FROM moved WHERE moved.shard = entry.shard),
       entry.bytes, entry.brief, entry.part, entry.len
  FROM (SELECT unnest($6::int4[]) AS shard, unnest($7::int8[]) AS head, unnest($8::bytea[]) AS bytes,
               unnest($10::bytea[]) AS brief, unnest($11::int4[]) AS part, unnest($12::int4[]) AS len)
       AS entry
 WHERE (SELECT all_stand FROM checked)"
        )
    };
}

/// Without names: what nearly all appends are.
pub(super) const APPEND_MANY: &str = append_many!("");

/// With names. Parameters beyond: per queue its number, name, whether it is gone, whether its messages
/// are rows from here on; per partition its shard, number, queue, name; per range of deleted messages
/// its shard, partition, first and last sequence.
pub(super) const APPEND_NAMED: &str = append_many!(
    ", named AS (
    INSERT INTO queues (queue, name, gone, rows_from, has_rows)
    SELECT named.queue, named.name, CASE WHEN named.is_gone THEN now() END,
           CASE WHEN named.rows THEN (SELECT array_agg(head ORDER BY shard) FROM heads)
                WHEN NOT named.rows THEN '{}' END,
           coalesce(named.rows, false)
      FROM unnest($15::int8[], $16::text[], $17::bool[], $18::bool[])
           AS named (queue, name, is_gone, rows), checked
     WHERE checked.all_stand
    ON CONFLICT (queue) DO UPDATE
       SET name = coalesce(excluded.name, queues.name), gone = coalesce(queues.gone, excluded.gone),
           rows_from = coalesce(excluded.rows_from, queues.rows_from),
           has_rows = queues.has_rows OR excluded.has_rows
), parted AS (
    INSERT INTO partitions (shard, number, queue, name)
    SELECT parted.*
      FROM unnest($19::int4[], $20::int8[], $21::int8[], $22::text[])
           AS parted (shard, number, queue, name), checked
     WHERE checked.all_stand
    ON CONFLICT (shard, number) DO UPDATE SET queue = excluded.queue, name = excluded.name
), emptied AS (
    INSERT INTO erased (shard, number, seq)
    SELECT gone.shard, gone.number, seq
      FROM unnest($23::int4[], $24::int8[], $25::int8[], $26::int8[])
           AS gone (shard, number, first, last), generate_series(gone.first, gone.last) AS seq,
           checked
     WHERE checked.all_stand
    ON CONFLICT (shard, number, seq) DO NOTHING
)"
);

/// Heads of some shards. Parameter: their numbers.
pub(super) const HEADS_OF: &str = "SELECT shard, head FROM heads WHERE shard = ANY($1::int4[])";

/// Heads of some shards, and whether it is another engine's turn. Where it is nobody's, and that is
/// wanted, it becomes ours: of all these shards or of none. A turn that a crash forgets does no harm, so
/// nothing waits for a disk. Parameters: shards, engine, milliseconds, whether it is wanted.
pub(super) const TURN: &str = "
WITH locked AS (
    SELECT shard, head, turn_of <> $2::int8 AND turn_until >= clock_timestamp() AS is_taken
      FROM heads WHERE shard = ANY($1::int4[]) ORDER BY shard FOR UPDATE
), free AS (
    SELECT NOT bool_or(is_taken) AND $4::bool AS is_ours,
           set_config('synchronous_commit', 'off', true) AS unsynced
      FROM locked
), taken AS (
    UPDATE heads SET turn_of = $2::int8,
           turn_until = clock_timestamp() + $3::int4 * interval '1 millisecond'
      FROM free WHERE free.is_ours AND heads.shard = ANY($1::int4[])
    RETURNING heads.shard
)
SELECT locked.shard, locked.head, locked.is_taken, taken.shard IS NOT NULL
  FROM locked LEFT JOIN taken ON taken.shard = locked.shard";

/// Ends turns that were not used. Parameters: shards, engine.
pub(super) const PASS: &str = "
UPDATE heads SET turn_until = '-infinity'
  FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unsynced
 WHERE shard = ANY($1::int4[]) AND turn_of = $2::int8";

/// All heads, with the bytes ever appended, in the order of the shards.
pub(super) const HEADS: &str = "SELECT head, bytes FROM heads ORDER BY shard";

/// Entries of a shard up to a number of bytes, the first one whatever its size. How many those are is
/// found by first parts alone. Parameters: shard, first entry, bytes, first piece, last piece, entries.
pub(super) const READ: &str = "
SELECT head, string_agg(bytes, '' ORDER BY part)
  FROM log
 WHERE shard = $1::int4 AND piece BETWEEN $4::int4 AND $5::int4
   AND head BETWEEN $2::int8 AND (
       SELECT max(head) FROM (
           SELECT head, sum(len) OVER (ORDER BY head) AS total FROM (
               SELECT head, coalesce(len, octet_length(bytes)) AS len
                 FROM log
                WHERE shard = $1::int4 AND piece BETWEEN $4::int4 AND $5::int4
                  AND head >= $2::int8 AND head < $2::int8 + $6::int8 AND part = 0
               OFFSET 0) AS entry
       ) AS summed
       WHERE head = $2::int8 OR total <= $3::int8)
 GROUP BY head ORDER BY head";

/// The same of several shards at once, briefs in the place of entries that have one, with how long the
/// entry is and whether this is its brief. Parameters: per shard its number, first entry, first piece,
/// last piece; bytes of each shard; entries of each; the lowest piece and the highest of all.
pub(super) const FOLLOW: &str = "
SELECT asked.shard, summed.head, summed.len, summed.brief IS NOT NULL,
       coalesce(summed.brief, (
           SELECT string_agg(log.bytes, '' ORDER BY log.part) FROM log
            WHERE log.shard = asked.shard AND log.head = summed.head AND log.piece = summed.piece
              AND log.piece BETWEEN $7::int4 AND $8::int4))
  FROM unnest($1::int4[], $2::int8[], $3::int4[], $4::int4[])
       AS asked (shard, first, from_piece, to_piece)
 CROSS JOIN LATERAL (
    SELECT *, sum(coalesce(octet_length(brief), len)) OVER (ORDER BY head) AS total FROM (
        SELECT head, piece, brief, coalesce(len, octet_length(bytes)) AS len
          FROM log
         WHERE log.shard = asked.shard
           AND log.piece BETWEEN asked.from_piece AND asked.to_piece
           AND log.piece BETWEEN $7::int4 AND $8::int4
           AND log.head >= asked.first AND log.head < asked.first + $6::int8 AND log.part = 0
        OFFSET 0) AS entry
 ) AS summed
 WHERE summed.head = asked.first OR summed.total <= $5::int8
 ORDER BY asked.shard, summed.head";

/// Bytes of an entry, and the entry if it is small, or else some of its bytes: from the parts they
/// stand in, or from the only one where it was not cut. Parameters: shard, entry, offset from 1,
/// length, small, first piece, last piece, bytes of a part.
pub(super) const BODY: &str = "
SELECT entry.len, coalesce((
       SELECT CASE WHEN entry.len <= $5::int4 THEN string_agg(bytes, '' ORDER BY part)
              ELSE substring(string_agg(bytes, '' ORDER BY part)
                             FROM $3::int4 - $8::int4 * min(part) FOR $4::int4) END
         FROM log
        WHERE shard = $1::int4 AND head = $2::int8 AND piece BETWEEN $6::int4 AND $7::int4
          AND part BETWEEN CASE WHEN entry.is_whole THEN 0 ELSE ($3::int4 - 1) / $8::int4 END
              AND CASE WHEN entry.is_whole THEN 2147483647
                  ELSE ($3::int8 + $4::int8 - 2) / $8::int4 END
       ), '')
  FROM (SELECT coalesce(len, octet_length(bytes)) AS len,
               coalesce(len, octet_length(bytes)) <= greatest($5::int4, octet_length(bytes)) AS is_whole
          FROM log
         WHERE shard = $1::int4 AND head = $2::int8 AND piece BETWEEN $6::int4 AND $7::int4
           AND part = 0) AS entry";
