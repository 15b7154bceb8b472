"""Writes topics with Confluent's JSONSerializer: one whose JSON Schema gives the columns, and one with a column of each
type of SQL, as the spec's list of columns has them."""
import base64
import datetime
import decimal
import json
import sys
import uuid

from confluent_kafka.schema_registry.json_schema import JSONSerializer

from exact import single
from producer import Expected, Kafka, pick, write

UTC = datetime.timezone.utc
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object",
    "definitions": {"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": ["number", "null"]}}}},
    "properties": {
        "id": {"type": "integer"}, "n": {"type": "integer"}, "ratio": {"type": "number"}, "yes": {"type": "boolean"}, "text": {"type": "string"},
        "day": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"}, "guid": {"type": "string", "format": "uuid"},
        "raw": {"type": "string", "contentEncoding": "base64"}, "point": {"$ref": "#/definitions/point"}, "points": {"type": "array", "items": {"$ref": "#/definitions/point"}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}}, "maybe": {"type": ["string", "null"]},
        "one": {"oneOf": [{"type": "null"}, {"type": "integer"}]}, "any": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "kind": {"enum": ["NEW", "OLD"]}, "fixed": {"const": 5}, "both": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "object", "properties": {"b": {"type": "string"}}}]},
        "mixed": {"type": ["string", "integer", "object"]}, "free": {}, "tuple": {"type": "array", "items": [{"type": "integer"}, {"type": "string"}]},
    },
}
POINT = "struct<x: double, y: double>"


def schema(kafka, topic, n):
    serializer = JSONSerializer(json.dumps(SCHEMA), kafka.registry)
    expected = Expected("id", {"id": "long", "n": "long", "ratio": "double", "yes": "boolean", "text": "string", "day": "date", "at": "timestamptz", "guid": "uuid", "raw": "binary",
        "point": POINT, "points": f"list<{POINT}>", "counts": "map<string, long>", "maybe": "string", "one": "long", "any": "boolean", "kind": "string", "fixed": "long",
        "both": "struct<a: long, b: string>", "mixed": "string", "free": "string", "tuple": "string"})
    for i in range(n):
        at = datetime.datetime(2026, 5, 1, 12, 0, 0, i, UTC)
        raw, guid = bytes([i % 256, 255]), uuid.UUID(int=i)
        value = {"id": i, "n": pick(i, 0, 2**63 - 1, -(2**63), 2**53 + 1), "ratio": pick(i, 0.1, -1e300, 5e-324), "yes": i % 2 == 0, "text": pick(i, "", "ä\n\"\\", "日本語 🧊"),
            "point": {"x": i / 4, "y": None}, "points": pick(i, [], [{"x": 1.5, "y": 2.0}]), "counts": pick(i, {}, {"a": 1, "": -1}), "maybe": pick(i, None, "x"), "one": pick(i, None, 7),
            "any": pick(i, None, True, False), "kind": pick(i, "NEW", "OLD"), "fixed": 5, "both": {"a": i, "b": "b"}}
        row = value | {"counts": list(value["counts"].items()), "day": at.date(), "at": at, "guid": guid, "raw": raw}
        mixed = pick(i, ("text", '"text"'), (5, "5"))
        free = pick(i, ([1], "[1]"), (True, "true"), ("x", '"x"'))
        row |= {"mixed": mixed[1], "free": free[1], "tuple": '[1,"a"]'}
        value |= {"day": at.date().isoformat(), "at": at.isoformat(), "guid": str(guid), "raw": base64.b64encode(raw).decode(), "mixed": mixed[0], "free": free[0], "tuple": [1, "a"]}
        expected.row(**row)
        kafka.send(topic, kafka.bytes(topic, value, serializer))
    return expected


