"""Writes a JSON and an Avro topic of which one record in fifty is bad, each in another way, and notes where each one
landed and what is wrong with it."""
import json
import random
import struct
import sys

from confluent_kafka.schema_registry.avro import AvroSerializer

from producer import Expected, Kafka, write


def order(i, **change):
    return json.dumps({"id": i, "small": i % 100, "price": "1.25", "at": "2026-05-01T12:00:00Z", "tags": ["a"], "geo": {"lat": 1.5}, "ok": True, "n": "7"} | change).encode()


# By kind: the code, and the record that has the number i.
JSON_KINDS = {
    "cut": ("decode", lambda i: order(i)[:-5]),
    "empty": ("decode", lambda i: b""),
    "comma at the end": ("decode", lambda i: order(i)[:-1] + b",}"),
    "more behind": ("decode", lambda i: order(i) + b"{}"),
    "single quotes": ("decode", lambda i: b"{'id': %d}" % i),
    "name without quotes": ("decode", lambda i: b"{id: %d}" % i),
    "bad escape": ("decode", lambda i: b'{"id": %d, "n": "\\x41"}' % i),
    "no UTF-8": ("decode", lambda i: b'{"id": %d, "n": "\xff\xfe"}' % i),
    "line end in text": ("decode", lambda i: b'{"id": %d, "n": "a\nb"}' % i),
    "NaN": ("decode", lambda i: b'{"id": %d, "geo": {"lat": NaN}}' % i),
    "zero in front": ("decode", lambda i: b'{"id": %d, "small": 007}' % i),
    "depth": ("decode", lambda i: b'{"id": %d, "x": ' % i + b"[" * 100_000),
    "an array": ("decode", lambda i: b"[%d]" % i),
    "text for a number": ("decode", lambda i: order(i, small="7")),
    "number for text": ("decode", lambda i: order(i, n=7)),
    "fraction": ("decode", lambda i: order(i, small=1.5)),
    "object for a list": ("decode", lambda i: order(i, tags={})),
    "out of range": ("decode", lambda i: order(i, small=32768)),
    "too many digits": ("decode", lambda i: order(i, price="12345678901.25")),
    "month 13": ("decode", lambda i: order(i, at="2026-13-01T12:00:00Z")),
    "no id": ("decode", lambda i: order(i, id=None)),
    "id beyond 64 bits": ("decode", lambda i: order(i, id=2**63)),
    "SQL cannot cast it": ("cast", lambda i: order(i, n="seven")),
}
CLICK = {"type": "record", "name": "Click", "fields": [
    {"name": "id", "type": "long"}, {"name": "page", "type": "string"}, {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
    {"name": "maybe", "type": ["null", "long"]}, {"name": "yes", "type": "boolean"},
]}
OTHER = {"type": "record", "name": "Click", "fields": [{"name": "id", "type": "long"}, {"name": "page", "type": "boolean"}]}


def click(i, page=b"\x02p", kind=b"\x00", maybe=b"\x00", yes=b"\x01"):
    """A record in Avro's bytes, by hand."""
    n, number = (i << 1), b""
    while n > 127:
        number, n = number + bytes([n & 127 | 128]), n >> 7
    return number + bytes([n]) + page + kind + maybe + yes


def avro_kinds(own, other):
    head = b"\x00" + struct.pack(">I", own)
    return {
        "unknown id": ("schema", lambda i: b"\x00" + struct.pack(">I", 99_999) + click(i)),
        "another schema": ("schema", lambda i: b"\x00" + struct.pack(">I", other) + click(i)),
        "no header": ("decode", lambda i: b"\x01\x02"),
        "other magic byte": ("decode", lambda i: b"\x07" + head[1:] + click(i)),
        "header only": ("decode", lambda i: head),
        "cut": ("decode", lambda i: head + click(i)[:-1]),
        "bytes behind": ("decode", lambda i: head + click(i) + b"\x00"),
        "length below zero": ("decode", lambda i: head + click(i, page=b"\x03")),
        "length beyond the end": ("decode", lambda i: head + click(i, page=b"\xfe\xff\x07p")),
        "no UTF-8": ("decode", lambda i: head + click(i, page=b"\x02\xff")),
        "symbol 7": ("decode", lambda i: head + click(i, kind=b"\x0e")),
        "branch 5": ("decode", lambda i: head + click(i, maybe=b"\x0a")),
        "boolean 2": ("decode", lambda i: head + click(i, yes=b"\x02")),
        "endless number": ("decode", lambda i: head + b"\xff" * 11),
    }


def mix(kafka, topic, n, kinds, good, expected, letters):
    """Sends n records; every fiftieth or so is bad, the kinds in turn."""
    rnd, names, bad = random.Random(topic), list(kinds), 0
    for i in range(n):
        if rnd.randrange(50):
            value, row = good(i)
            expected.row(**row)
            kafka.send(topic, value)
            continue
        name = names[bad % len(names)]
        bad += 1
        code, make = kinds[name]
        value = make(i)

        def landed(partition, offset, name=name, code=code, value=value):
            letters.append({"topic": topic, "partition": partition, "offset": offset, "kind": name, "code": code, "value": value.hex()})

        kafka.send(topic, value, delivered=landed)
    if bad < len(names):
        raise ValueError(f"{topic}: {bad} bad records are not {len(names)} kinds")


if __name__ == "__main__":
    brokers, registry, path, n = sys.argv[1:5]
    kafka, letters = Kafka(brokers, registry), []
    orders = Expected("id", {"id": "long", "small": "int", "n": "int"})
    mix(kafka, "poison-json", int(n), JSON_KINDS, lambda i: (order(i), {"id": i, "small": i % 100, "n": 7}), orders, letters)
    serializer = AvroSerializer(kafka.registry, json.dumps(CLICK))
    value = {"id": 1, "page": "p", "kind": "A", "maybe": None, "yes": True}
    first = kafka.bytes("poison-avro", value, serializer)
    if first[5:] != click(1):
        raise ValueError(f"{click(1)} by hand is not {first[5:]}")
    other = AvroSerializer(kafka.registry, json.dumps(OTHER))
    foreign = kafka.bytes("elsewhere", {"id": 1, "page": True}, other)
    own, foreign = (struct.unpack(">I", x[1:5])[0] for x in (first, foreign))
    clicks = Expected("id", {"id": "long", "page": "string", "kind": "string", "maybe": "long", "yes": "boolean"})
    mix(kafka, "poison-avro", int(n), avro_kinds(own, foreign), lambda i: (kafka.bytes("poison-avro", value | {"id": i}, serializer), value | {"id": i}), clicks, letters)
    kafka.flush()
    write(path, poison_orders=orders, poison_clicks=clicks)
    with open(path + ".letters", "w") as out:
        json.dump(letters, out)
