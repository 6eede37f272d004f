//! Bytes per second of each stage that a dump passes, and of all of them together.
//!
//! Inputs are made in code, a few megabytes each and the same in every run. `cargo bench` takes about a minute;
//! `cargo bench -- scan` runs one group. What a user feels is measured by `scripts/bench`.

use std::fmt::Write;
use std::hint::black_box;
use std::thread::available_parallelism;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use pgkeep_core::stream::compress::{Codec, Encoder};
use pgkeep_core::stream::pipeline::{self, Form, Progress};
use pgkeep_model::scan::{RowDigest, Scan, Scanner};

/// Length of an input: beyond the caches of a core, as real dumps are.
const INPUT_BYTES: usize = 8 * 1024 * 1024;

/// Size of the pieces that the scanner gets, about what a pipe and a file give.
const PIECE_BYTES: usize = 256 * 1024;

/// What one compressing thread gets at once.
const CHUNK_BYTES: usize = 1024 * 1024;

const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n";
const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    scan(&mut criterion);
    digest(&mut criterion);
    compress(&mut criterion);
    pipeline(&mut criterion);
    criterion.final_summary();
}

fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    bytes: usize,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .throughput(Throughput::Bytes(bytes as u64))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group
}

fn scan(criterion: &mut Criterion) {
    for (name, dump) in [
        ("copy", copy()),
        ("inserts", inserts()),
        ("structure", structure()),
    ] {
        assert!(scanned(&dump).complete, "`{name}` is a whole dump");
        let mut group = group(criterion, "scan", dump.len());
        group.bench_function(name, |bencher| bencher.iter(|| scanned(black_box(&dump))));
    }
}

fn scanned(dump: &[u8]) -> Scan {
    let mut scanner = Scanner::new();
    for piece in dump.chunks(PIECE_BYTES) {
        scanner.push(piece);
    }
    scanner.finish()
}

fn digest(criterion: &mut Criterion) {
    let rows = text_rows();
    let lines: Vec<&[u8]> = rows.split(|&byte| byte == b'\n').collect();
    let mut group = group(criterion, "digest", rows.len());
    group.bench_function("rows", |bencher| {
        bencher.iter(|| {
            let mut digest = RowDigest::default();
            lines
                .iter()
                .for_each(|line| digest.add_row(black_box(line)));
            digest
        });
    });
}

fn compress(criterion: &mut Criterion) {
    let text = text_rows();
    let hex = hex_rows();
    let codecs = [
        ("gzip-1", Codec::Gzip { level: Some(1) }),
        ("gzip-2", Codec::Gzip { level: Some(2) }),
        ("gzip-6", Codec::Gzip { level: Some(6) }),
        ("zstd-1", Codec::Zstd { level: 1 }),
        ("zstd-3", Codec::Zstd { level: 3 }),
    ];
    let text = codecs.map(|(name, codec)| (format!("{name}/text"), codec, &text));
    // Random hex digits have no repeats, so gzip writes them as blocks of literals.
    let hex = [
        ("gzip-2/hex".to_owned(), codecs[1].1, &hex),
        ("zstd-1/hex".to_owned(), codecs[3].1, &hex),
    ];
    let mut group = group(criterion, "compress", CHUNK_BYTES);
    for (name, codec, input) in text.into_iter().chain(hex) {
        let chunk = &input[..CHUNK_BYTES];
        let mut encoder = Encoder::new(codec).expect("every level here is one of the codec's");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                encoder
                    .encode(black_box(chunk))
                    .expect("memory is all it needs")
                    .bytes
            });
        });
    }
}

fn pipeline(criterion: &mut Criterion) {
    let dump = copy();
    let threads = available_parallelism().map_or(1, usize::from);
    let mut group = group(criterion, "pipeline", dump.len());
    for (name, codec) in [
        ("none", Codec::None),
        ("gzip-2", Codec::Gzip { level: Some(2) }),
        ("zstd-1", Codec::Zstd { level: 1 }),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| pass(&dump, codec, threads)));
    }
}

