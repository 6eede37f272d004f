//! What one table out of an encrypted backup costs in a bucket.

use std::fs;

use super::generate;
use crate::backup::Shop;
use crate::support::oracle::KEY;
use crate::support::scripted_s3::ScriptedS3;
use crate::verify::{ROWS, dump};

/// The header, then the chunks of the table; never the end of the file, and never all of it.
#[test]
fn a_table_takes_its_own_chunks_and_few_requests() {
    let server = ScriptedS3::start();
    let mut shop = Shop::with_key(&server);
    shop.prints(dump());
    let recipient = generate(&shop.sandbox, KEY);
    let oracle = shop.oracle_of(&server);
    shop.backup_to(&oracle, &["--recipient", &recipient])
        .expect(0);
    let before = server.log().len();
    let fixed = [
        "--json",
        "extract",
        "latest",
        "--table",
        "payments",
        "--format",
        "csv",
        "-o",
        "rows.csv",
        "--identity",
        KEY,
    ];
    let all = fixed.map(str::to_owned).into_iter().chain(oracle.flags());
    let report = shop.sandbox.pgkeep(all).run().expect(0).json();
    assert_eq!(
        (&report["rows"], &report["ranged"]),
        (&ROWS.into(), &true.into())
    );
    let log = server.log().split_off(before);
    let of_dump = log
        .iter()
        .filter(|seen| seen.method == "GET" && seen.path.ends_with(".sql.gz.age"));
    assert!(of_dump.count() <= 4, "{log:#?}");
    let key = server
        .keys()
        .into_iter()
        .find(|key| key.ends_with(".manifest.json"))
        .unwrap();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(server.bucket_dir().join(key)).unwrap()).unwrap();
    let table = manifest["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "payments")
        .unwrap();
    let own: u64 = table["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["stored_length"].as_u64().unwrap())
        .sum();
    let read = report["read_bytes"].as_u64().unwrap();
    assert!(read < own + 200 * 1024, "{read} for {own}");
}
