"""Writes one topic with ten schemas, each registered after the one before; the next one when a line comes in. The last two
are mixed, record by record."""
import datetime
import json
import sys
from decimal import Decimal

from confluent_kafka.schema_registry.avro import AvroSerializer

from exact import single
from producer import Expected, Kafka, write

UTC = datetime.timezone.utc


def optional(name, t):
    return {"name": name, "type": ["null", t], "default": None}


def geo(name, *fields):
    return {"name": name, "type": ["null", {"type": "record", "name": "Geo", "fields": list(fields)}], "default": None}


def steps(*fields):
    return optional("steps", {"type": "array", "items": {"type": "record", "name": "Step", "fields": list(fields)}})


def price(precision):
    return optional("price", {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2})


ID, OLD = {"name": "id", "type": "long"}, {"name": "old", "type": "string", "default": ""}
LAT, LON = {"name": "lat", "type": "float"}, optional("lon", "double")
WIDE_LAT, N = {"name": "lat", "type": "double"}, {"name": "n", "type": "int"}
AT = optional("at", {"type": "long", "logicalType": "timestamp-micros"})
KIND = optional("kind", {"type": "enum", "name": "Kind", "symbols": ["A", "B"]})
LONG_N = {"name": "n", "type": "long"}
SCHEMAS = [
    [ID, N, OLD],
    [ID, N, OLD, optional("page", "string")],  # a column
    [ID, LONG_N, OLD, optional("page", "string")],  # a wider one
    [ID, LONG_N, OLD, optional("page", "string"), geo("geo", LAT)],  # a struct
    [ID, LONG_N, OLD, optional("page", "string"), geo("geo", LAT, LON), price(9)],  # a field in it
    [ID, LONG_N, optional("page", "string"), geo("geo", LAT, LON), price(9), AT],  # a column goes
    [ID, LONG_N, optional("page", "string"), geo("geo", WIDE_LAT, LON), price(9), AT, steps({"name": "a", "type": "int"})],  # a wider field, a list
    [AT, KIND, ID, LONG_N, optional("page", "string"), geo("geo", WIDE_LAT, LON), price(12), steps({"name": "a", "type": "int"})],  # another order, more digits
    [AT, KIND, ID, LONG_N, optional("page", "string"), geo("geo", WIDE_LAT, LON), price(12), steps({"name": "a", "type": "long"}, optional("b", "string"))],  # inside of a list
    [AT, KIND, ID, LONG_N, optional("page", "string"), geo("geo", WIDE_LAT, LON), price(12), steps({"name": "a", "type": "long"}, optional("b", "string")), optional("words", {"type": "map", "values": "long"}), optional("old", "string")],  # what went comes back
]
TYPES = {"id": "long", "n": "long", "old": "string", "page": "string", "geo": "struct<lat: double, lon: double>", "price": "decimal(12, 2)", "at": "timestamptz",
    "steps": "list<struct<a: long, b: string>>", "kind": "string", "words": "map<string, long>"}


def record(version, i):
    """A record in a schema, and the row of the last one that it must become."""
    names = {f["name"] for f in SCHEMAS[version]}
    large, lon, digits = version >= 2, version >= 4, version >= 7
    value = {"id": i, "n": 2**40 + i if large else -i, "old": f"old {i}", "page": None if i % 5 == 0 else f"page {i}",
        "geo": None if i % 3 == 0 else {"lat": 0.1 * i if version >= 6 else single(0.1), **({"lon": i / 8} if lon else {})},
        "price": Decimal("9999999999.99") if digits else Decimal("-9999999.99"), "at": datetime.datetime(2026, 5, 1, 12, 0, 0, i, UTC), "kind": "AB"[i % 2],
        "steps": [{"a": 2**40 + i if version >= 8 else i, **({"b": f"b{i}"} if version >= 8 else {})}, {"a": 0}], "words": {"x": i}}
    value = {k: v for k, v in value.items() if k in names}
    row = dict.fromkeys(TYPES) | value
    if row["geo"]:
        row["geo"] = {"lat": row["geo"]["lat"], "lon": row["geo"].get("lon")}
    if row["steps"]:
        row["steps"] = [{"a": s["a"], "b": s.get("b")} for s in row["steps"]]
    if row["words"]:
        row["words"] = list(row["words"].items())
    return value, row


if __name__ == "__main__":
    brokers, registry, path, topic = sys.argv[1:5]
    kafka, expected, i = Kafka(brokers, registry), Expected("id", TYPES), 0
    serializers = [AvroSerializer(kafka.registry, json.dumps({"type": "record", "name": "Order", "namespace": f"v{n}", "fields": fields})) for n, fields in enumerate(SCHEMAS)]
    for version in range(len(SCHEMAS) - 1):
        for _ in range(100):
            of = version + i % 2 if version == len(SCHEMAS) - 2 else version
            i += 1
            value, row = record(of, i)
            expected.row(**row)
            kafka.send(topic, kafka.bytes(topic, value, serializers[of]))
        kafka.flush()
        write(path, **{topic.replace("-", "_"): expected})
        print(i, flush=True)
        sys.stdin.readline()