/// Passes a dump through every stage into nowhere, and returns its stored length.
fn pass(dump: &[u8], codec: Codec, threads: usize) -> u64 {
    let judge = |scan: &Scan| {
        if scan.complete {
            Ok(())
        } else {
            Err("not complete")
        }
    };
    let progress = Progress::default();
    let form = Form {
        codec,
        recipients: None,
    };
    let passed = pipeline::run(dump, &form, threads, &progress, judge, &mut |_| Ok(()));
    passed.expect("the dump is whole").stored_bytes
}

/// Rows as a shop has them: numbers, times, names and a line of text that compresses as text does.
fn text_rows() -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "order", "paid", "late", "parcel", "street", "house", "the", "of", "customer", "returned",
        "without", "blue", "green", "small", "again", "number",
    ];
    let mut chance = Chance(1);
    let mut rows = String::new();
    for id in 1.. {
        let (day, cents) = (chance.below(28) + 1, chance.below(100_000));
        write!(
            rows,
            "{id}\t2026-01-{day:02} 03:04:05+00\t{cents}\tcustomer-{:05}@example.com\t",
            chance.below(50_000)
        )
        .expect("a string takes everything");
        for _ in 0..12 {
            rows += WORDS[chance.below(16) as usize];
            rows.push(' ');
        }
        rows += "\\N\n";
        if rows.len() >= INPUT_BYTES {
            break;
        }
    }
    rows.into_bytes()
}

/// Rows of bytea: random hex digits.
fn hex_rows() -> Vec<u8> {
    let mut chance = Chance(2);
    let mut rows = String::new();
    while rows.len() < CHUNK_BYTES {
        rows += "\\\\x";
        (0..64).for_each(|_| {
            write!(rows, "{:016x}", chance.next()).expect("a string takes everything")
        });
        rows.push('\n');
    }
    rows.into_bytes()
}

fn copy() -> Vec<u8> {
    let table = "CREATE TABLE public.orders (id int, at timestamptz, cents int, email text, note text, more text);\n\n";
    let start = "COPY public.orders (id, at, cents, email, note, more) FROM stdin;\n";
    [
        HEAD.as_bytes(),
        table.as_bytes(),
        start.as_bytes(),
        &text_rows(),
        b"\\.\n\n",
        END.as_bytes(),
    ]
    .concat()
}

fn inserts() -> Vec<u8> {
    let mut dump = format!("{HEAD}CREATE TABLE public.notes (id int, name text, note text);\n\n");
    let mut id = 0;
    while dump.len() < INPUT_BYTES {
        id += 1;
        writeln!(dump, "INSERT INTO public.notes VALUES ({id}, 'it''s customer {id}', 'a note; with -- marks\nand lines');")
            .expect("a string takes everything");
    }
    (dump + END).into_bytes()
}

/// Many small tables with comments, constraints and functions, as an application with a long history has them.
fn structure() -> Vec<u8> {
    let mut dump = HEAD.to_owned();
    let mut number = 0;
    while dump.len() < INPUT_BYTES / 4 {
        number += 1;
        write!(
            dump,
            "--\n-- Name: t{number}; Type: TABLE; Schema: public; Owner: app\n--\n\n\
             CREATE TABLE public.t{number} (\n    id integer NOT NULL,\n    name text DEFAULT 'none'::text,\n    \
             CONSTRAINT c{number} CHECK ((id > 0))\n);\n\n\nALTER TABLE public.t{number} OWNER TO app;\n\n\
             CREATE FUNCTION public.f{number}() RETURNS trigger\n    LANGUAGE plpgsql\n    AS $$\nBEGIN\n    \
             -- not a table: CREATE TABLE x (\n    RETURN NEW;\nEND;\n$$;\n\n\
             ALTER TABLE ONLY public.t{number}\n    ADD CONSTRAINT t{number}_pkey PRIMARY KEY (id);\n\n"
        )
        .expect("a string takes everything");
    }
    (dump + END).into_bytes()
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let once = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (once ^ (once >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
