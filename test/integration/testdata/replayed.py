"""Holds the tables against dead letters that were run again: those of kinds that the corrected spec takes are rows, once,
and the others are letters again, once, that wait. Prints what is wrong."""
import json
import re
import sys
from collections import Counter

from pyiceberg.catalog import load_catalog

MENDED = {"text for a number", "fraction", "object for a list", "out of range", "too many digits", "month 13", "SQL cannot cast it"}

rest, s3, path, letters, orders, clicks = sys.argv[1:]
catalog = load_catalog("c", type="rest", uri=rest, **{"s3.endpoint": s3, "s3.access-key-id": "admin", "s3.secret-access-key": "password123", "s3.region": "us-east-1"})
wrong, taken, again = [], 0, 0
with open(path) as f:
    want = {(x["topic"], x["partition"], x["offset"]): x for x in json.load(f)}
rows = Counter(catalog.load_table(orders).scan().to_arrow()["id"].to_pylist())
wrong.extend(f"order {i} is there {n} times" for i, n in rows.items() if n > 1)
wrong.extend(f"click {i} is there {n} times" for i, n in Counter(catalog.load_table(clicks).scan().to_arrow()["id"].to_pylist()).items() if n > 1)
upto, waiting = Counter(), Counter()
all_rows = catalog.load_table(letters).scan().to_arrow().to_pylist()
for row in all_rows:
    if row["code"] == "replayed":
        upto[row["replayed_stream"]] = max(upto[row["replayed_stream"]], row["replayed_to"])
for row in all_rows:
    if row["code"] != "replayed" and row["batch"] >= upto[row["stream"]]:
        key = row["topic"], row["partition"], row["offset"]
        waiting[key] += 1
        if key not in want or row["value"].hex() != want[key]["value"] or not row["reason"]:
            wrong.append(f"{key} waits: {row['reason'][:200]}")
for key, x in want.items():
    if x["topic"] == "poison-json" and x["kind"] in MENDED:
        i = int(re.search(rb'"id": (\d+)', bytes.fromhex(x["value"])).group(1))
        taken += 1
        if rows[i] != 1 or waiting[key]:
            wrong.append(f"{x['kind']} at {key}: order {i} is there {rows[i]} times, and waits {waiting[key]} times")
    else:
        again += 1
        if waiting[key] != 1:
            wrong.append(f"{x['kind']} at {key} waits {waiting[key]} times")
more = [i for i in rows if i >= 1_000_000]
if len(more) % 500 or not more:
    wrong.append(f"{len(more)} of the orders that came meanwhile are there")
tags = sum("dead-letter-replay" in name for t in (letters, orders, clicks) for name in catalog.load_table(t).metadata.refs)
if tags:
    wrong.append(f"{tags} tags of the replay are left")
print(json.dumps({"taken": taken, "again": again, "tags": tags, "wrong": wrong[:40]}))
