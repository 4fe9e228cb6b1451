-- What other engines read of an entry: the same without its payloads. There is one only where other
-- engines were there when the entry was written.
ALTER TABLE log ADD COLUMN brief bytea;
ALTER TABLE log ALTER COLUMN brief SET STORAGE EXTERNAL;

-- Between a batch and what is said about it also stands who pushed it, where that is known.
CREATE OR REPLACE FUNCTION entry_batches(
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
    flags int4;
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
        flags := get_byte(body, here - 7);
        start := here + 24;
        IF flags & 2 <> 0 THEN
            start := start + 1 + get_byte(body, start);
        END IF;
        -- Fingerprints, 16 bytes a record.
        start := start + (flags & 1) * 16 * records;
        RETURN NEXT;
    END LOOP;
END $$;
