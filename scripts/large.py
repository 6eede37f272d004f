#!/usr/bin/env python3
"""Measures pgkeep on large databases; `scripts/large` builds everything and calls this.
It prints the tables of the chapter "Large databases" of docs/src/performance.md.

Each database is made on a server of its own and dropped before the next one, so that the disk holds one at a time.
Memory is VmHWM of the pgkeep process, as in bench.py. Bytes stored are the sizes of the objects; bytes and requests that
were read are counted by a relay between pgkeep and the S3 server. Wall times say little on a busy machine: the load
average stands beside each.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import bench
from bench import S3_ENVIRONMENT, Counter, Run, Server, Words, document, print_machine, start_s3

GB = 1_000_000_000
BUCKET = "s3://bench/pg"
POOL = 4096  # Pieces that documents and texts are put together from.
LEFT_FREE = 5 * GB  # A disk that others use, too, is not filled to its end.
LOOK_SECONDS = 0.2
bench.SAMPLE_SECONDS = 0.01  # Some commands are over in a moment.

# The server makes a table in one transaction without writing it to the log: half the disk, and half the time.
# pg_dump holds a lock on every table at once.
SETTINGS = ["wal_level=minimal", "max_wal_senders=0", "max_wal_size=1GB", "max_locks_per_transaction=1024",
            "checkpoint_timeout=1h", "maintenance_work_mem=256MB"]

# A hash for each row and place, so that rows are made by the server alone, and the same ones each time.
PICK = f"(hashint8({{}}) & {POOL - 1})"

EVENTS = """
CREATE TABLE events (id bigint, account int, kind text, at timestamptz, amount numeric(12,2), origin text);
INSERT INTO events SELECT g, hashint8(g) & 65535, (ARRAY['login','view','view','view','order','payment','refund'])[1 + g % 7],
    timestamptz '2020-01-01 00:00+00' + g * interval '7 seconds', (hashint8(g + 1) & 1048575) / 100.0,
    '10.' || (hashint8(g) & 255) || '.' || (hashint8(g + 2) & 255) || '.' || (g & 255) FROM generate_series(1, {rows}::bigint) g;
ALTER TABLE events ADD PRIMARY KEY (id);
"""

PEOPLE = f"""
CREATE TABLE people (id bigint, name text, email text, about text);
INSERT INTO people SELECT g, a.name, a.email || g, b.about || ' ' || c.about FROM generate_series(1, {{rows}}::bigint) g
    JOIN pool a ON a.id = {PICK.format('g')} JOIN pool b ON b.id = {PICK.format('g * 3 + 1')} JOIN pool c ON c.id = {PICK.format('g * 5 + 2')};
ALTER TABLE people ADD PRIMARY KEY (id);
"""

DOCUMENTS = f"""
CREATE TABLE documents_{{at}} (id bigint, title text, body text {{packed}});
INSERT INTO documents_{{at}} SELECT g, 'document ' || g, (SELECT '[' || string_agg(body, ', ') || ']' FROM pool WHERE id = ANY (ARRAY(
        SELECT {PICK.format('g * 64 + k')} FROM generate_series(1, 2 + g % 13) k)))
    FROM generate_series({{at}} * 10000000::bigint + 1, {{at}} * 10000000::bigint + {{rows}}) g;
