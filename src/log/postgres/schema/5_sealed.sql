-- Messages of queues that ask for encryption: what stands beside the payload is shown, the payload is
-- not. Only a server that has the key can open it, so `payload` and `payload_bytes` are NULL.
ALTER TABLE message_rows ALTER COLUMN payload_bytes DROP NOT NULL;

CREATE OR REPLACE FUNCTION batch_records(
    entry bytea, start int4,
    OUT place int4, OUT transaction_id text, OUT is_json bool, OUT payload_bytes bytea
) RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path FROM CURRENT AS $$
DECLARE
    body CONSTANT bytea := substring(entry FROM start + 1 FOR 16 + le32(
        substring(entry FROM start + 9 FOR 4), 0)::int4);
    is_sealed CONSTANT bool := get_byte(body, 1) & 8 <> 0;
    behind int4 := 16;
    here int4;
    flags int4;
    bytes int4;
BEGIN
    IF get_byte(body, 1) & 6 <> 0 THEN
        RAISE EXCEPTION 'this batch is compressed; ask a server for its messages';
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
        payload_bytes := CASE WHEN NOT is_sealed THEN
            substring(body FROM here + 1 FOR behind - here) END;
        RETURN NEXT;
    END LOOP;
END $$;
