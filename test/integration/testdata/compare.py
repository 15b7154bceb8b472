"""Reads tables with pyiceberg and holds them against what a producer wrote down: every column's type, every row, every
value. Prints how many values were compared, and what is wrong."""
import json
import sys
import uuid

from pyiceberg.catalog import load_catalog
from pyiceberg.types import ListType, MapType, StructType

from exact import spell

WRONG_MAX = 30  # more say nothing new


def kind(t):
    """A type's name without the ids of its fields."""
    match t:
        case StructType():
            return f"struct<{', '.join(f'{f.name}: {kind(f.field_type)}' for f in t.fields)}>"
        case ListType():
            return f"list<{kind(t.element_type)}>"
        case MapType():
            return f"map<{kind(t.key_type)}, {kind(t.value_type)}>"
    return str(t)


def rows(table):
    """The rows with the values as Python has them."""
    arrow = table.scan().to_arrow()
    columns = {}
    for field in arrow.schema:
        column = arrow.column(field.name)
        columns[field.name] = column.to_pylist()
        if str(table.schema().find_field(field.name).field_type) == "uuid":
            columns[field.name] = [uuid.UUID(bytes=v) if isinstance(v, bytes) else v for v in columns[field.name]]
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def compare(name, table, want):
    """Yields what is wrong."""
    types = {f.name: kind(f.field_type) for f in table.schema().fields}
    for column in types.keys() | want["types"].keys():
        if types.get(column) != want["types"].get(column):
            yield f"{name}.{column}: the type is {types.get(column)}, want {want['types'].get(column)}"
    seen = set()
    for row in rows(table):
        key = spell(row[want["key"]])
        if key in seen:
            yield f"{name}: row {key} is there twice"
        seen.add(key)
        if key not in want["rows"]:
            yield f"{name}: row {key} was not produced"
            continue
        for column, v in want["rows"][key].items():
            if column in row and (got := spell(row[column])) != v:
                yield f"{name}.{column} of row {key}: {got}, want {v}"
    for key in want["rows"].keys() - seen:
        yield f"{name}: row {key} is missing"


if __name__ == "__main__":
    rest, s3, namespace, expected = sys.argv[1:5]
    catalog = load_catalog("c", type="rest", uri=rest, **{"s3.endpoint": s3, "s3.access-key-id": "admin", "s3.secret-access-key": "password123", "s3.region": "us-east-1"})
    wrong, values = [], {}
    with open(expected) as f:
        for name, want in json.load(f).items():
            wrong.extend(compare(name, catalog.load_table(f"{namespace}.{name}"), want))
            values[name] = len(want["rows"]) * len(want["types"])
    print(json.dumps({"values": values, "wrong": wrong[:WRONG_MAX], "more": max(0, len(wrong) - WRONG_MAX)}))