ALTER TABLE documents_{{at}} ADD PRIMARY KEY (id);
"""

SETTINGS_TABLE = """
CREATE TABLE settings (id serial PRIMARY KEY, name text UNIQUE, value text);
INSERT INTO settings (name, value) SELECT 'setting ' || n, repeat(n::text, 20) FROM generate_series(1, 1000) n;
"""


class Relay(Counter):
    """Counts every request, and what the server answers."""

    def relay(self, source, target, is_counted):
        try:
            while piece := source.recv(1 << 18):
                if is_counted:
                    self.bytes += len(piece)
                elif re.match(rb"(GET|HEAD|PUT|POST|DELETE) /", piece):
                    self.reads += 1
                target.sendall(piece)
            target.shutdown(2)
        except OSError:
            pass  # The other side went away.


class Parts:
    """Looks at what an upload leaves in the S3 server's folder until it is complete: the size of each part."""

    def __init__(self, folder):
        self.folder, self.sizes, self.is_over = folder, {}, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    def look(self):
        while not self.is_over.wait(LOOK_SECONDS):
            for entry in os.scandir(self.folder):
                if found := re.match(r"\.upload_id-(.+)\.part-(\d+)$", entry.name):
                    try:
                        key = found[1], int(found[2])
                        self.sizes[key] = max(self.sizes.get(key, 0), entry.stat().st_size)
                    except OSError:
                        pass  # The upload is complete, and its parts go.

    def words(self):
        """Returns the parts in their order as `N of SIZE`, equal ones together."""
        runs = []
        for _, size in sorted(self.sizes.items()):
            if runs and runs[-1][1] == size:
                runs[-1][0] += 1
            else:
                runs.append([1, size])
        return ", ".join(f"{count} of {size / (1 << 20):.4g} MiB" for count, size in runs) or "one request"


