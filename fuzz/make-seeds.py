#!/usr/bin/env python3
"""Writes the seeds that fuzzers start from, below fuzz/seeds.

In: the dumps of protocol/README.md, which a test holds against the code, and the byte table of
src/journal/FORMAT.md. Out: small files, the same ones at each run. Run it by hand when a format
changes, and commit what it wrote.
"""

import re
import struct
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"
FRAME_HEADER_BYTES = 16
REQUEST_OPCODES = range(1, 128)


def dumps():
    """Every example of the protocol's page: its name and its bytes."""
    page = (ROOT / "protocol" / "README.md").read_text(encoding="utf-8")
    for name, lines in re.findall(r"```text\n# (\w+)\n(.*?)```", page, re.S):
        yield name, bytes.fromhex(" ".join(line.split("|")[0] for line in lines.splitlines()))


def batch(*records, checksum=None):
    """A record batch of (flags, fields before the payload, payload)."""
    body = b"".join(
        struct.pack("<IB", 1 + len(fields) + len(payload), flags) + fields + payload
        for flags, fields, payload in records
    )
    has_ids = any(flags & 1 for flags, _, _ in records)
    checksum = zlib.crc32(body) if checksum is None else checksum
    return struct.pack("<BBHIII", 1, has_ids, 0, len(records), len(body), checksum) + body


def batches():
    yield "empty-payload", batch((0, b"", b""))
    yield "three-records", batch((0, b"", b"a"), (8, b"", b'{"n":1}'), (0, b"", bytes(64)))
    yield "transaction-ids", batch((1, b"\x02t1", b"x"), (1, b"\x02t1", b"y"), (0, b"", b"z"))
    headers = b"\x01a\x00\x00\x01a\x02\x00bc"
    yield "repeated-header", batch((4, struct.pack("<H", len(headers)) + headers, b""))
    yield "everything", batch((15, b"\x01i" + bytes(16) + b"\x00\x00", b"null"))
    yield "wrong-checksum", batch((0, b"", b"a"), checksum=7)


def requests_and_answers(frames):
    for name, frame in frames:
        opcode = frame[4]
        target = "request" if opcode in REQUEST_OPCODES else "response"
        yield target, name, bytes([opcode]) + frame[FRAME_HEADER_BYTES:]
    section = b"\x01q\x01p"
    sections = section + struct.pack("<I", 0) + section + struct.pack("<I", 3) + b"abc"
    yield "request", "push-bad-batches", b"\x03\x02" + bytes(12) + b"\x02\x00" + sections
    yield "request", "push-no-section", b"\x03\x00" + bytes(14)
    yield "request", "unknown", b"\x4d"


def streams(frames):
    frames = dict(frames)
    yield "two-frames", frames["hello"] + frames["ping"]
    yield "frame-and-a-half", frames["ping"] + frames["push"][:30]
    yield "length-only", struct.pack("<I", 12)
    yield "length-too-small", struct.pack("<I", 11) + bytes(12)
    yield "length-too-large", struct.pack("<I", 0xFFFFFFFF) + bytes(12)
    yield "unknown-flag", struct.pack("<IBBHQ", 12, 2, 1, 0, 1)


HTTP_PUSHES = {
    "one": '{"items":[{"queue":"orders","partition":"p1","payload":{"n":1},"transactionId":"t1"}]}',
    "defaults": '{"items":[{"queue":"q","payload":null},{"queue":"q"}]}',
    "empty": '{"items":[]}',
    "terms": '{"qos0":true,"bufferMs":100,"bufferMax":10,"items":[{"queue":"q","payload":[1.5e3,-0]}]}',
    "ids": '{"items":[{"queue":"q","payload":"\\u00e9\\ud83d\\ude00","transactionId":"a\\"b",'
    '"traceId":"01890a5d-ac96-774b-bcce-b302099a8057"}]}',
    "wrong-kinds": '{"items":[{"queue":1,"partition":[],"payload":{},"traceId":7}]}',
    "repeated-keys": '{"items":[],"items":[{"queue":"a","queue":"b","payload":1,"payload":2}]}',
    "deep": '{"items":[{"queue":"q","payload":' + "[" * 200 + "]" * 200 + "}]}",
    "blanks": ' {\n\t"items" : [ { "queue" : "q" , "payload" : { } } ] } \r\n',
    "cut": '{"items":[{"queue":"q","payload":"abc',
}


PROCESS_JSON = {
    "object": b'{"action":"transfer","to":"bob","quantity":10,"tags":["a",{"b":null}]}',
    "numbers": b"[0,-0.0,1.5e3,9007199254740992,9007199254740993,-1e-300,0.1]",
    "empty": b'{"list":[],"object":{},"text":""}',
    "escapes": b'"\\u00e9\\ud83d\\ude00\\ud83d\\n\\u0000\\/"',
    "nulls": b'[null,{"a":null},null]',
    "repeated-keys": b'{"a":1,"b":2,"a":[3]}',
    "deep": b"[" * 99 + b"{}" + b"]" * 99,
    "too-deep": b"[" * 200,
    "not-utf-8": b'{"a":"\xff\xfe"}',
    "cut": b'{"a":[1,2,{"b":"c',
}


def record(payload, kind=1, durable=0):
    """A record of the log. Its checks are zero: the fuzz body repairs them where it is told to."""
    header = struct.pack("<IIIB3xQ", 0, len(payload), zlib.crc32(payload), kind, durable)
    return header + payload + bytes(-len(payload) % 8)


def logs():
    """The first byte steers: 1 no page, 2 no repair, 64 per further segment."""
    seal, mark = record(b"", kind=255), record(b"", kind=254, durable=4096)
    three = record(b"hello") + record(b"") + record(bytes(range(40)))
    yield "empty", b"\x00"
    yield "three-records", b"\x00" + three
    yield "marked", b"\x00" + three + mark
    yield "durable-beyond-a-hole", b"\x00" + three + bytes(24) + record(b"x", durable=4300)
    yield "torn-tail", b"\x00" + three + record(b"never whole")[:29]
    yield "two-segments", b"\x40" + three + seal + three + mark
    yield "bad-checks", b"\x02" + three
    yield "no-page", b"\x01" + three
    yield "length-too-large", b"\x00" + struct.pack("<IIIB3xQ", 0, 0xFFFFFFF0, 0, 1, 0)


def write(target, name, data):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    examples = list(dumps())
    frames = [(name, data) for name, data in examples if name != "batch"]
    for name, data in [*frames, *streams(frames)]:
        write("frame", name, data)
    for target, name, data in requests_and_answers(frames):
        write(target, name, data)
    for name, data in [("page", dict(examples)["batch"]), *batches()]:
        write("batch", name, data)
        # The same bytes as what comes back from a store.
        write("sealed", name, data)
    for name, text in HTTP_PUSHES.items():
        write("http_push", name, text.encode())
    for name, data in PROCESS_JSON.items():
        write("process_json", name, data)
    for name, data in logs():
        write("journal_recovery", name, data)


if __name__ == "__main__":
    main()
