"""A queue in SQLite, as a careful user would write it: one transaction a second."""

import sqlite3
import sys
import time

path, seconds, per_second, size = sys.argv[1], *map(int, sys.argv[2:])
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY, record BLOB)")
begin = time.monotonic()
for second in range(seconds):
    db.execute("BEGIN")
    db.execute("DELETE FROM queue")
    for record in range(per_second):
        due = second + record / per_second
        time.sleep(max(0.0, begin + due - time.monotonic()))
        db.execute("INSERT INTO queue (record) VALUES (?)", (b"x" * size,))
    db.execute("COMMIT")
db.close()
