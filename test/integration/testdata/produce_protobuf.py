"""Writes topics with Confluent's ProtobufSerializer from classes that protoc made: messages with a field of each type,
the first one of its file and one inside of another, in proto3 and in proto2."""
import datetime
import os
import subprocess
import sys
import tempfile

import google
import grpc_tools

from exact import single
from producer import Expected, Kafka, pick, write

UTC = datetime.timezone.utc
MONEY = """syntax = "proto3"; package shop;
message Money { string currency = 1; int64 units = 2; }
"""
SHOP = """syntax = "proto3"; package shop;
import "shop/money.proto";
import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto"; import "google/protobuf/struct.proto"; import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto"; import "google/type/date.proto";
enum Kind { UNKNOWN = 0; NEW = 1; OLD = 2; }
message Every {
  message Inner { string b = 1; repeated sint32 more = 2; Deep deep = 3; message Deep { bool there = 1; } }
  int64 id = 1;
  int32 i32 = 2; sint32 s32 = 3; sfixed32 sf32 = 4; int64 i64 = 5; sint64 s64 = 6; sfixed64 sf64 = 7;
  uint32 u32 = 8; fixed32 f32 = 9; uint64 u64 = 10; fixed64 f64 = 11;
  float single = 12; double double = 13; bool yes = 14; string text = 15; bytes raw = 16; Kind kind = 17;
  optional int64 maybe = 18; optional string maybe_text = 19; optional Kind maybe_kind = 20;
  repeated int64 numbers = 21; repeated int64 loose = 22 [packed = false]; repeated string words = 23; repeated Kind kinds = 24;
  repeated Inner inners = 25; Inner inner = 26; Money price = 27;
  map<string, int64> counts = 28; map<int32, Inner> by_number = 29; map<bool, bool> by_bool = 30; map<uint64, double> by_u64 = 31;
  oneof either { string one_text = 32; int64 one_number = 33; Inner one_inner = 34; bool one_bool = 35; }
  google.protobuf.Timestamp at = 36; google.protobuf.Duration took = 37; repeated google.protobuf.Timestamp times = 38;
  google.protobuf.Int64Value w_i64 = 39; google.protobuf.UInt64Value w_u64 = 40; google.protobuf.Int32Value w_i32 = 41;
  google.protobuf.UInt32Value w_u32 = 42; google.protobuf.DoubleValue w_double = 43; google.protobuf.FloatValue w_single = 44;
  google.protobuf.BoolValue w_yes = 45; google.protobuf.StringValue w_text = 46; google.protobuf.BytesValue w_raw = 47;
  google.protobuf.Struct object = 48; google.protobuf.Value anything = 49; google.protobuf.ListValue some = 50;
  google.protobuf.Any packed = 51; google.protobuf.FieldMask mask = 52; google.protobuf.Empty empty = 53; google.type.Date day = 54;
}
message Outer {
  map<string, string> tags = 1;
  message Other { string text = 1; }
  message Nested { int64 id = 1; Other other = 2; }
}
"""
PAST = """syntax = "proto2"; package shop;
enum Level { LOW = 1; HIGH = 5; }
message Past {
  required int64 id = 1;
  optional int32 n = 2 [default = 7]; optional string text = 3 [default = "none"]; optional Level level = 4 [default = HIGH];
  optional bool plain = 5; repeated int32 numbers = 6; repeated int32 packed = 7 [packed = true];
  optional group Part = 8 { optional string name = 1; optional bytes data = 2; }
}
"""


def compile():
    """Makes Python's classes of the files above."""
    root = tempfile.mkdtemp()
    os.mkdir(os.path.join(root, "shop"))
    for name, text in {"money": MONEY, "every": SHOP, "past": PAST}.items():
        with open(os.path.join(root, "shop", name + ".proto"), "w") as out:
            out.write(text)
    known = [os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")] + [os.path.dirname(p) for p in google.__path__]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", root, *(x for p in known for x in ("-I", p)), "--python_out", root, *(f"shop/{n}.proto" for n in ("money", "every", "past"))], check=True, cwd=root)
    sys.path.insert(0, root)


SCALARS = {
    "i32": ("int", [0, 1, -1, 2**31 - 1, -(2**31)]), "s32": ("int", [0, -5, 2**31 - 1, -(2**31)]), "sf32": ("int", [0, -5, 2**31 - 1, -(2**31)]),
    "i64": ("long", [0, 2**63 - 1, -(2**63), 2**53 + 1]), "s64": ("long", [0, 2**63 - 1, -(2**63)]), "sf64": ("long", [-1, 2**63 - 1, -(2**63)]),
    "u32": ("long", [0, 2**32 - 1]), "f32": ("long", [0, 2**32 - 1, 7]), "single": ("float", [0.0, -0.0, single(0.1), float("nan"), float("-inf")]),
    "double": ("double", [0.0, -0.0, 0.1, 5e-324, float("inf"), float("nan")]), "yes": ("boolean", [False, True]),
    "text": ("string", ["", "ä", "日本\x00語", "x" * 300]), "raw": ("binary", [b"", bytes(range(256))]),
}
UNSIGNED = [0, 2**64 - 1, 2**63, 5]  # DECIMAL(20,0) in a table
KINDS = ["UNKNOWN", "NEW", "OLD"]
INNER = "struct<b: string, more: list<int>, deep: struct<there: boolean>>"


