"""Writes topics with Confluent's AvroSerializer: one with a column of each type of Avro, one whose records are plain
numbers, and one whose records are a union."""
import datetime
import decimal
import json
import sys
import uuid

from confluent_kafka.schema_registry.avro import AvroSerializer

from exact import single
from producer import Expected, Kafka, pick, write

UTC = datetime.timezone.utc
INNER = {"type": "record", "name": "Inner", "fields": [{"name": "b", "type": "string"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}, {"name": "more", "type": {"type": "array", "items": "long"}}]}
POINT = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "double"}, {"name": "y", "type": ["null", "double"]}]}


def logical(t, name, **more):
    return {**(t if isinstance(t, dict) else {"type": t}), "logicalType": name, **more}


def fixed(name, size):
    return {"type": "fixed", "name": name, "size": size}


# Each column: its type in Avro, its type in the table, and the values that are tried: what is given to the serializer,
# and beside it, where it is another one, what must come out.
COLUMNS = {
    "yes": ("boolean", "boolean", [True, False]),
    "small": ("int", "int", [0, 1, -1, 2**31 - 1, -(2**31), 300]),
    "large": ("long", "long", [0, 2**63 - 1, -(2**63), 2**53 + 1, -7]),
    "single": ("float", "float", [0.0, -0.0, single(0.1), single(3.4e38), float("inf"), float("nan"), single(-1.5e-45)]),
    "double": ("double", "double", [0.1, -0.0, 1.7976931348623157e308, 5e-324, float("-inf"), float("nan")]),
    "text": ("string", "string", ["", "plain", "ä ö ü", "日本\x00語", "🧊" * 40]),
    "raw": ("bytes", "binary", [b"", b"\x00\xff", bytes(range(256))]),
    "four": (fixed("Four", 4), "binary", [b"\x00\x01\x02\x03", b"frzl"]),
    "kind": ({"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD", "GONE"]}, "string", ["NEW", "OLD", "GONE"]),
    "nothing": ("null", "int", [None]),
    "maybe": (["null", "long"], "long", [None, 5, -(2**40)]),
    "back": (["string", "null"], "string", ["x", None]),
    "alone": (["long"], "long", [3, 4]),
    "numbers": ({"type": "array", "items": "int"}, "list<int>", [[], [1], [1, -2, 3] * 50]),
    "gaps": ({"type": "array", "items": ["null", "string"]}, "list<string>", [[], [None], ["a", None, "b"]]),
    "grid": ({"type": "array", "items": {"type": "array", "items": "double"}}, "list<list<double>>", [[], [[]], [[1.5], [], [2.5, 3.5]]]),
    "words": ({"type": "map", "values": "string"}, "map<string, string>", [({}, []), ({"a": "1", "": "2"}, [("a", "1"), ("", "2")])]),
    "lists": ({"type": "map", "values": {"type": "array", "items": "long"}}, "map<string, list<long>>", [({"k": [1, 2], "l": []}, [("k", [1, 2]), ("l", [])]), ({}, [])]),
    "inside": (INNER, "struct<b: string, at: timestamptz, more: list<long>>", [{"b": "x", "at": datetime.datetime(2026, 5, 1, 12, 0, 0, 1, UTC), "more": [1, 2]}, {"b": "", "at": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), "more": []}]),
    "points": ({"type": "array", "items": POINT}, "list<struct<x: double, y: double>>", [[], [{"x": 1.5, "y": None}, {"x": -2.5, "y": 0.25}]]),
    "somewhere": (["null", "Point"], "struct<x: double, y: double>", [None, {"x": 0.5, "y": 1.0}]),
    "either": (["null", "string", "long", "boolean", "Point", "Four", "Kind"], "struct<string: string, long: long, boolean: boolean, Point: struct<x: double, y: double>, Four: binary, Kind: string>", [
        (None, None),
        ("text", {"string": "text"}),
        (12, {"long": 12}),
        (True, {"boolean": True}),
        (("shop.Point", {"x": 7.0, "y": None}), {"Point": {"x": 7.0, "y": None}}),
        (("shop.Four", b"abcd"), {"Four": b"abcd"}),
        (("shop.Kind", "OLD"), {"Kind": "OLD"}),
    ]),
    "price": (logical("bytes", "decimal", precision=9, scale=2), "decimal(9, 2)", [decimal.Decimal(x) for x in ("0.00", "-0.01", "9999999.99", "-9999999.99", "1.20")]),
    "wide": (logical(fixed("Wide", 16), "decimal", precision=38, scale=10), "decimal(38, 10)", [decimal.Decimal(x) for x in ("9999999999999999999999999999.9999999999", "-0.0000000001", "1.5000000000")]),
    "huge": (logical("bytes", "decimal", precision=50, scale=3), "string", [(decimal.Decimal(x), x) for x in ("1" * 45 + ".125", "-0.001")]),
    "day": (logical("int", "date"), "date", [datetime.date(1970, 1, 1), datetime.date(1969, 12, 31), datetime.date(9999, 12, 31), datetime.date(1, 1, 1)]),
    "clock_ms": (logical("int", "time-millis"), "time", [datetime.time(0, 0), datetime.time(23, 59, 59, 999000)]),
    "clock_us": (logical("long", "time-micros"), "time", [datetime.time(0, 0, 0, 1), datetime.time(23, 59, 59, 999999)]),
    "at_ms": (logical("long", "timestamp-millis"), "timestamptz", [datetime.datetime(2026, 5, 1, 12, 0, 0, 123000, UTC), datetime.datetime(1900, 1, 1, tzinfo=UTC)]),
    "at_us": (logical("long", "timestamp-micros"), "timestamptz", [datetime.datetime(2026, 5, 1, 12, 0, 0, 123456, UTC), datetime.datetime(1, 1, 1, 0, 0, 0, 1, UTC), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]),
    "at_ns": (logical("long", "timestamp-nanos"), "long", [0, -1, 1777636800123456789]),
    "local_ms": (logical("long", "local-timestamp-millis"), "timestamp", [datetime.datetime(2026, 5, 1, 12, 0, 0, 5000), datetime.datetime(1969, 12, 31, 23, 59, 59, 999000)]),
    "local_us": (logical("long", "local-timestamp-micros"), "timestamp", [datetime.datetime(2026, 5, 1, 12, 0, 0, 5), datetime.datetime(1, 1, 1)]),
    "local_ns": (logical("long", "local-timestamp-nanos"), "long", [1, 1777636800000000001]),
    "guid": (logical("string", "uuid"), "uuid", [uuid.UUID(int=0), uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), uuid.UUID(int=2**128 - 1)]),
    "span": (logical(fixed("Span", 12), "duration"), "struct<months: long, days: long, millis: long>", [(bytes.fromhex("010000000200000003000000"), {"months": 1, "days": 2, "millis": 3}), (b"\xff" * 12, {"months": 2**32 - 1, "days": 2**32 - 1, "millis": 2**32 - 1})]),
    "mood": (logical("string", "mood"), "string", ["good"]),
    "days": ({"type": "map", "values": ["null", logical("int", "date")]}, "map<string, date>", [({"d": datetime.date(2026, 1, 2), "n": None}, [("d", datetime.date(2026, 1, 2)), ("n", None)]), ({}, [])]),
    "prices": ({"type": "array", "items": logical("bytes", "decimal", precision=5, scale=1)}, "list<decimal(5, 1)>", [[decimal.Decimal("1.5"), decimal.Decimal("-9999.9")], []]),
}
MEMBERS = ["string", "long", "boolean", "Point", "Four", "Kind"]  # of "either"


