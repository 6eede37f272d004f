#!/usr/bin/env python3
"""Measures pgkeep beside pg_dump and the usual pipes; `scripts/bench` builds everything and calls this.
It prints the tables of docs/src/performance.md.

Wall times vary with the machine's mood, so every contender is compared with `pg_dump > /dev/null` of the same round,
and the median of those ratios is what counts. CPU time is that of the client side with all its children (wait4).
Peak memory is VmHWM of the largest process, sampled: rusage's figure would include this interpreter's own size,
which a child carries until its exec. Of pgkeep its own process counts.
"""

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import pwd
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

USER = "keeper"
KEY, SECRET = "bench-key", "bench-secret"
S3_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
SAMPLE_SECONDS = 0.1

# Shares of the dump's text, by kind of table.
SHARES = {"events": 0.30, "documents": 0.25, "people": 0.35, "files": 0.10}

SCHEMA = """
CREATE TABLE events (id bigint PRIMARY KEY, account int, kind text, at timestamptz, amount numeric(12,2));
CREATE TABLE documents (id bigint PRIMARY KEY, body jsonb);
CREATE TABLE people (id bigint PRIMARY KEY, name text, email text, street text, city text, about text);
CREATE TABLE files (id bigint PRIMARY KEY, body bytea);
CREATE TABLE settings (id serial PRIMARY KEY, name text UNIQUE, value text);
INSERT INTO settings (name, value) SELECT 'setting ' || n, repeat(n::text, 20) FROM generate_series(1, 1000) n;
"""


class Words:
    """Made-up words with the frequencies of a language (Zipf), so that text compresses as text does."""

    def __init__(self, chance):
        self.chance = chance
        syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "er", "an", "is")]
        made = {"".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(12_000)}
        self.words = sorted(made)
        chance.shuffle(self.words)
        self.weights = list(itertools.accumulate(1 / rank for rank in range(3, len(self.words) + 3)))

    def take(self, count):
        return self.chance.choices(self.words, cum_weights=self.weights, k=count)


def event(at, chance, words):
    kind = chance.choice(("login", "view", "view", "view", "order", "payment", "refund"))
    second = f"2025-{at % 12 + 1:02}-{at % 28 + 1:02} {at % 24:02}:{at % 60:02}:{chance.randrange(60):02}+00"
    return f"{at}\t{chance.randrange(50_000)}\t{kind}\t{second}\t{chance.randrange(100_000) / 100}\n"


def document(at, chance, words):
    body = {
        "type": chance.choice(("order", "invoice", "cart")),
        "customer": {"id": chance.randrange(50_000), "name": " ".join(words.take(2)).title()},
        "lines": [
            {"sku": f"{chance.randrange(16**6):06x}", "count": chance.randint(1, 9), "price": chance.randrange(9_999) / 100}
            for _ in range(chance.randint(1, 6))
        ],
        "note": " ".join(words.take(6)),
    }
    return f"{at}\t{json.dumps(body)}\n"


def person(at, chance, words):
    first, last, street, city = words.take(4)
    about = " ".join(words.take(80)).capitalize() + "."
    email = f"{first}.{last}{at % 97}@{words.take(1)[0]}.example"
    return f"{at}\t{first.title()} {last.title()}\t{email}\t{chance.randint(1, 300)} {street.title()} Street\t{city.title()}\t{about}\n"


def file(at, chance, words):
    return f"{at}\t\\\\x{chance.randbytes(chance.randint(500, 20_000)).hex()}\n"


ROWS = {"events": event, "documents": document, "people": person, "files": file}