def every(kafka, topic, n):
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from decimal import Decimal
    from google.protobuf import wrappers_pb2
    from shop import every_pb2 as pb

    serializer = ProtobufSerializer(pb.Every, kafka.registry)
    wrapped = {"w_i64": "i64", "w_i32": "i32", "w_u32": "u32", "w_double": "double", "w_single": "single", "w_yes": "yes", "w_text": "text", "w_raw": "raw"}
    expected = Expected("id", {"id": "long", **{k: t for k, (t, _) in SCALARS.items()}, **{w: SCALARS[k][0] for w, k in wrapped.items()},
        "u64": "decimal(20, 0)", "f64": "decimal(20, 0)", "w_u64": "decimal(20, 0)", "kind": "string", "maybe": "long", "maybe_text": "string", "maybe_kind": "string",
        "numbers": "list<long>", "loose": "list<long>", "words": "list<string>", "kinds": "list<string>", "inners": f"list<{INNER}>", "inner": INNER,
        "price": "struct<currency: string, units: long>", "counts": "map<string, long>", "by_number": f"map<int, {INNER}>", "by_u64": "map<decimal(20, 0), double>", "by_bool": "map<boolean, boolean>",
        "one_text": "string", "one_number": "long", "one_inner": INNER, "one_bool": "boolean", "at": "timestamptz", "took": "long", "times": "list<timestamptz>",
        "object": "string", "anything": "string", "some": "string", "packed": "struct<type_url: string, value: binary>", "mask": "string", "empty": "boolean", "day": "struct<year: int, month: int, day: int>"})
    inners = [
        (pb.Every.Inner(), {"b": "", "more": [], "deep": None}),
        (pb.Every.Inner(b="x", more=[1, -2], deep=pb.Every.Inner.Deep(there=True)), {"b": "x", "more": [1, -2], "deep": {"there": True}}),
        (pb.Every.Inner(b="y", deep=pb.Every.Inner.Deep()), {"b": "y", "more": [], "deep": {"there": False}}),
    ]
    moments = [datetime.datetime(2026, 5, 1, 12, 0, 0, 123456, UTC), datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), datetime.datetime(1, 1, 1, tzinfo=UTC), datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]
    for i in range(n):
        m, row = pb.Every(id=i), dict.fromkeys(expected.types) | {"id": i}
        for name, (_, values) in SCALARS.items():
            row[name] = pick(i, *values)
            setattr(m, name, row[name])
        for name in ("u64", "f64"):
            v = pick(i // (1 + (name == "f64")), *UNSIGNED)
            setattr(m, name, v)
            row[name] = Decimal(v)
        m.kind, row["kind"] = pick(i, (0, "UNKNOWN"), (1, "NEW"), (2, "OLD"), (77, "77"))  # the last one has no name
        if i % 3:  # with presence: zero is not absent
            m.maybe, m.maybe_text, m.maybe_kind = pick(i, 0, 9), pick(i, "", "t"), pick(i, 0, 2)
            row |= {"maybe": m.maybe, "maybe_text": m.maybe_text, "maybe_kind": KINDS[m.maybe_kind]}
        row["numbers"] = row["loose"] = pick(i, [], [1, -(2**63), 2**63 - 1], [0] * 20)
        row["words"] = pick(i, [], ["", "a", "ä"])
        kinds = pick(i, [], [2, 1, 0, 2])
        row["kinds"] = [KINDS[k] for k in kinds]
        for name, values in (("numbers", row["numbers"]), ("loose", row["loose"]), ("words", row["words"]), ("kinds", kinds)):
            getattr(m, name).extend(values)
        some = pick(i, [], inners[:1], inners)
        m.inners.extend(x for x, _ in some)
        row["inners"] = [x for _, x in some]
        if i % 4:
            x, row["inner"] = pick(i, *inners)
            m.inner.CopyFrom(x)
            m.price.currency, m.price.units = "EUR", i - 5
            row["price"] = {"currency": "EUR", "units": i - 5}
        for k, v in (counts := pick(i, {}, {"a": 1, "": 0, "ä": -1})).items():
            m.counts[k] = v
        for k, (x, _) in (by := pick(i, {}, {-1: inners[0], 2**31 - 1: inners[1]})).items():
            m.by_number[k].CopyFrom(x)
        for k, v in (by_u64 := pick(i, {}, {2**64 - 1: 0.5, 0: 0.0})).items():
            m.by_u64[k] = v
        for k, v in (by_bool := pick(i, {}, {True: False}, {False: True, True: True})).items():
            m.by_bool[k] = v
        row |= {"by_bool": list(by_bool.items()), "counts": list(counts.items()), "by_number": [(k, x) for k, (_, x) in by.items()], "by_u64": [(Decimal(k), v) for k, v in by_u64.items()]}
        match i % 5:
            case 1:
                m.one_text = row["one_text"] = ""
            case 2:
                m.one_number = row["one_number"] = 0
            case 3:
                m.one_inner.CopyFrom(inners[0][0])
                row["one_inner"] = inners[0][1]
            case 4:
                m.one_bool = row["one_bool"] = i % 2 == 0
        row["times"] = pick(i, [], moments)
        for t in row["times"]:
            m.times.add().FromDatetime(t)
        row["empty"] = None
        if i % 2:
            row["at"] = pick(i // 2, *moments)
            m.at.FromDatetime(row["at"])
            row["took"] = pick(i, 0, -1, 1_500_000, -(10**12))
            m.took.FromMicroseconds(row["took"])
            m.empty.SetInParent()
            row["empty"] = True
            m.mask.paths.extend(["a.b", "c"])
            row["mask"] = "a.b,c"
            m.day.year, m.day.month, m.day.day = 2026, 5, 0
            row["day"] = {"year": 2026, "month": 5, "day": 0}
            m.packed.Pack(wrappers_pb2.StringValue(value="in it"))
            row["packed"] = {"type_url": "type.googleapis.com/google.protobuf.StringValue", "value": wrappers_pb2.StringValue(value="in it").SerializeToString()}
            m.object.update({"b": [1, True, None], "a": {"x": "y"}})
            row["object"] = '{"a":{"x":"y"},"b":[1,true,null]}'
            m.some.extend([1.5, "x", False])
            row["some"] = '[1.5,"x",false]'
            m.anything.string_value = 'say "x"'
            row["anything"] = '"say \\"x\\""'
            for name, of in wrapped.items():
                row[name] = pick(i // 2, *SCALARS[of][1])
                getattr(m, name).value = row[name]
                getattr(m, name).SetInParent()
            v = pick(i // 2, *UNSIGNED)
            m.w_u64.value = v
            m.w_u64.SetInParent()
            row["w_u64"] = Decimal(v)
        expected.row(**row)
        kafka.send(topic, kafka.bytes(topic, m, serializer))
    return expected


def nested(kafka, topic, n):
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from shop import every_pb2 as pb

    serializer = ProtobufSerializer(pb.Outer.Nested, kafka.registry)
    expected = Expected("id", {"id": "long", "other": "struct<text: string>"})
    for i in range(n):
        value = kafka.bytes(topic, pb.Outer.Nested(id=i, other=pb.Outer.Other(text=f"t{i}")), serializer)
        if value[5:8] != b"\x04\x02\x04":  # two indexes, 1 and 2, as zigzag numbers: this client counts the map's entries, too
            raise ValueError(f"the header's path is {value[5:8].hex()}")
        expected.row(id=i, other={"text": f"t{i}"})
        kafka.send(topic, value)
    return expected


def past(kafka, topic, n):
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from shop import past_pb2 as pb

    serializer = ProtobufSerializer(pb.Past, kafka.registry)
    expected = Expected("id", {"id": "long", "n": "int", "text": "string", "level": "string", "plain": "boolean", "numbers": "list<int>", "packed": "list<int>", "part": "struct<name: string, data: binary>"})
    for i in range(n):
        m, row = pb.Past(id=i), {"id": i, "n": 7, "text": "none", "level": "HIGH", "plain": None, "numbers": [], "packed": [], "part": None}
        if i % 2:
            m.n, m.text, m.level, m.plain = 0, "", pb.LOW, False
            row |= {"n": 0, "text": "", "level": "LOW", "plain": False}
        if i % 3:
            row["numbers"] = row["packed"] = [i, -i]
            m.numbers.extend([i, -i])
            m.packed.extend([i, -i])
            m.part.name, row["part"] = "p", {"name": "p", "data": None}
        expected.row(**row)
        kafka.send(topic, kafka.bytes(topic, m, serializer))
    return expected


if __name__ == "__main__":
    brokers, registry, path = sys.argv[1:4]
    compile()
    kafka = Kafka(brokers, registry)
    tables = {"proto_every": every(kafka, "proto-every", 420), "proto_nested": nested(kafka, "proto-nested", 100), "proto_past": past(kafka, "proto-past", 100)}
    kafka.flush()
    write(path, **tables)
