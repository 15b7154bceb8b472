"""Holds a table of dead letters against the bad records that were produced, and sums up the counts in the summary of
each snapshot of the pipeline's tables. Prints what is wrong."""
import json
import sys
from collections import Counter

from pyiceberg.catalog import load_catalog

rest, s3, path, *tables = sys.argv[1:]
catalog = load_catalog("c", type="rest", uri=rest, **{"s3.endpoint": s3, "s3.access-key-id": "admin", "s3.secret-access-key": "password123", "s3.region": "us-east-1"})
wrong, stamps = [], 0
with open(path) as f:
    want = {(x["topic"], x["partition"], x["offset"]): x for x in json.load(f)}
seen = set()
for row in catalog.load_table(tables[0]).scan().to_arrow().to_pylist():
    key = row["topic"], row["partition"], row["offset"]
    if key in seen or key not in want:
        wrong.append(f"{key} is {'there twice' if key in seen else 'no bad record'}: {row['reason']}")
        continue
    seen.add(key)
    x = want[key]
    if row["code"] != x["code"] or row["value"].hex() != x["value"] or not row["reason"]:
        wrong.append(f"{x['kind']}: the code is {row['code']}, want {x['code']}: {row['reason'][:200]}")
wrong.extend(f"{want[k]['kind']} at {k} is missing" for k in want.keys() - seen)


def offsets(text):
    return {(s, t, p): o for s, topics in json.loads(text).items() for t, partitions in topics.items() for p, o in partitions.items()}


for name in tables:
    before, total = {}, Counter()
    for snapshot in sorted(catalog.load_table(name).snapshots(), key=lambda s: s.sequence_number):
        summary = snapshot.summary.additional_properties
        if "frazil.counts" not in summary:
            continue
        stamps += 1
        at, counts = f"{name}, snapshot {snapshot.snapshot_id}", json.loads(summary["frazil.counts"])
        n = Counter({k: v for k, v in counts.items() if isinstance(v, int)})
        start, end = offsets(summary["frazil.offsets-start"]), offsets(summary["frazil.offsets-end"])
        sums = {
            "offsets, end - start": (n["offsets"], sum(end.values()) - sum(start.get(k, 0) for k in end)),
            "offsets": (n["offsets"], n["data"] + n["control"] + n["aborted"] + n["lost"] + n["absent"]),
            "absent": (n["absent"], 0),
            "data": (n["data"], n["rows"] + n["tombstones"] + n["skipped"] + n["dead_lettered"]),
            "skipped": (n["skipped"], 0),
            "bad by code": (n["dead_lettered"], sum(counts.get("bad", {}).values())),
            "written": (n["written"], int(summary.get("added-records", 0))),
        }
        if name != tables[0]:
            sums |= {
                "rows": (n["rows"], n["scanned"]),
                "scanned": (n["scanned"], n["unread"] + n["with_output"] + n["without_output"] + n["rejected"]),
                "rejected": (n["rejected"], n["dead_letters"]),
                "one row for each": (n["with_output"], n["written"]),
            }
        else:
            sums["letters"] = (n["written"], n["dead_letters"])
        total.update(n)
        written = json.loads(summary["frazil.counts-total"])
        sums |= {f"total of {k}": (total[k], written.get(k, 0)) for k in total}
        wrong.extend(f"{at}: {what}: {a} and {b}" for what, (a, b) in sums.items() if a != b)
        wrong.extend(f"{at}: {k} begins at {o}, and ended at {before[k]}" for k, o in start.items() if k in before and before[k] != o)
        before |= end
print(json.dumps({"letters": len(seen), "kinds": Counter(f"{x['topic']}: {x['kind']} ({x['code']})" for x in want.values()), "stamps": stamps, "wrong": wrong[:40]}))