def every(kafka, topic, n):
    schema = {"type": "record", "name": "Every", "namespace": "shop", "fields": [{"name": "id", "type": "long"}] + [{"name": name, "type": t} for name, (t, _, _) in COLUMNS.items()]}
    serializer = AvroSerializer(kafka.registry, json.dumps(schema))
    expected = Expected("id", {"id": "long"} | {name: t for name, (_, t, _) in COLUMNS.items()})
    for i in range(n):
        value, row = {"id": i}, {"id": i}
        for name, (_, _, values) in COLUMNS.items():
            v = pick(i, *values)
            value[name], row[name] = v if isinstance(v, tuple) and len(v) == 2 else (v, v)
        if row["either"] is not None:  # a member for each type
            row["either"] = {m: row["either"].get(m) for m in MEMBERS}
        expected.row(**row)
        kafka.send(topic, kafka.bytes(topic, value, serializer))
    return expected


def numbers(kafka, topic, n):
    serializer = AvroSerializer(kafka.registry, '"long"')
    expected = Expected("value", {"value": "long"})
    for i in range(n):
        expected.row(value=i * 2**55)
        kafka.send(topic, kafka.bytes(topic, i * 2**55, serializer))
    return expected


def either(kafka, topic, n):
    def record(name, t):
        return {"type": "record", "name": name, "namespace": "shop", "fields": [{"name": "id", "type": "long"}, {"name": "v", "type": t}]}

    serializer = AvroSerializer(kafka.registry, json.dumps([record("Order", "string"), record("Refund", "double")]))
    expected = Expected("id", {"id": "long", "Order": "struct<id: long, v: string>", "Refund": "struct<id: long, v: double>"})
    for i in range(n):
        if i % 3:
            kafka.send(topic, kafka.bytes(topic, ("shop.Order", {"id": i, "v": f"o{i}"}), serializer))
            expected.row(id=i, Order={"id": i, "v": f"o{i}"}, Refund=None)
        else:
            kafka.send(topic, kafka.bytes(topic, ("shop.Refund", {"id": i, "v": i / 8}), serializer))
            expected.row(id=i, Order=None, Refund={"id": i, "v": i / 8})
    return expected


if __name__ == "__main__":
    brokers, registry, path = sys.argv[1:4]
    kafka = Kafka(brokers, registry)
    tables = {"avro_every": every(kafka, "avro-every", 420), "avro_numbers": numbers(kafka, "avro-numbers", 100), "avro_either": either(kafka, "avro-either", 100)}
    kafka.flush()
    write(path, **tables)
