"""Reads a table with two independent engines: count, distinct ids, sum of ids."""
import json
import sys

rest, s3, table = sys.argv[1:4]
keys = {"s3.endpoint": s3, "s3.access-key-id": "admin", "s3.secret-access-key": "password123", "s3.region": "us-east-1"}
out = {}

from pyiceberg.catalog import load_catalog

t = load_catalog("c", type="rest", uri=rest, **keys).load_table(table)
ids = t.scan(selected_fields=("id",)).to_arrow().column("id")
import pyarrow.compute as pc

out["pyiceberg"] = [len(ids), pc.count_distinct(ids).as_py(), pc.sum(ids).as_py() or 0]

import duckdb

con = duckdb.connect()
from duckdb_extensions import import_extension

for e in ("avro", "httpfs", "iceberg"):
    import_extension(e)  # the wheels carry the extensions
for e in ("avro", "httpfs", "iceberg"):
    con.execute(f"LOAD {e}")
con.execute(f"CREATE SECRET (TYPE s3, KEY_ID 'admin', SECRET 'password123', ENDPOINT '{s3.split('//')[1]}', URL_STYLE path, USE_SSL false, REGION 'us-east-1')")
row = con.execute(f"SELECT count(*), count(DISTINCT id), coalesce(sum(id), 0)::BIGINT FROM iceberg_scan('{t.metadata_location}')").fetchone()
out["duckdb"] = list(row)
print(json.dumps(out))