# By column: the type in the spec, the type in the table, and values: what is written, and beside it what must come out.
COLUMNS = {
    "b": ("BOOLEAN", "boolean", [(True, True), (False, False)]),
    "i8": ("TINYINT", "int", [(127, 127), (-128, -128)]),
    "i16": ("SMALLINT", "int", [(32767, 32767), (-32768, -32768)]),
    "i32": ("INTEGER", "int", [(2**31 - 1, 2**31 - 1), (-(2**31), -(2**31))]),
    "i64": ("BIGINT", "long", [(2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (0, 0)]),
    "u8": ("UTINYINT", "int", [(255, 255), (0, 0)]),
    "u16": ("USMALLINT", "int", [(65535, 65535), (0, 0)]),
    "u32": ("UINTEGER", "long", [(2**32 - 1, 2**32 - 1), (0, 0)]),
    "u64": ("UBIGINT", "decimal(20, 0)", [(2**64 - 1, decimal.Decimal(2**64 - 1)), (0, decimal.Decimal(0))]),
    "f32": ("FLOAT", "float", [(0.1, single(0.1)), (-1.5, -1.5), (0, 0.0)]),
    "f64": ("DOUBLE", "double", [(0.1, 0.1), (5e-324, 5e-324), (-1e308, -1e308), (3, 3.0)]),
    "d9": ("DECIMAL(9,2)", "decimal(9, 2)", [("9999999.99", decimal.Decimal("9999999.99")), (-1.25, decimal.Decimal("-1.25")), (7, decimal.Decimal("7.00"))]),
    "d38": ("DECIMAL(38,10)", "decimal(38, 10)", [("9999999999999999999999999999.9999999999", decimal.Decimal("9999999999999999999999999999.9999999999"))]),
    "text": ("VARCHAR", "string", [("", ""), ("ä\u0000\n", "ä\u0000\n"), ("🧊", "🧊")]),
    "raw": ("BLOB", "binary", [(base64.b64encode(x).decode(), x) for x in (b"", b"\x00\xff", bytes(range(256)))]),
    "day": ("DATE", "date", [(x, datetime.date.fromisoformat(x)) for x in ("1970-01-01", "0001-01-01", "9999-12-31")]),
    "clock": ("TIME", "time", [(x, datetime.time.fromisoformat(x)) for x in ("00:00:00", "23:59:59.999999")]),
    "at": ("TIMESTAMP", "timestamp", [("2026-05-01T12:00:00.123456", datetime.datetime(2026, 5, 1, 12, 0, 0, 123456))]),
    "at_s": ("TIMESTAMP_S", "timestamp", [("2026-05-01T12:00:00", datetime.datetime(2026, 5, 1, 12))]),
    "at_ms": ("TIMESTAMP_MS", "timestamp", [("1969-12-31T23:59:59.999", datetime.datetime(1969, 12, 31, 23, 59, 59, 999000))]),
    "at_ns": ("TIMESTAMP_NS", "long", [("2026-05-01T12:00:00.123456789", 1777636800123456789), ("1970-01-01T00:00:00", 0)]),
    "at_tz": ("TIMESTAMPTZ", "timestamptz", [("2026-05-01T14:00:00.000001+02:00", datetime.datetime(2026, 5, 1, 12, 0, 0, 1, UTC))]),
    "guid": ("UUID", "uuid", [(str(x), x) for x in (uuid.UUID(int=0), uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"))]),
    "tags": ("VARCHAR[]", "list<string>", [([], []), (["a", None, ""], ["a", None, ""])]),
    "grid": ("BIGINT[][]", "list<list<long>>", [([[1], [], None], [[1], [], None]), ([], [])]),
    "geo": ("STRUCT(lat DOUBLE, deep STRUCT(n INTEGER, days DATE[]))", "struct<lat: double, deep: struct<n: int, days: list<date>>>", [
        ({"lat": 1.5, "deep": {"n": 1, "days": ["2026-05-01"]}}, {"lat": 1.5, "deep": {"n": 1, "days": [datetime.date(2026, 5, 1)]}}),
        ({"deep": {}}, {"lat": None, "deep": {"n": None, "days": None}}),
    ]),
    "counts": ("MAP(VARCHAR, BIGINT)", "map<string, long>", [({}, []), ({"a": 1, "": None}, [("a", 1), ("", None)])]),
    "prices": ("MAP(VARCHAR, DECIMAL(5,1)[])", "map<string, list<decimal(5, 1)>>", [({"a": ["1.5", "-9999.9"], "b": []}, [("a", [decimal.Decimal("1.5"), decimal.Decimal("-9999.9")]), ("b", [])])]),
}


def columns(kafka, topic, n):
    serializer = JSONSerializer('{"title": "Any", "type": "object"}', kafka.registry)
    expected = Expected("id", {"id": "long"} | {name: t for name, (_, t, _) in COLUMNS.items()})
    for i in range(n):
        value, row = {"id": i}, {"id": i}
        for k, (name, (_, _, values)) in enumerate(COLUMNS.items()):
            if (i + k) % 7 == 0:  # NULL, by name or by silence
                row[name] = None
                if i % 2:
                    value[name] = None
                continue
            value[name], row[name] = pick(i, *values)
        expected.row(**row)
        kafka.send(topic, kafka.bytes(topic, value, serializer))
    return expected


if __name__ == "__main__":
    if sys.argv[1:] == ["columns"]:
        print(", ".join(["id BIGINT"] + [f"{name} {t}" for name, (t, _, _) in COLUMNS.items()]))
        sys.exit()
    brokers, registry, path = sys.argv[1:4]
    kafka = Kafka(brokers, registry)
    tables = {"json_schema": schema(kafka, "json-schema", 420), "json_columns": columns(kafka, "json-columns", 420)}
    kafka.flush()
    write(path, **tables)