class Measured:
    """One database through every command, a line of the table for each."""

    def __init__(self, options, work, server, s3_port):
        self.work, self.server, self.s3_port = work, server, s3_port
        self.pgkeep = str(Path(options.bin_dir).resolve() / "pgkeep")
        self.bucket = work / "s3" / "bench"
        self.bucket.mkdir()
        self.out = work / "out"
        # A drill makes its server there.
        self.environment = {**S3_ENVIRONMENT, "TMPDIR": str(work)}
        self.failed = False

    def title(self, text):
        print(f"\n{text}\n\n| command | wall, s | load | CPU, s | peak memory, MB | |\n| --- | --- | --- | --- | --- | --- |", flush=True)

    def line(self, name, run, told):
        failure = run.failure()
        if failure:
            self.failed = True
            print(run.stderr, file=sys.stderr)
        peak = f"{run.peak_kb / 1024:.0f}" if run.peak_kb else "–"
        print(f"| {name} | {run.wall:.1f} | {os.getloadavg()[0]:.1f} | {run.cpu:.1f} | {peak} | {failure or told} |", flush=True)

    def run(self, *argv):
        return Run([[self.pgkeep, "--json", "--progress", "never", *argv]], stdout=self.out, environment=self.environment, own_memory=True)

    def s3(self, port=None):
        return ["--storage", BUCKET, "--s3-endpoint", f"http://127.0.0.1:{port or self.s3_port}"]

    def stored(self, folder):
        """Bytes of the dumps below a folder, and of what lies beside them."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        dumps = [path for path in files if ".sql" in path.name and not path.name.endswith(".json")]
        return sum(path.stat().st_size for path in dumps), sum(path.stat().st_size for path in files if path not in dumps)

    def backup(self, name, *more):
        """Into the bucket; the parts of its upload are listed."""
        before = self.stored(self.bucket)
        with Parts(self.work / "s3") as parts:
            run = self.run("backup", "--url", self.server.url, "--name", "bench", *self.s3(), *more)
        dump, beside = (now - then for now, then in zip(self.stored(self.bucket), before))
        self.line(name, run, f"{size(dump)} stored, {size(beside)} of manifest; parts: {parts.words()}")
        return None if run.failure() else json.loads(self.out.read_text().splitlines()[0])

    def folder(self, name, *more):
        store = self.work / "store"
        run = self.run("backup", "--url", self.server.url, "--name", "bench", "--storage", str(store), *more)
        dump, _ = self.stored(store) if store.exists() else (0, 0)
        self.line(name, run, f"{size(dump)} stored")
        shutil.rmtree(store, ignore_errors=True)

    def read(self, name, *argv):
        """A command that reads the bucket, with what it reads."""
        relay = Relay(self.s3_port)
        run = self.run(*argv, *self.s3(relay.port))
        self.line(name, run, f"{relay.reads} requests, {size(relay.bytes)} read")
        return run

    def table(self, table, number):
        """One table into a new database, compared."""
        url = self.server.url.rsplit("/", 1)[0] + "/restored"
        self.server.sql("CREATE DATABASE restored TEMPLATE template0", "template1")
        self.read(f"`restore --table` of {number}", "restore", "latest", "--table", table, "--into", url, "--allow-superuser")
        self.server.sql("DROP DATABASE IF EXISTS restored", "template1")

    def extract(self, table, number):
        relay = Relay(self.s3_port)
        argv = [self.pgkeep, "-q", "extract", "latest", "--table", table, "--format", "csv", *self.s3(relay.port)]
        run = Run([argv], environment=self.environment, own_memory=True)
        self.line(f"`extract` of {number}", run, f"{relay.reads} requests, {size(relay.bytes)} read")

    def restore(self):
        """The whole backup into a new database of the same server, compared."""
        url = self.server.url.rsplit("/", 1)[0] + "/restored"
        self.read("`restore`, compared", "restore", "latest", "--into", url, "--create-missing-roles")
        self.server.sql("DROP DATABASE IF EXISTS restored", "template1")

    def drill(self):
        run = self.run("drill", "latest", *self.s3())
        self.line("`drill` on a throw-away server", run, "every row the same")

    def look(self):
        self.read("`list`", "list")
        self.read("`status`", "status", "--max-age", "26h")


def size(count):
    for unit, name in ((GB, "GB"), (1_000_000, "MB"), (1000, "kB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} B"


def plain_bytes(measured):
    """What the newest manifest says about the length of the plain dump."""
    newest = max(measured.bucket.rglob("*.manifest.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())["dump"]["bytes"]


def fill_pool(server):
    """Pieces of made-up orders and sentences, from which the server puts rows together."""
    chance = random.Random(1)
    words = Words(chance)
    rows, length = [], 0
    for at in range(POOL):
        orders = (document(at * 16 + n, chance, words).split("\t", 1)[1].rstrip() for n in range(5))
        # Each order as it was before its last changes, as documents with a history hold it.
        body = ", ".join(f'{order[:-1]}, "version": {version}, "changed": {chance.randrange(10**9)}}}' for order in orders for version in (3, 2, 1))
        first, last = words.take(2)
        about = " ".join(words.take(30)).capitalize() + "."
        rows.append(f"{at}\t{first.title()} {last.title()}\t{first}.{last}@example.org.\t{about}\t{body}\n")
        length += len(body) + 2
    server.sql("CREATE TABLE pool (id int PRIMARY KEY, name text, email text, about text, body text)")
    subprocess.run([*server.psql(), "-c", "COPY pool FROM STDIN"], input="".join(rows), text=True, check=True)
    server.sql("VACUUM ANALYZE pool")
    return length / POOL


def fill_big(server, gb):
    """Four fifths documents that are packed on disk, the rest short rows and prose; two sessions make them."""
    piece = fill_pool(server)
    wanted = gb * GB
    # lz4 packs about as well as the default, in a fifth of the time; not every server has it.
    lz4 = subprocess.run([*server.psql(), "-At", "-c", "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"],
                         capture_output=True, text=True).stdout.strip() == "t"
    documents = int(wanted * 0.8 / 4 / (piece * 8))
    jobs = [DOCUMENTS.format(at=at, rows=documents, packed="COMPRESSION lz4" if lz4 else "") for at in range(1, 5)]
    jobs += [EVENTS.format(rows=int(wanted * 0.1 / 70)), PEOPLE.format(rows=int(wanted * 0.1 / 470)), SETTINGS_TABLE]
    ready = threading.Lock()
    failures = []

    def work():
        while True:
            with ready:
                if not jobs or failures:
                    return
                job = jobs.pop(0)
            try:
                server.sql(f"BEGIN; {job} COMMIT;")
            except subprocess.CalledProcessError as error:
                failures.append(error)

    sessions = [threading.Thread(target=work) for _ in range(2)]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()
    if failures:
        sys.exit("error: filling the database failed")
    server.sql("DROP TABLE pool; ANALYZE; CHECKPOINT;")


def disk_of(server):
    return int(subprocess.run([*server.psql(), "-At", "-c", "SELECT pg_database_size('bench')"], capture_output=True, text=True, check=True).stdout)


def big(options, measured):
    fill_big(measured.server, options.big_gb)
    disk = disk_of(measured.server)
    measured.title("### Much data")
    measured.backup("`backup` to S3, gzip")
    measured.read("`verify --all`", "verify", "--all")
    measured.look()
    for table, number in (("settings", "1,000 rows"), ("events", "a tenth of the dump")):
        measured.table(table, number)
        measured.extract(table, number)
    plain = plain_bytes(measured)
    if not options.no_drill:
        measured.drill()
    if options.folder:
        measured.folder("`backup` to a folder, zstd", "--compression", "zstd")
    if options.growing:
        shutil.rmtree(measured.bucket)
        measured.bucket.mkdir()
        free = shutil.disk_usage(options.work).free
        if free < plain + LEFT_FREE:
            sys.exit(f"error: {size(plain)} do not fit uncompressed beside the database: {size(free)} are free")
        measured.backup("`backup` to S3, not compressed", "--compression", "none")
        measured.read("`verify --all`", "verify", "--all")
        measured.table("settings", "1,000 rows")
    print(f"\nThe plain dump: {size(plain)}; the database on disk: {size(disk)}.", flush=True)


def many(options, measured, heading, fill, change, table):
    started = time.monotonic()
    fill()
    print(f"filled in {time.monotonic() - started:.0f} s", file=sys.stderr)
    measured.title(heading)
    first = measured.backup("`backup` to S3, gzip")
    measured.read("`verify --all`", "verify", "--all")
    measured.table(table, "one table")
    if not options.no_drill:
        measured.drill()
    if not options.no_restore:
        measured.restore()
    measured.server.sql(change)
    measured.backup("second `backup`, after a change")
    if first:
        ids = [re.sub(r"\.manifest\.json$", "", path.name) for path in sorted(measured.bucket.rglob("*.manifest.json"))]
        if len(ids) == 2:
            measured.read("`diff` of both", "diff", *ids)
    measured.look()
    print(f"\nThe plain dump: {size(plain_bytes(measured))}; the database on disk: {size(disk_of(measured.server))}.", flush=True)


def tables(options, measured):
    def fill():
        # Each statement for itself: one transaction would hold a lock on every table.
        measured.server.sql("".join(
            f"CREATE TABLE t_{at:05} (id int PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now());\n"
            f"INSERT INTO t_{at:05} SELECT g, 'row ' || g, '2026-01-01' FROM generate_series(1, 5) g;\n" for at in range(options.tables)))

    change = "CREATE TABLE added (id int PRIMARY KEY); INSERT INTO t_00000 VALUES (6, 'row 6'); ALTER TABLE t_00001 ADD COLUMN more int;"
    many(options, measured, f"### {options.tables:,} tables of 5 rows", fill, change, "t_00003")


def large_objects(options, measured):
    def fill():
        measured.server.sql("CREATE TABLE attachments (id int PRIMARY KEY, content oid);")
        for first in range(1, options.objects + 1, 5000):
            last = min(first + 4999, options.objects)
            measured.server.sql("INSERT INTO attachments SELECT g, lo_from_bytea(0, convert_to(repeat(md5(g::text), 1 + g % 64), 'UTF8')) "
                                f"FROM generate_series({first}, {last}) g;")

    change = "INSERT INTO attachments SELECT g, lo_from_bytea(0, 'new') FROM generate_series(-9, 0) g;"
    many(options, measured, f"### {options.objects:,} large objects", fill, change, "attachments")


def partitions(options, measured):
    def fill():
        days = range(options.partitions)
        measured.server.sql(
            "CREATE TABLE measurements (id bigint, day date NOT NULL, sensor int, value numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);\n"
            "CREATE INDEX ON measurements (sensor);\n" + "".join(
                f"CREATE TABLE measurements_{at:04} PARTITION OF measurements FOR VALUES FROM ('2023-01-01'::date + {at}) TO ('2023-01-01'::date + {at + 1});\n"
                for at in days))
        measured.server.sql(f"INSERT INTO measurements SELECT g, date '2023-01-01' + (g % {options.partitions})::int, g % 97, (g % 9973) / 10.0 "
                            f"FROM generate_series(1, {options.partitions * 1000}::bigint) g;")

    change = "INSERT INTO measurements VALUES (0, '2023-01-01', 1, 1); ALTER TABLE measurements ADD COLUMN unit text;"
    many(options, measured, f"### {options.partitions:,} partitions of 1,000 rows", fill, change, "measurements_0003")


STEPS = {"big": big, "tables": tables, "objects": large_objects, "partitions": partitions}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="30 GB, 20,000 tables, 100,000 large objects, 1,000 partitions; takes more than an hour, and 60 GB of disk")
    parser.add_argument("--big-gb", type=float, help="GB of plain dump, about [default: 0.2]")
    parser.add_argument("--tables", type=int, help="[default: 300]")
    parser.add_argument("--objects", type=int, help="[default: 1000]")
    parser.add_argument("--partitions", type=int, help="[default: 50]")
    parser.add_argument("--only", default="", help=f"some of {','.join(STEPS)} [default: all]")
    parser.add_argument("--folder", action="store_true", help="also back the large database up into a folder")
    parser.add_argument("--growing", action="store_true", help="also back it up uncompressed: above 16 GiB the parts of the upload grow")
    parser.add_argument("--no-drill", action="store_true")
    parser.add_argument("--no-restore", action="store_true")
    parser.add_argument("--work", default="/tmp", help="where everything is made and removed; its path must be short [default: /tmp]")
    parser.add_argument("--pg-bin", required=True)
    parser.add_argument("--bin-dir", required=True)
    options = parser.parse_args()
    defaults = {"big_gb": (0.2, 30), "tables": (300, 20_000), "objects": (1000, 100_000), "partitions": (50, 1000)}
    for name, (small, full) in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, full if options.full else small)
    if options.full:
        options.folder = options.growing = True
    options.steps = [step for step in options.only.split(",") if step] or list(STEPS)
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"--only: no such database: {', '.join(sorted(unknown))}")
    return options


def measure(options, step):
    # Two folders: the server's belongs to its own user, the other one to whoever runs this, and a drill's server looks into it.
    with tempfile.TemporaryDirectory(prefix="pgkeep-large-pg-", dir=options.work) as data, \
            tempfile.TemporaryDirectory(prefix="pgkeep-large-", dir=options.work) as work:
        os.chmod(work, 0o755)
        server = Server(options.pg_bin, Path(data))
        s3, port = start_s3(Path(options.bin_dir) / "s3_server", Path(work))
        try:
            server.start(SETTINGS)
            server.sql("CREATE DATABASE bench", "template1")
            measured = Measured(options, Path(work), server, port)
            STEPS[step](options, measured)
            return not measured.failed
        finally:
            server.stop()
            s3.kill()
            s3.wait()


def main():
    options = arguments()
    print_machine(SimpleNamespace(bin=Path(options.pg_bin)), Path(options.bin_dir) / "pgkeep")
    results = [measure(options, step) for step in options.steps]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