class Server:
    """A throw-away PostgreSQL, run by an unprivileged user where this is root: it refuses to be root."""

    def __init__(self, bin_dir, folder):
        self.bin = Path(bin_dir)
        self.folder = folder
        self.data = folder / "data"
        self.owner = {}
        if os.geteuid() == 0:
            names = [name for name in ("postgres", "nobody") if has_user(name)]
            entry = pwd.getpwnam(names[0])
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self.owner = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/bench"

    def start(self, more=()):
        self.run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=256MB",
                    "max_wal_size=4GB", "autovacuum=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", *more]
        options = " ".join(f"-c {setting}" for setting in settings)
        self.run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "-o", f"-p {self.port} {options}", "start")

    def stop(self):
        if (self.data / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def run(self, program, *arguments):
        subprocess.run([self.bin / program, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL, **self.owner)

    def psql(self, database="bench"):
        url = self.url.rsplit("/", 1)[0] + "/" + database
        return [str(self.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]

    def sql(self, text, database="bench"):
        subprocess.run(self.psql(database), input=text, text=True, check=True, stdout=subprocess.DEVNULL)

    def fill(self, size_mb):
        self.sql("CREATE DATABASE bench", "template1")
        self.sql(SCHEMA)
        chance = random.Random(1)
        words = Words(chance)
        for table, share in SHARES.items():
            left = size_mb * share * 1e6
            load = subprocess.Popen([*self.psql(), "-c", f"COPY {table} FROM STDIN"], stdin=subprocess.PIPE, text=True)
            for at in itertools.count(1):
                row = ROWS[table](at, chance, words)
                load.stdin.write(row)
                left -= len(row)
                if left <= 0:
                    break
            load.stdin.close()
            if load.wait() != 0:
                sys.exit(f"error: filling `{table}` failed")
        self.sql("VACUUM ANALYZE")


def has_user(name):
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


class Run:
    """One measured pipeline."""

    def __init__(self, argvs, stdout=None, environment=None, own_memory=False):
        self.own_memory = own_memory
        self.peak_kb = 0
        started = time.monotonic()
        with open(stdout or os.devnull, "wb") as output, tempfile.TemporaryFile() as errors:
            processes = self.start(argvs, output, errors, environment)
            is_over = threading.Event()
            sampler = threading.Thread(target=self.sample, args=([p.pid for p in processes], is_over))
            sampler.start()
            self.codes, self.cpu = [], 0.0
            for process in processes:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                self.codes.append(process.returncode)
                self.cpu += usage.ru_utime + usage.ru_stime
            self.wall = time.monotonic() - started
            is_over.set()
            sampler.join()
            errors.seek(0)
            self.stderr = errors.read().decode(errors="replace").strip()

    @staticmethod
    def start(argvs, output, errors, environment):
        processes, source = [], subprocess.DEVNULL
        for at, argv in enumerate(argvs):
            is_last = at == len(argvs) - 1
            process = subprocess.Popen(argv, stdin=source, stdout=output if is_last else subprocess.PIPE, stderr=errors,
                                       env={**os.environ, **(environment or {})})
            if source is not subprocess.DEVNULL:
                source.close()
            source = process.stdout
            processes.append(process)
        return processes

    def sample(self, pids, is_over):
        while not is_over.is_set():
            for pid in pids if self.own_memory else with_children(pids):
                self.peak_kb = max(self.peak_kb, peak_of(pid))
            is_over.wait(SAMPLE_SECONDS)

    def failure(self):
        if all(code == 0 for code in self.codes):
            return None
        return f"exit {self.codes}: {self.stderr.splitlines()[0] if self.stderr else 'no message'}"


def with_children(pids):
    found, todo = [], list(pids)
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass  # It ended between two looks.
    return found


def peak_of(pid):
    try:
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    except (OSError, TypeError):
        return 0


class Contenders:
    """Everything that is measured, by name; each entry runs once and returns its Run and the size of what it made."""

    def __init__(self, server, pgkeep, work, s3_port):
        self.server, self.pgkeep, self.work, self.s3_port = server, pgkeep, work, s3_port
        self.key = work / "key"
        made = subprocess.run([pgkeep, "--json", "keys", "generate", "-o", self.key], capture_output=True, check=True)
        self.recipient = json.loads(made.stdout)["recipient"]
        dump = [str(server.bin / "pg_dump"), "-d", server.url]
        self.all = {
            "pg_dump > /dev/null": lambda: (Run([dump]), None),
            "pg_dump \\| gzip": lambda: self.pipe(dump, ["gzip"]),
            "pg_dump \\| pigz": lambda: self.pipe(dump, ["pigz"]),
            "pg_dump -Fc": lambda: self.to_file([*dump, "-Fc", "-f"]),
            "pg_dump -Fd -j2": lambda: self.to_file([*dump, "-Fd", "-j2", "-f"]),
            "pgkeep, folder, gzip": lambda: self.keep("gzip", str(work / "store")),
            "pgkeep, folder, gzip, encrypted": lambda: self.keep("gzip", str(work / "store"), ["--recipient", self.recipient]),
            "pgkeep, folder, gzip, 2 jobs": lambda: self.keep("gzip", str(work / "store"), ["--jobs", "2"]),
            "pgkeep, folder, gzip, 4 jobs": lambda: self.keep("gzip", str(work / "store"), ["--jobs", "4"]),
            "pgkeep, folder, zstd": lambda: self.keep("zstd", str(work / "store")),
            "pgkeep, folder, zstd, 2 jobs": lambda: self.keep("zstd", str(work / "store"), ["--jobs", "2"]),
            "pgkeep, folder, zstd, 4 jobs": lambda: self.keep("zstd", str(work / "store"), ["--jobs", "4"]),
            "pgkeep, S3, gzip": lambda: self.keep("gzip", "s3://bench/pg"),
            "pgkeep, S3, gzip, 4 jobs": lambda: self.keep("gzip", "s3://bench/pg", ["--jobs", "4"]),
            "pgkeep, S3, gzip, encrypted": lambda: self.keep("gzip", "s3://bench/pg", ["--recipient", self.recipient]),
        }

    def pipe(self, dump, packer):
        out = self.work / "out.gz"
        return Run([dump, packer], stdout=out), size_of(out)

    def to_file(self, argv):
        out = self.work / "out"
        run = Run([[*argv, str(out)]])
        return run, size_of(out)

    def keep(self, compression, storage, more=(), url=None):
        argv = [str(self.pgkeep), "backup", "--url", url or self.server.url, "--storage", storage, "--name", "bench",
                "--compression", compression, "--progress", "never", "-q", *more]
        environment = {}
        folder = self.work / "store"
        if storage.startswith("s3:"):
            folder = self.work / "s3" / "bench"
            folder.mkdir(parents=True, exist_ok=True)
            argv += ["--s3-endpoint", f"http://127.0.0.1:{self.s3_port}"]
            environment = S3_ENVIRONMENT
        run = Run([argv], environment=environment, own_memory=True)
        return run, sum(path.stat().st_size for path in folder.rglob("*.sql.*") if path.is_file())

    def clear(self):
        for name in ("out", "out.gz", "store", "s3/bench"):
            path = self.work / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def size_of(path):
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return path.stat().st_size if path.exists() else 0


def start_s3(program, work):
    (work / "s3").mkdir()
    server = subprocess.Popen([program, work / "s3", "0", KEY], env={**os.environ, "S3_SECRET": SECRET},
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = server.stdout.readline()
    return server, int(line.rsplit(":", 1)[1])


def measure(contenders, rounds):
    """Runs all in turn, `rounds` times; returns per name a list of (run, size, ratio), or the words of its failure."""
    baseline = next(iter(contenders.all))
    contenders.all[baseline]()  # Warms the caches.
    results = {name: [] for name in contenders.all}
    for turn in range(rounds):
        reference = None
        for name, contender in contenders.all.items():
            if isinstance(results[name], str):
                continue
            run, size = contender()
            contenders.clear()
            reference = reference or run.wall
            failure = run.failure() or ("stored nothing" if size == 0 else None)
            if failure:
                results[name] = failure
            else:
                results[name].append((run, size, run.wall / reference))
            print(f"round {turn + 1}: {name}: {failure or f'{run.wall:.2f} s'}", file=sys.stderr)
    return results


def print_table(results, plain_bytes):
    reference = next((runs for name, runs in results.items() if name.endswith("gzip") and not isinstance(runs, str)), None)
    gzip_size = reference[0][1] if reference else None
    print("| | wall, ratio to pg_dump (min–max) | wall, s | CPU, s | peak memory, MB | size, MB | size to gzip -6 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        if isinstance(runs, str):
            print(f"| {name} | failed: {runs} | | | | | |")
            continue
        ratios = [ratio for _, _, ratio in runs]
        wall = statistics.median(run.wall for run, _, _ in runs)
        cpu = statistics.median(run.cpu for run, _, _ in runs)
        peak = max(run.peak_kb for run, _, _ in runs) / 1024
        size = runs[-1][1]
        sizes = f"{size / 1e6:.1f} | {f'{size / gzip_size:.3f}' if gzip_size else ''}" if size is not None else f"{plain_bytes / 1e6:.1f} (plain) |"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {name} | {ratio} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {sizes} |")


def print_reading(file, pgkeep, rounds):
    """How fast a dump is proven, beside what only reads it."""
    print("\n| reading the plain dump | GB/s, median (min–max) | CPU, s | peak memory, MB |")
    print("| --- | --- | --- | --- |")
    commands = {
        "cat > /dev/null": ["cat", str(file)],
        "wc -l": ["wc", "-l", str(file)],
        "pgkeep inspect": [str(pgkeep), "inspect", str(file), "--json"],
    }
    results = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            # `cat` straight into /dev/null would be a no-op for clever ones; a pipe makes it move the bytes.
            argvs = [argv, ["tail", "-c1"]] if name.startswith("cat") else [argv]
            results[name].append(Run(argvs, own_memory=True))
    size = file.stat().st_size
    proof = subprocess.run(commands["pgkeep inspect"], capture_output=True)
    for name, runs in results.items():
        failure = next(filter(None, (run.failure() for run in runs)), None)
        if name == "pgkeep inspect" and not failure and not proof.stdout:
            failure = "printed nothing"
        if failure:
            print(f"| {name} | failed: {failure} | | |")
            continue
        speeds = [size / run.wall / 1e9 for run in runs]
        cpu = statistics.median(run.cpu for run in runs)
        peak = max(run.peak_kb for run in runs) / 1024
        print(f"| {name} | {statistics.median(speeds):.2f} ({min(speeds):.2f}–{max(speeds):.2f}) | {cpu:.2f} | {peak:.0f} |")


def print_catalogue(contenders, work, rounds, count=10_000):
    """How fast many backups are listed and planned; two objects each, as a listing sees them."""
    newest = datetime.datetime(2026, 1, 31, 3)
    root = work / "many"
    places = {"folder": root / "shop", "S3": work / "s3" / "bench" / "many" / "shop"}
    for folder in places.values():
        folder.mkdir(parents=True)
        for at in range(count):
            start = newest - datetime.timedelta(hours=2 * at)
            for suffix in ("manifest.json", "sql.gz"):
                (folder / f"shop-{start:%Y%m%dT%H%M%SZ}-{at:04x}.{suffix}").write_text("x")
    s3 = ["--storage", "s3://bench/many", "--s3-endpoint", f"http://127.0.0.1:{contenders.s3_port}"]
    environment = S3_ENVIRONMENT
    policy = ["--keep-daily", "7", "--keep-weekly", "4", "--keep-monthly", "12", "--allow-mass-delete"]
    print(f"\n| {count:,} backups | wall, s, median (min–max) | CPU, s | peak memory, MB |")
    print("| --- | --- | --- | --- |")
    for place, storage in {"folder": ["--storage", str(root)], "S3": s3}.items():
        for name, command in {"list": ["list"], "prune --dry-run": ["prune", "-d", "shop", "--dry-run", *policy]}.items():
            argv = [str(contenders.pgkeep), "--json", *command, *storage]
            runs = [Run([argv], environment=environment, own_memory=True) for _ in range(rounds)]
            failure = next(filter(None, (run.failure() for run in runs)), None)
            if failure:
                print(f"| {name}, {place} | failed: {failure} | | |")
                continue
            walls = [run.wall for run in runs]
            cpu, peak = statistics.median(run.cpu for run in runs), max(run.peak_kb for run in runs) / 1024
            print(f"| {name}, {place} | {statistics.median(walls):.2f} ({min(walls):.2f}–{max(walls):.2f}) | {cpu:.2f} | {peak:.0f} |")


def print_stored(contenders, plain_bytes, rounds):
    """How fast a stored backup is proven, beside what only tells whether its gzip is whole."""
    run, _ = contenders.all["pgkeep, folder, gzip"]()
    stored = next((contenders.work / "store").rglob("*.sql.gz"), None)
    if run.failure() or not stored:
        sys.exit(f"error: {run.failure() or 'stored nothing'}")
    pgkeep, store = str(contenders.pgkeep), str(contenders.work / "store")
    table = ["extract", "latest", "--storage", store, "--table", "events", "--format", "csv"]
    commands = {
        "gunzip -t": ["gunzip", "-t", str(stored)],
        "pigz -t": ["pigz", "-t", str(stored)],
        "pgkeep verify": [pgkeep, "verify", "latest", "--storage", store, "--progress", "never"],
        "pgkeep extract, one table of four": [pgkeep, *table, "-o", str(contenders.work / "out"), "--force"],
    }
    results = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            results[name].append(Run([argv], own_memory=True))
    print("\n| reading a stored backup | wall, ratio to gunzip -t (min–max) | wall, s | GB/s of SQL | CPU, s | peak memory, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        failure = next(filter(None, (run.failure() for run in runs)), None)
        if failure:
            print(f"| {name} | failed: {failure} | | | | |")
            continue
        ratios = [run.wall / reference.wall for run, reference in zip(runs, results["gunzip -t"])]
        wall = statistics.median(run.wall for run in runs)
        cpu = statistics.median(run.cpu for run in runs)
        peak = max(run.peak_kb for run in runs) / 1024
        speed = "" if "extract" in name else f"{plain_bytes / wall / 1e9:.2f}"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {name} | {ratio} | {wall:.2f} | {speed} | {cpu:.2f} | {peak:.0f} |")
    contenders.clear()


def print_restores(contenders, rounds):
    """A backup into a fresh database, beside the pipe that needs no pgkeep and the parallel restore of an archive.

    `pgkeep restore` is measured without its comparison, the drill with everything: server, comparison, report.
    """
    run, _ = contenders.all["pgkeep, folder, gzip"]()
    stored = next((contenders.work / "store").rglob("*.sql.gz"), None)
    if run.failure() or not stored:
        sys.exit(f"error: {run.failure() or 'stored nothing'}")
    server, name = contenders.server, "bench_restored"
    archive = contenders.work / "archive"
    Run([[str(server.bin / "pg_dump"), "-Fc", "-d", server.url]], stdout=archive)
    url = server.url.removesuffix("/bench") + f"/{name}"
    storage = ["--storage", str(contenders.work / "store"), "--progress", "never", "-q"]
    restore = [str(contenders.pgkeep), "restore", "latest", *storage, "--into", url, "--no-compare", "--jobs"]
    commands = {
        "gunzip \\| psql": [["gunzip", "-c", str(stored)],
                            [str(server.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]],
        "pg_restore -j2 of -Fc": [[str(server.bin / "pg_restore"), "-j2", "-d", url, str(archive)]],
        "pgkeep restore --jobs 1": [[*restore, "1"]],
        "pgkeep restore --jobs 2": [[*restore, "2"]],
        "pgkeep drill": [[str(contenders.pgkeep), "drill", "latest", *storage]],
    }
    results = {name: [] for name in commands}
    for _ in range(rounds):
        for command, argvs in commands.items():
            server.sql(f"DROP DATABASE IF EXISTS {name}", "template1")
            if "pgkeep" not in command:
                server.sql(f"CREATE DATABASE {name} TEMPLATE template0", "template1")
            results[command].append(Run(argvs, stdout=contenders.work / "out"))
    server.sql(f"DROP DATABASE IF EXISTS {name}", "template1")
    pipe, parallel, *_ = results.values()
    print("\n| restore | wall, ratio to gunzip \\| psql (min–max) | ratio to pg_restore -j2 (min–max) | wall, s |")
    print("| --- | --- | --- | --- |")
    for command, runs in results.items():
        failure = next(filter(None, (run.failure() for run in runs)), None)
        if failure:
            print(f"| {command} | failed: {failure} | | |")
            continue
        wall = statistics.median(run.wall for run in runs)
        print(f"| {command} | {ratios_of(runs, pipe)} | {ratios_of(runs, parallel)} | {wall:.2f} |")
    contenders.clear()


def ratios_of(runs, others):
    ratios = [run.wall / other.wall for run, other in zip(runs, others)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


class Counter:
    """Stands between a client and a server of this machine, and counts what the server sends."""

    def __init__(self, port):
        self.server_port, self.bytes, self.reads = port, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.server_port))
            threading.Thread(target=self.relay, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.relay, args=(server, client, True), daemon=True).start()

    def relay(self, source, target, is_counted):
        while piece := source.recv(1 << 16):
            if is_counted:
                self.bytes += len(piece)
            elif piece.startswith(b"GET ") and b".sql.gz" in piece.split(b"\r\n", 1)[0]:
                self.reads += 1
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


class SlowLink:
    """Stands between clients and a server of this machine, and gives each connection so many bytes in a second."""

    def __init__(self, port, rate):
        self.server_port, self.rate = port, rate
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        # A process of its own: it shall not wait for this interpreter.
        self.process = multiprocessing.Process(target=self.accept, daemon=True)
        self.process.start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.server_port))
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.relay, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self.relay, args=(server, client, self.rate), daemon=True).start()

    @staticmethod
    def relay(source, target, rate):
        due = time.monotonic()
        try:
            while piece := source.recv(1 << 16):
                if rate:
                    # Time in which nothing came is not saved up.
                    due = max(due, time.monotonic() - 0.01) + len(piece) / rate
                    time.sleep(max(0, due - time.monotonic()))
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The other side went away.


def print_slow_link(contenders, rounds):
    """Several sessions where each connection is slow."""
    link = SlowLink(contenders.server.port, 25_000_000)
    url = contenders.server.url.replace(f":{contenders.server.port}/", f":{link.port}/")
    store = str(contenders.work / "store")
    ways = {
        "pg_dump > /dev/null": lambda: Run([[str(contenders.server.bin / "pg_dump"), "-d", url]]),
        **{f"pgkeep, folder, zstd, --jobs {jobs}": lambda jobs=jobs: contenders.keep("zstd", store, ["--jobs", jobs], url)[0]
           for jobs in ("1", "2", "4")},
    }
    results = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            results[name].append(way())
            contenders.clear()
    link.process.terminate()
    print("\n| 25 MB/s for each connection | wall, ratio to --jobs 1 (min–max) | wall, s | peak memory, MB |")
    print("| --- | --- | --- | --- |")
    for name, runs in results.items():
        failure = next(filter(None, (run.failure() for run in runs)), None)
        if failure:
            print(f"| {name} | failed: {failure} | | |")
            continue
        wall = statistics.median(run.wall for run in runs)
        peak = max(run.peak_kb for run in runs) / 1024
        print(f"| {name} | {ratios_of(runs, results['pgkeep, folder, zstd, --jobs 1'])} | {wall:.2f} | {peak:.0f} |")


def print_single(contenders, rounds):
    """One small table with its structure out of the whole backup in a bucket, and what is read for it."""
    print()
    for name, more in {"pgkeep, S3, gzip": [], "pgkeep, S3, gzip, encrypted": ["--identity", str(contenders.key)]}.items():
        print_single_of(contenders, name, more, rounds)


def print_single_of(contenders, stored, more, rounds):
    run, size = contenders.all[stored]()
    if run.failure() or not size:
        sys.exit(f"error: {run.failure() or 'stored nothing'}")
    server, name = contenders.server, "bench_restored"
    url = server.url.removesuffix("/bench") + f"/{name}"
    counter = Counter(contenders.s3_port)
    argv = [str(contenders.pgkeep), "restore", "latest", "--storage", "s3://bench/pg", "--s3-endpoint",
            f"http://127.0.0.1:{counter.port}", "--table", "settings", "--into", url, "--allow-superuser", "--progress", "never", "-q", *more]
    walls, read, reads = [], [], []
    for _ in range(rounds):
        server.sql(f"DROP DATABASE IF EXISTS {name}", "template1")
        server.sql(f"CREATE DATABASE {name} TEMPLATE template0", "template1")
        before = counter.bytes, counter.reads
        run = Run([argv], environment=S3_ENVIRONMENT)
        if run.failure():
            sys.exit(f"error: {run.failure()}")
        walls.append(run.wall)
        read.append(counter.bytes - before[0])
        reads.append(counter.reads - before[1])
    server.sql(f"DROP DATABASE IF EXISTS {name}", "template1")
    kind = "encrypted" if more else "plain"
    print(f"- one table of 1000 rows out of {size / 1e6:.0f} MB in S3, {kind}, compared: "
          f"{statistics.median(walls):.2f} s ({min(walls):.2f}–{max(walls):.2f}), {max(read) / 1e3:.0f} kB read, "
          f"{max(reads)} requests for the dump")
    contenders.clear()


def print_encryption(results):
    """What encryption costs: the wall time of a round with it, to that of the same round without."""
    for place in ("folder", "S3"):
        plain, sealed = (results.get(f"pgkeep, {place}, gzip{end}") for end in ("", ", encrypted"))
        if isinstance(plain, list) and isinstance(sealed, list) and plain and sealed:
            ratios = ratios_of([run for run, _, _ in sealed], [run for run, _, _ in plain])
            print(f"\n- encryption, to the same backup without, {place}: {ratios}")


def huge_row(contenders, size_mb):
    """One row of `size_mb` of bytea is one line of twice that in the dump; memory must not follow it."""
    blocks = size_mb * 1024 * 1024 // 64
    contenders.server.sql("CREATE DATABASE bench", "template1")
    contenders.server.sql("CREATE TABLE huge (body bytea); INSERT INTO huge "
                          f"SELECT string_agg(sha512(i::text::bytea), ''::bytea) FROM generate_series(1, {blocks}) i")
    run, size = contenders.all["pgkeep, folder, gzip"]()
    if run.failure() or not size:
        sys.exit(f"error: {run.failure() or 'stored nothing'}")
    print(f"one row of {size_mb} MB bytea: pgkeep's peak memory {run.peak_kb / 1024:.0f} MB, {run.wall:.1f} s, {size / 1e6:.0f} MB stored")


def version_of(argv):
    try:
        text = subprocess.run(argv, capture_output=True, text=True).stdout
    except OSError:
        return "not there"
    return text.splitlines()[0] if text else "tells no version"


def print_machine(server, pgkeep):
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    print(f"- {os.cpu_count()} cores, {model[1] if model else 'unknown CPU'}, {int(memory[1]) // 1048576} GB, Linux {os.uname().release}")
    for argv in ([server.bin / "pg_dump", "--version"], [pgkeep, "--version"], ["gzip", "--version"], ["pigz", "--version"]):
        print(f"- {version_of(argv)}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size-mb", type=int, default=1000, help="size of the plain dump, about")
    parser.add_argument("--only", default="", help="regular expression over contenders; pg_dump itself always runs")
    parser.add_argument("--huge-row", action="store_true", help="only check memory with one row of --row-mb")
    parser.add_argument("--row-mb", type=int, default=300)
    parser.add_argument("--backups-only", action="store_true", help="only the tables of backups")
    parser.add_argument("--pg-bin", required=True)
    parser.add_argument("--bin-dir", required=True)
    return parser.parse_args()


def bench(options, server, work):
    pgkeep = Path(options.bin_dir).resolve() / "pgkeep"
    s3, port = start_s3(Path(options.bin_dir) / "s3_server", work)
    try:
        server.start()
        contenders = Contenders(server, pgkeep, work, port)
        print_machine(server, pgkeep)
        if options.huge_row:
            return huge_row(contenders, options.row_mb)
        print("filling the database", file=sys.stderr)
        server.fill(options.size_mb)
        every = dict(contenders.all)
        baseline, *others = contenders.all
        keep = [baseline, *(name for name in others if re.search(options.only, name))]
        contenders.all = {name: contenders.all[name] for name in keep}
        plain = work / "plain.sql"
        Run([[str(server.bin / "pg_dump"), "-d", server.url]], stdout=plain)
        print(f"- {plain.stat().st_size / 1e6:.0f} MB of plain dump, {options.rounds} rounds, medians\n")
        results = measure(contenders, options.rounds)
        print_table(results, plain.stat().st_size)
        print_encryption(results)
        print_slow_link(contenders, min(options.rounds, 3))
        if options.backups_only:
            return None
        print_reading(plain, pgkeep, options.rounds)
        print_catalogue(contenders, work, options.rounds)
        contenders.all = every
        print_stored(contenders, plain.stat().st_size, options.rounds)
        print_restores(contenders, options.rounds)
        print_single(contenders, options.rounds)
    finally:
        s3.kill()
        s3.wait()


def main():
    options = arguments()
    # Two folders: the server's belongs to its own user, the other one to whoever runs this.
    with tempfile.TemporaryDirectory(prefix="pgkeep-bench-pg-", dir="/tmp") as data, \
            tempfile.TemporaryDirectory(prefix="pgkeep-bench-") as work:
        server = Server(options.pg_bin, Path(data))
        try:
            bench(options, server, Path(work))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
