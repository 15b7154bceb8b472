"""Reads tables by their metadata files, and holds every filtered scan against the whole table filtered here: a wrong
partition value or bound would hide rows. Prints the rows and the scans of each."""
import datetime
import json
import math
import sys

from pyiceberg.expressions import EqualTo, GreaterThan, IsNaN, IsNull, LessThan, NotNaN, NotNull
from pyiceberg.table import StaticTable


def spell(v):
    return v.isoformat() if isinstance(v, (datetime.date, datetime.time)) else v


out, wrong = {}, []
for name, (location, column) in json.loads(sys.argv[1]).items():
    t = StaticTable.from_metadata(location)
    rows = t.scan().to_arrow().to_pylist()
    scans = 0

    def check(expression, want):
        global scans
        scans += 1
        got = sorted(r["id"] for r in t.scan(row_filter=expression, selected_fields=("id",)).to_arrow().to_pylist())
        if got != sorted(r["id"] for r in rows if want(r)):
            wrong.append(f"{name}: {expression}: {len(got)} rows")

    for c in t.schema().fields:
        if column not in ("", c.name):
            continue  # only what the table is partitioned by
        if str(c.field_type) == "uuid":
            continue  # pyarrow cannot compare them, not even with the bounds in a file
        values = {r[c.name] for r in rows if r[c.name] is not None}
        isnan = lambda v: isinstance(v, float) and math.isnan(v)
        check(IsNull(c.name), lambda r: r[c.name] is None)
        check(NotNull(c.name), lambda r: r[c.name] is not None)
        if any(isnan(v) for v in values):
            check(IsNaN(c.name), lambda r: isnan(r[c.name]))
        for v in sorted(v for v in values if not isnan(v)):
            literal = spell(v)
            check(EqualTo(c.name, literal), lambda r: r[c.name] == v)
            if str(c.field_type) not in ("boolean", "binary"):
                check(GreaterThan(c.name, literal), lambda r: r[c.name] is not None and r[c.name] > v)
                check(LessThan(c.name, literal), lambda r: r[c.name] is not None and r[c.name] < v)
    out[name] = [len(rows), sum(r["id"] for r in rows), scans]
print(json.dumps({"tables": out, "wrong": wrong}))
