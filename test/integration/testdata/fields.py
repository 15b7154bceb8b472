"""Looks at a table's metadata files from the first to the last: a field id stays with its column, and a column's type only
becomes wider. Prints how many files there were, the schemas, and what is wrong."""
import json
import sys

from pyiceberg.catalog import load_catalog
from pyiceberg.schema import index_by_id, index_name_by_id
from pyiceberg.serializers import FromInputFile

rest, s3, name = sys.argv[1:4]
catalog = load_catalog("c", type="rest", uri=rest, **{"s3.endpoint": s3, "s3.access-key-id": "admin", "s3.secret-access-key": "password123", "s3.region": "us-east-1"})
table = catalog.load_table(name)
WIDER = {("int", "long"), ("float", "double"), ("decimal(9, 2)", "decimal(12, 2)")}
names, types, schemas, wrong = {}, {}, [], []
files = [e.metadata_file for e in table.metadata.metadata_log] + [table.metadata_location]
for n, file in enumerate(files):
    schema = FromInputFile.table_metadata(table.io.new_input(file)).schema()
    if not schemas or schemas[-1] != str(schema.as_struct()):
        schemas.append(str(schema.as_struct()))
    fields = index_by_id(schema)
    for i, column in index_name_by_id(schema).items():
        if names.setdefault(i, column) != column:
            wrong.append(f"file {n}: field {i} is {column}, and was {names[i]}")
        if not fields[i].field_type.is_primitive:
            continue
        now = str(fields[i].field_type)
        if (was := types.get(i, now)) != now and (was, now) not in WIDER:
            wrong.append(f"file {n}: field {i}, {column}, is {now}, and was {was}")
        types[i] = now
    if gone := names.keys() - fields.keys():
        wrong.append(f"file {n}: fields {gone} are gone")
if len(set(names.values())) != len(names):
    wrong.append(f"a column has two ids: {names}")
print(json.dumps({"files": len(files), "schemas": len(schemas), "fields": len(names), "wrong": wrong}))
