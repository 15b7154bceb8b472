"""Reads the tables of a namespace: with pyiceberg the ids of each, with DuckDB the
rows of each by the column _topic; and of a table of dead letters the rows by topic."""
import collections
import json
import sys

rest, s3, namespace, letters = sys.argv[1:5]
keys = {"s3.endpoint": s3, "s3.access-key-id": "admin", "s3.secret-access-key": "password123", "s3.region": "us-east-1"}

import duckdb
from duckdb_extensions import import_extension
from pyiceberg.catalog import load_catalog

con = duckdb.connect()
for e in ("avro", "httpfs", "iceberg"):
    import_extension(e)  # the wheels carry the extensions
for e in ("avro", "httpfs", "iceberg"):
    con.execute(f"LOAD {e}")
con.execute(f"CREATE SECRET (TYPE s3, KEY_ID 'admin', SECRET 'password123', ENDPOINT '{s3.split('//')[1]}', URL_STYLE path, USE_SSL false, REGION 'us-east-1')")

catalog = load_catalog("c", type="rest", uri=rest, **keys)
out = {"tables": {}, "counts": {}, "letters": {}}
for ident in catalog.list_tables(namespace):
    t = catalog.load_table(ident)
    out["tables"][ident[-1]] = sorted(t.scan(selected_fields=("id",)).to_arrow().column("id").to_pylist())
    out["counts"][ident[-1]] = dict(con.execute(f"SELECT _topic, count(*) FROM iceberg_scan('{t.metadata_location}') GROUP BY 1").fetchall())
bad = catalog.load_table(letters).scan(selected_fields=("topic", "partition", "offset")).to_arrow().to_pylist()
if len({tuple(b.values()) for b in bad}) < len(bad):
    sys.exit("a record is a dead letter twice")
out["letters"] = dict(collections.Counter(b["topic"] for b in bad))
print(json.dumps(out))
