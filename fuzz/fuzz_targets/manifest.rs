//! Any bytes as a manifest: read or refused, never a panic; what was read reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgkeep_model::anomaly::Earlier;
use pgkeep_model::id::BackupId;
use pgkeep_model::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let id: BackupId = "shop-20260102T030405Z-7f3a"
        .parse()
        .expect("the id is well formed");
    if let Ok(manifest) = Manifest::read(bytes, &id) {
        let text = manifest.to_json();
        let again = Manifest::read(&text, &id).expect("its own text reads back");
        assert_eq!(again.to_json(), text);
        Earlier::read(&text, &id).expect("the anomaly gate reads what is a manifest");
    }
});
