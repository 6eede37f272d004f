//! Broken configs with the problems they must give, good ones with their values, and what holds for any text.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::json;

use super::keys::{Kind, Section};
use super::types::SECTIONS;
use super::*;

/// An environment and files made of tables.
#[derive(Default)]
pub(super) struct Fake {
    vars: HashMap<String, String>,
    files: HashMap<String, String>,
}

impl Fake {
    pub(super) fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    pub(super) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }
}

impl Env for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|path| self.files.get(path));
        text.cloned()
            .ok_or_else(|| io::Error::other("no such file"))
    }
}

/// Every value here is a secret that nothing may show.
const CANARY: &str = "c4n4ry";

fn env() -> Fake {
    Fake::default()
        .var("URL", "postgres://app:c4n4ry@db:5432/shop")
        .var("SECRET", "c4n4ry")
        .var("KEEP", "14")
        .var("YES", "true")
        .var("WORD", "c4n4ry-word")
        .var("EMPTY", "")
        .file("/run/pw", "c4n4ry\n")
        .file("/run/url", "postgres://app:c4n4ry@db/shop\n")
        .file("/run/lines", "c4n4ry\nsecond\n")
        .file("/run/notaurl", "c4n4ry")
}

fn problems(text: &str) -> Vec<String> {
    match parse(text, &env()) {
        Ok(_) => panic!("was taken:\n{text}"),
        Err(problems) => problems.iter().map(Problem::to_string).collect(),
    }
}

fn good(text: &str) -> Config {
    parse(text, &env()).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

/// Puts keys into a database that lacks nothing; the first of them stands in line 4.
fn in_database(keys: &str) -> String {
    let keys = keys.replace('\n', "\n    ");
    format!(
        "databases:\n  shop:\n    service: shop\n    {keys}\nstorages: {{local: {{url: ./b}}, far: {{url: 's3://b'}}}}\n"
    )
}

/// Puts keys into a storage on S3; the first of them stands in line 4.
fn in_storage(keys: &str) -> String {
    let keys = keys.replace('\n', "\n    ");
    format!(
        "storages:\n  far:\n    url: s3://b\n    {keys}\ndatabases: {{shop: {{service: shop}}}}\n"
    )
}

/// Whole files with all that is wrong with each.
const WHOLE_FILES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "line 1: `databases` is missing",
            "line 1: `storages` is missing",
        ],
    ),
    ("- a\n", &["line 1: the file must hold keys, not a list"]),
    (
        "just text\n",
        &["line 1: the file must hold keys, not a single value"],
    ),
    (
        "databases:\nstorages: {}\n",
        &[
            "line 1: `databases` is empty",
            "line 2: `storages` is empty",
        ],
    ),
    (
        "databases: [a]\nstorages: x\n",
        &[
            "line 1: `databases` must hold keys, not a list",
            "line 2: `storages` must hold keys, not a single value",
        ],
    ),
    (
        "database:\n  shop: {url: '${URL}'}\nstorages: {local: {url: ./b}}\nalerts: []\n",
        &[
            "line 1: `databases` is missing",
            "line 1: `database` is not a known key; did you mean `databases`?",
            "line 4: `alerts` is not a known key",
        ],
    ),
    (
        "databases:\n  shop:\n    retention:\n      keep_dayly: 7\nstorages:\n  offsite:\n    region: x\n  local:\n    url: ${NOPE}\n",
        &[
            "line 2: `databases.shop` names no server: give `url`, or `host` and `database`, or `service`",
            "line 3: `databases.shop.retention` keeps nothing; give at least one rule such as `keep_daily: 7`, or leave `retention` out to keep all",
            "line 4: `databases.shop.retention.keep_dayly` is not a known key; did you mean `keep_daily`?",
            "line 6: `storages.offsite.url` is missing",
            "line 9: `${NOPE}` is not set in the environment",
        ],
    ),
    (
        "databases:\n  a b: {service: x}\n  -c: {service: x}\n  ok: {service: x}\n  ok: {service: y}\nstorages:\n  ../x: {url: ./b}\n",
        &[
            "line 2: `databases.a b` is not a good name: a name has letters, digits, `_` and `-`, at most 128, and does not start with `-`",
            "line 3: `databases.-c` is not a good name: a name has letters, digits, `_` and `-`, at most 128, and does not start with `-`",
            "line 5: `databases.ok` is given twice, first in line 4",
            "line 7: `storages.../x` is not a good name: a name has letters, digits, `_` and `-`, at most 128, and does not start with `-`",
        ],
    ),
    (
        "databases:\n  shop: {service: x, storages: [lokal, local, local]}\nstorages:\n  local: {ulr: ./b}\n",
        &[
            "line 2: `databases.shop.storages: lokal` is not a storage of this file; did you mean `local`?",
            "line 2: `databases.shop.storages` names `local` twice",
            "line 4: `storages.local.ulr` is not a known key; did you mean `url`?",
            "line 4: `storages.local.url` is missing",
        ],
    ),
    (
        "defaults:\n  globals: maybe\n  databases: {}\ndatabases:\n  shop: {service: x}\n  crm: {service: x}\nstorages: {local: {url: ./b}}\n",
        &[
            "line 2: `defaults.globals: maybe` must be `true` or `false`",
            "line 3: `defaults.databases` is not a known key; did you mean `database`?",
        ],
    ),
];

#[test]
fn tells_every_problem_of_a_whole_file() {
    for (text, expected) in WHOLE_FILES {
        let mut found = problems(text);
        let mut expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert!(
            parse(text, &env())
                .unwrap_err()
                .is_sorted_by_key(|p| p.line),
            "{text}"
        );
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "\n{text}");
    }
}

/// Keys of a database from line 4 on, and what is wrong with them.
const DATABASES: &[(&str, &[&str])] = &[
    // Unknown, twice, misplaced.
    (
        "retension: {keep_daily: 7}",
        &["line 4: `databases.shop.retension` is not a known key; did you mean `retention`?"],
    ),
    (
        "weekly: 4",
        &["line 4: `databases.shop.weekly` is not a known key"],
    ),
    (
        "keep_weekly: 4",
        &["line 4: `databases.shop.keep_weekly` is not a known key; it belongs under `retention`"],
    ),
    (
        "region: x",
        &["line 4: `databases.shop.region` is not a known key; it belongs in a storage"],
    ),
    (
        "retention: {weekly: 4, keep_daily: 7}",
        &[
            "line 4: `databases.shop.retention.weekly` is not a known key; did you mean `keep_weekly`?",
        ],
    ),
    (
        "retention: {keep_daily: 7, max_age: 1d}",
        &[
            "line 4: `databases.shop.retention.max_age` is not a known key; it belongs in a database or under `defaults`",
        ],
    ),
    (
        "globals: true\nglobals: false\nglobals: true",
        &[
            "line 5: `databases.shop.globals` is given twice, first in line 4",
            "line 6: `databases.shop.globals` is given twice, first in line 4",
        ],
    ),
    // Wrong types.
    (
        "port: five",
        &["line 4: `databases.shop.port: five` must be a whole number from 1 to 65535"],
    ),
    (
        "port: 0",
        &["line 4: `databases.shop.port: 0` must be a whole number from 1 to 65535"],
    ),
    (
        "port: 1e3",
        &["line 4: `databases.shop.port: 1e3` must be a whole number from 1 to 65535"],
    ),
    (
        "port: 99999999999999999999",
        &[
            "line 4: `databases.shop.port: 99999999999999999999` must be a whole number from 1 to 65535",
        ],
    ),
    (
        "port: [5432]",
        &["line 4: `databases.shop.port` must be a single value, not a list"],
    ),
    (
        "port: {a: b}",
        &["line 4: `databases.shop.port` must be a single value, not keys"],
    ),
    ("port:", &["line 4: `databases.shop.port` has no value"]),
    ("host: ''", &["line 4: `databases.shop.host` is empty"]),
    (
        "host: ${NOPE:-}",
        &["line 4: `databases.shop.host` is empty"],
    ),
    (
        "host: \"a\\nb\"",
        &["line 4: `databases.shop.host: a b` must be on one line"],
    ),
    (
        "globals: yes",
        &["line 4: `databases.shop.globals: yes` must be `true` or `false`"],
    ),
    (
        "globals: ${WORD}",
        &["line 4: `databases.shop.globals: ${WORD}` must be `true` or `false`"],
    ),
    (
        "sslmode: verify",
        &[
            "line 4: `databases.shop.sslmode: verify` must be `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`",
        ],
    ),
    (
        "preset: neon",
        &["line 4: `databases.shop.preset: neon` must be `supabase`"],
    ),
    (
        "retention: 7",
        &["line 4: `databases.shop.retention` must hold keys, not a single value"],
    ),
    (
        "retries: [3]",
        &["line 4: `databases.shop.retries` must hold keys, not a list"],
    ),
    // Variables.
    (
        "host: ${NOPE}-${ALSO}",
        &[
            "line 4: `${NOPE}` is not set in the environment",
            "line 4: `${ALSO}` is not set in the environment",
        ],
    ),
    (
        "host: ${EMPTY}",
        &["line 4: `${EMPTY}` is empty in the environment"],
    ),
    (
        "password: ab${cd",
        &[
            "line 4: `${` must be followed by the name of a variable and `}`; write `$${` for a literal `${`",
        ],
    ),
    (
        "tables:\n  - a\n  - ${NOPE}",
        &["line 6: `${NOPE}` is not set in the environment"],
    ),
    // Connections.
    (
        "url: postgres://h/d",
        &["line 3: `databases.shop.service` cannot be combined with `url`"],
    ),
    (
        "url: mysql://app:c4n4ry@h/d",
        &[
            "line 3: `databases.shop.service` cannot be combined with `url`",
            "line 4: `databases.shop.url` must start with `postgres://` or `postgresql://`",
        ],
    ),
    (
        "password: a\npassword_file: /run/pw",
        &["line 5: `databases.shop.password_file` cannot be combined with `password`"],
    ),
    (
        "password_file: /run/gone",
        &[
            "line 4: `databases.shop.password_file: /run/gone` does not give a value: cannot read `/run/gone`: no such file",
        ],
    ),
    (
        "password_file: /run/lines",
        &[
            "line 4: `databases.shop.password_file: /run/lines` names a file whose value must be on one line",
        ],
    ),
    (
        "url_file: /run/notaurl",
        &[
            "line 3: `databases.shop.service` cannot be combined with `url`",
            "line 4: `databases.shop.url_file: /run/notaurl` names a file whose value must start with `postgres://` \
             or `postgresql://`",
        ],
    ),
    // Names.
    (
        "tables: ['audit_*']",
        &[
            "line 4: `databases.shop.tables: audit_*` must be an exact name, not a pattern; a real `*` or `?` goes in double quotes",
        ],
    ),
    (
        "tables: [a.b.c]",
        &[
            "line 4: `databases.shop.tables: a.b.c` must have fewer parts; a name with a dot in it goes in double quotes",
        ],
    ),
    (
        "schemas: [a.b]",
        &[
            "line 4: `databases.shop.schemas: a.b` must have fewer parts; a name with a dot in it goes in double quotes",
        ],
    ),
    (
        "exclude_tables: ['\"a']",
        &[
            "line 4: `databases.shop.exclude_tables: \"a` must be a name with balanced double quotes",
        ],
    ),
    (
        "structure_only: [a., ~]",
        &[
            "line 4: `databases.shop.structure_only: a.` must be a name without empty parts",
            "line 4: `databases.shop.structure_only` has no value",
        ],
    ),
    (
        "required_tables: [{min_rows: -1, rows: 2}]",
        &[
            "line 4: `databases.shop.required_tables.rows` is not a known key; did you mean `min_rows`?",
            "line 4: `databases.shop.required_tables.min_rows: -1` must be a whole number from 0 on",
            "line 4: `databases.shop.required_tables.name` is missing",
        ],
    ),
    (
        "required_tables: [users]\nexclude_tables: [public.users]",
        &[
            "line 5: `databases.shop.required_tables` holds a table that `exclude_tables` leaves out",
        ],
    ),
    (
        "required_tables: [billing.x]\nexclude_schemas: [billing]",
        &[
            "line 5: `databases.shop.required_tables` holds a table that `exclude_schemas` leaves out",
        ],
    ),
    // Storages.
    (
        "storages: []",
        &["line 4: `databases.shop.storages` names no storage"],
    ),
    (
        "storages: [nope]",
        &["line 4: `databases.shop.storages: nope` is not a storage of this file"],
    ),
    (
        "copies: 3",
        &["line 4: `databases.shop` asks for 3 copies and has 2 storages"],
    ),
    (
        "copies: 0",
        &["line 4: `databases.shop.copies: 0` must be a whole number from 1 to 100"],
    ),
    // Compression.
    (
        "compression: lzma",
        &["line 4: `databases.shop.compression: lzma` must be `gzip`, `zstd` or `none`"],
    ),
    (
        "compression: {method: gzip, level: 12}",
        &["line 4: `databases.shop.compression.level` does not fit: `gzip` has levels from 1 to 9"],
    ),
    (
        "compression: {method: none, level: 1}",
        &["line 4: `databases.shop.compression.level` does not fit: `none` has no levels"],
    ),
    (
        "compression: {method: zstd, level: 20}",
        &["line 4: `databases.shop.compression.level: 20` must be a whole number from 1 to 19"],
    ),
    // Lengths of time.
    (
        "lock_wait_timeout: 60",
        &[
            "line 4: `databases.shop.lock_wait_timeout: 60` must be a length of time such as `90s`, `10m`, `26h` or `30d`",
        ],
    ),
    (
        "lock_wait_timeout: 0s",
        &["line 4: `databases.shop.lock_wait_timeout: 0s` must be between 1s and 24d"],
    ),
    (
        "connect_timeout: -5s",
        &["line 4: `databases.shop.connect_timeout: -5s` must be between 1s and 24d"],
    ),
    (
        "connect_timeout: 5s ago",
        &["line 4: `databases.shop.connect_timeout: 5s ago` must be between 1s and 24d"],
    ),
    (
        "stall_timeout: never",
        &[
            "line 4: `databases.shop.stall_timeout: never` must be a length of time such as `90s`, `10m`, `26h` or `30d`",
        ],
    ),
    (
        "max_age: 1 month",
        &[
            "line 4: `databases.shop.max_age: 1 month` must be a length of time such as `90s`, `10m`, `26h` or `30d`",
        ],
    ),
    (
        "retries: {attempts: 0, delay: 10s, max_delay: 5s}",
        &[
            "line 4: `databases.shop.retries.attempts: 0` must be a whole number from 1 to 100",
            "line 4: `databases.shop.retries.max_delay` is shorter than `delay`",
        ],
    ),
    // Retention.
    (
        "retention: {}",
        &[
            "line 4: `databases.shop.retention` keeps nothing; give at least one rule such as `keep_daily: 7`, or leave `retention` out to keep all",
        ],
    ),
    (
        "retention: {timezone: UTC, keep_pre_deploy: 3}",
        &[
            "line 4: `databases.shop.retention` keeps nothing; give at least one rule such as `keep_daily: 7`, or leave `retention` out to keep all",
        ],
    ),
    (
        "retention:\n  keep_daily: 0\n  keep_weekly: 0",
        &[
            "line 5: `databases.shop.retention.keep_daily: 0` must be a whole number from 1 to 876600",
            "line 6: `databases.shop.retention.keep_weekly: 0` must be a whole number from 1 to 876600",
        ],
    ),
    (
        "retention: {keep_daily: -7}",
        &[
            "line 4: `databases.shop.retention.keep_daily: -7` must be a whole number from 1 to 876600",
        ],
    ),
    (
        "retention: {keep_daily: 7.5}",
        &[
            "line 4: `databases.shop.retention.keep_daily: 7.5` must be a whole number from 1 to 876600",
        ],
    ),
    (
        "retention: {keep_within: 0d}",
        &[
            "line 4: `databases.shop.retention.keep_within: 0d` must be positive and at most 1000 years",
        ],
    ),
    (
        "retention: {keep_within: -3d}",
        &[
            "line 4: `databases.shop.retention.keep_within: -3d` must be positive and at most 1000 years",
        ],
    ),
    (
        "retention: {keep_within: 1500y}",
        &[
            "line 4: `databases.shop.retention.keep_within: 1500y` must be positive and at most 1000 years",
        ],
    ),
    (
        "retention: {keep_last: 1, keep_pre_deploy: 0}",
        &[
            "line 4: `databases.shop.retention.keep_pre_deploy: 0` must be a whole number from 1 to 876600",
        ],
    ),
    (
        "retention: {keep_last: 1, keep_pre_deploy: some}",
        &[
            "line 4: `databases.shop.retention.keep_pre_deploy: some` must be a whole number or an age such as `30d`",
        ],
    ),
    (
        "retention: {keep_last: 1, timezone: Berlin}",
        &[
            "line 4: `databases.shop.retention.timezone: Berlin` must be an IANA name such as `Europe/Berlin`",
        ],
    ),
];

#[test]
fn tells_the_problems_of_a_database() {
    for (keys, expected) in DATABASES {
        assert_eq!(problems(&in_database(keys)), *expected, "\n{keys}");
    }
}

/// Keys of a storage from line 4 on, and what is wrong with them.
const STORAGES: &[(&str, &[&str])] = &[
    (
        "regoin: x",
        &["line 4: `storages.far.regoin` is not a known key; did you mean `region`?"],
    ),
    (
        "url: s3://c",
        &["line 4: `storages.far.url` is given twice, first in line 3"],
    ),
    (
        "endpoint: minio:9000",
        &["line 4: `storages.far.endpoint` must be an address such as `https://s3.example.com`"],
    ),
    (
        "endpoint: https://k:c4n4ry@h",
        &[
            "line 4: `storages.far.endpoint` must not hold credentials; give `access_key_id` and `secret_access_key`",
        ],
    ),
    (
        "path_style: 1",
        &["line 4: `storages.far.path_style: 1` must be `true` or `false`"],
    ),
    (
        "access_key_id: a",
        &["line 4: `storages.far.access_key_id` needs `secret_access_key` as well"],
    ),
    (
        "secret_access_key_file: /run/pw",
        &["line 4: `storages.far.secret_access_key_file` needs `access_key_id` as well"],
    ),
    (
        "session_token: a",
        &["line 4: `storages.far.session_token` needs `access_key_id` as well"],
    ),
    (
        "access_key_id: a\nsecret_access_key: b\ncredential_command: [x]",
        &["line 6: `storages.far.credential_command` cannot be combined with an access key"],
    ),
    (
        "credential_command: aws print",
        &[
            "line 4: `storages.far.credential_command` must be a list of a program and its arguments, such as `[aws-vault, print]`; no shell reads it",
        ],
    ),
    (
        "credential_command: []",
        &[
            "line 4: `storages.far.credential_command` must be a list of a program and its arguments, such as `[aws-vault, print]`; no shell reads it",
        ],
    ),
    (
        "part_size: 16",
        &[
            "line 4: `storages.far.part_size: 16` must be a size from 5.0 MiB to 1.0 GiB, such as `16MiB`",
        ],
    ),
    (
        "part_size: 2GiB",
        &[
            "line 4: `storages.far.part_size: 2GiB` must be a size from 5.0 MiB to 1.0 GiB, such as `16MiB`",
        ],
    ),
    (
        "part_size: big",
        &[
            "line 4: `storages.far.part_size: big` must be a size from 5.0 MiB to 1.0 GiB, such as `16MiB`",
        ],
    ),
];

#[test]
fn tells_the_problems_of_a_storage() {
    for (keys, expected) in STORAGES {
        assert_eq!(problems(&in_storage(keys)), *expected, "\n{keys}");
    }
    for (url, expected) in [
        (
            "abfss://c@acme.dfs.core.windows.net",
            "line 1: `storages.x.url` is written `az://container/prefix`, with `account` beside it",
        ),
        (
            "s3://k:c4n4ry@b",
            "line 1: `storages.x.url` must not hold credentials; give `access_key_id` and `secret_access_key`",
        ),
        (
            "~/b",
            "line 1: `storages.x.url` starts with `~`, which only a shell knows; write `${HOME}`",
        ),
        (
            "./b, region: x",
            "line 1: `storages.x.region` is only for `s3://` storages",
        ),
        (
            "./b, endpoint: 'https://x.example'",
            "line 1: `storages.x.endpoint` is only for `s3://`, `gs://` and `az://` storages",
        ),
        (
            "gs://b, path_style: true",
            "line 1: `storages.x.path_style` is only for `s3://` storages",
        ),
        (
            "s3://b, account: acme",
            "line 1: `storages.x.account` is only for `az://` storages",
        ),
        (
            "s3://b, access_token: c4n4ry",
            "line 1: `storages.x.access_token` is only for `gs://` and `az://` storages",
        ),
        (
            "az://b, service_account_file: /run/pw",
            "line 1: `storages.x.service_account_file` is only for `gs://` storages",
        ),
        (
            "gs://b, access_token: c4n4ry, credential_command: [x]",
            "line 1: `storages.x.credential_command` cannot be combined with `access_token`",
        ),
        (
            "az://b, account_key: c4n4ry, use_azure_cli: true",
            "line 1: `storages.x.use_azure_cli` cannot be combined with `account_key`",
        ),
        (
            "az://b, client_id: a, tenant_id: t",
            "line 1: `storages.x.tenant_id` needs `client_secret` or `federated_token_file` as well",
        ),
        (
            "az://b, client_id: a, client_secret: c4n4ry",
            "line 1: `storages.x.client_secret` needs `tenant_id` as well",
        ),
        (
            "az://b, client_id: a, tenant_id: t, client_secret: c4n4ry, federated_token_file: /t",
            "line 1: `storages.x.federated_token_file` cannot be combined with `client_secret`",
        ),
    ] {
        let text = format!("storages: {{x: {{url: {url}}}}}\ndatabases: {{a: {{service: a}}}}\n");
        assert_eq!(problems(&text), [expected]);
    }
    for keys in [
        "gs://b, anonymous: true",
        "az://b, account_key: c4n4ry, use_azure_cli: false",
        "az://b, client_id: a",
        "az://b, client_id: a, tenant_id: t, federated_token_file: /t",
    ] {
        let text = format!("storages: {{x: {{url: {keys}}}}}\ndatabases: {{a: {{service: a}}}}\n");
        good(&text);
    }
}

#[test]
fn the_least_config_has_the_documented_defaults() {
    let config = good(
        "databases: {shop: {url: '${URL}'}}\nstorages: {local: {url: ./b}, far: {url: 's3://b/p'}}\n",
    );
    let shop = config.database("shop").unwrap();
    assert_eq!(
        shop.connection.url.as_ref().unwrap().expose_secret(),
        "postgres://app:c4n4ry@db:5432/shop"
    );
    assert_eq!(shop.storages, ["local", "far"]);
    assert_eq!(shop.copies, None);
    assert_eq!(
        shop.compression,
        Compression {
            method: CompressionMethod::Gzip,
            level: None
        }
    );
    assert_eq!(shop.lock_timeout, None);
    assert_eq!(shop.lock_wait_timeout, Duration::from_secs(60));
    assert_eq!(shop.stall_timeout, Some(Duration::from_secs(600)));
    assert_eq!(shop.connect_timeout, Duration::from_secs(15));
    let retries = Retries {
        attempts: 3,
        delay: Duration::from_secs(10),
        max_delay: Duration::from_secs(300),
    };
    assert_eq!(shop.retries, retries);
    assert!(!shop.globals && !shop.allow_empty && !shop.strict_warnings);
    assert!(shop.retention.is_none() && shop.max_age.is_none() && shop.preset.is_none());
    let far = config.storage("far").unwrap();
    assert_eq!(far.part_size_bytes, None);
    assert_eq!(far.path_style, None);
    assert!(config.database("nope").is_none() && config.storage("nope").is_none());
}

/// A config with every key that can stand together.
fn full() -> String {
    let keys = "password: ${SECRET}\npassfile: ./pass\nsslmode: require\nsslrootcert: ca.pem\npreset: supabase\n\
        required_tables: [users, 'billing.\"Invoice Lines\"', {name: orders, min_rows: 2}]\nstorages: far\ncopies: 1\n\
        tables: [Users]\nexclude_tables: [b]\nschemas: [Public]\nexclude_schemas: ['\"S x\"']\nstructure_only: [c]\nlimits: {events: {last: 30d, by: at}}\n\
        compression: {method: zstd, level: 19}\nencryption: {recipients: age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z, recipients_file: keys.txt, identity_file: [key.txt]}\nglobals: ${YES}\nkeep_runs: 90d\nlock_timeout: 45m\nlock_wait_timeout: 90 min\nstall_timeout: off\n\
        connect_timeout: 5s\nretries: {attempts: 5, delay: 1m}\nallow_empty: true\nstrict_warnings: true\nmax_age: 1d 2h\n\
        retention: {keep_last: 1, keep_hourly: 2, keep_daily: \"${KEEP}\", keep_weekly: 3, keep_monthly: 4, keep_yearly: 5, keep_within: 1 month, keep_pre_deploy: 90d, timezone: Europe/Berlin}\n\
        drill: {url: 'postgres://d:${SECRET}@h/x', allow_superuser: true, max_age: 40d, skip_extensions: [pg_cron], assertions: [{name: some, sql: SELECT 1, expect: equals 1}, {name: app, command: [./smoke, '${SECRET}']}], schedule: '30 4 * * 0', recovery_target: 15m}\n\
        schedule: '15 3 * * *'\ntimezone: Europe/Berlin\nspread: 1h\ncatch_up: 6h\nverify: {schedule: '@weekly'}\n\
        host: db\nport: 5433\nuser: app\ndatabase: 2024";
    let storage = "  far:\n    url: s3://b/p\n    endpoint: https://s3.example.com\n    region: eu\n    path_style: false\n    access_key_id: ${SECRET}\n    \
        secret_access_key_file: /run/pw\n    session_token: ${SECRET}\n    part_size: 8MiB\n    ca_certificate: ca.pem\n    append_only: ${YES}\n  \
        vault:\n    url: s3://v\n    credential_command: [prog, --token, '${SECRET}']\n  \
        key: {url: 'gs://g/p', service_account: '${SECRET}'}\n  token: {url: 'gs://g', access_token: '${SECRET}'}\n  \
        blob: {url: 'az://c/p', account: acme, account_key: '${SECRET}'}\n  sas: {url: 'az://c', account: acme, sas_token: '${SECRET}'}\n  \
        app: {url: 'az://c', client_id: a, client_secret: '${SECRET}', tenant_id: t, authority_host: 'https://login.example'}\n  \
        aks: {url: 'az://c', client_id: a, federated_token_file: ./token, tenant_id: t}\n  cli: {url: 'az://c', use_azure_cli: true}\n  \
        nobody: {url: 'az://c', anonymous: true}\n";
    let keys = keys.replace('\n', "\n    ");
    format!(
        "databases:\n  shop:\n    service: shop\n    {keys}\nstorages:\n{storage}postgres:\n  bin_dir: /opt/pg\nlog:\n  file: ./pgkeep.log\n  max_size: 1MiB\n  keep: 0\nlock: {{storage: vault}}\n\
        sentry: {{dsn: 'https://${{SECRET}}@sentry.example/42', environment: production, release: shop@7, checkin_margin: 5m, max_runtime: 2h}}\n\
        server: {{listen: '0.0.0.0:80', base_path: /b, trusted_proxies: [10.0.0.0/8, '::1'], tokens: [{{name: ci, role: operate, token: '${{SECRET}}-long-enough-1'}}], cron: {{secret: '${{SECRET}}', allow_query_secret: true, allow_body_secret: true, min_interval: 1m}}, view_key: '${{SECRET}}', max_parallel: 4, max_parallel_per_server: 2, shutdown_grace: 1m}}\n\
        notify:\n  - slack: {{url: 'https://hooks.example/${{SECRET}}', on: [stale, failure]}}\n  \
        - webhook: {{url: 'https://u:${{SECRET}}@h:81/x', secret: '${{SECRET}}', headers: {{X-Key: '${{SECRET}}'}}, databases: shop, ca_certificate: ca.pem}}\n  \
        - email: {{host: mail, user: a, password: '${{SECRET}}', from: A <a@b>, to: [c@d, E <e@f>], on: success}}\n  \
        - ping: {{url: 'https://hc.example/${{SECRET}}/{{database}}', failure_url: 'https://hc.example/${{SECRET}}'}}\n"
    )
}

#[test]
fn every_value_arrives() {
    let config = good(&full());
    let shop = config.database("shop").unwrap();
    let c = &shop.connection;
    assert_eq!(
        (c.host.as_deref(), c.port, c.user.as_deref()),
        (Some("db"), Some(5433), Some("app"))
    );
    assert_eq!(
        (c.database.as_deref(), c.service.as_deref()),
        (Some("2024"), Some("shop"))
    );
    assert_eq!(c.password.as_ref().unwrap().expose_secret(), CANARY);
    let required: Vec<String> = shop
        .required_tables
        .iter()
        .map(|r| format!("{} {:?}", r.table, r.min_rows))
        .collect();
    assert_eq!(
        required,
        [
            "users None",
            "billing.\"Invoice Lines\" None",
            "orders Some(2)"
        ]
    );
    assert_eq!(
        (&shop.storages[..], shop.copies),
        (&["far".to_owned()][..], Some(1))
    );
    assert_eq!(
        (
            shop.tables[0].name.as_str(),
            shop.schemas[0].as_str(),
            shop.exclude_schemas[0].as_str()
        ),
        ("users", "public", "S x")
    );
    assert_eq!(
        shop.compression,
        Compression {
            method: CompressionMethod::Zstd,
            level: Some(19)
        }
    );
    assert_eq!(shop.lock_timeout, Some(Duration::from_secs(2700)));
    assert_eq!(shop.keep_runs, Duration::from_secs(90 * 86_400));
    assert_eq!(
        (shop.lock_wait_timeout, shop.stall_timeout),
        (Duration::from_secs(5400), None)
    );
    assert_eq!(shop.max_age, Some(Duration::from_secs(26 * 3600)));
    assert_eq!(
        (shop.retries.attempts, shop.retries.max_delay),
        (5, Duration::from_secs(300))
    );
    let retention = shop.retention.as_ref().unwrap();
    assert_eq!(
        (retention.keep_daily, retention.keep_yearly),
        (Some(14), Some(5))
    );
    assert_eq!(retention.keep_within.unwrap().get_months(), 1);
    assert!(
        matches!(retention.keep_pre_deploy, Some(KeepPreDeploy::Within(span)) if span.get_days() == 90)
    );
    assert_eq!(retention.timezone.iana_name(), Some("Europe/Berlin"));
    let far = config.storage("far").unwrap();
    assert_eq!(
        far.url,
        StorageUrl::S3 {
            bucket: "b".into(),
            prefix: "p".into()
        }
    );
    assert_eq!(
        far.secret_access_key.as_ref().unwrap().expose_secret(),
        CANARY
    );
    assert_eq!(
        (far.part_size_bytes, far.path_style),
        (Some(8 << 20), Some(false))
    );
    assert!(far.append_only && !config.storage("vault").unwrap().append_only);
    assert_eq!(config.lease_place(), LeasePlace::Storage("vault".into()));
    let command: Vec<&str> = config
        .storage("vault")
        .unwrap()
        .credential_command
        .iter()
        .map(|text| text.expose_secret())
        .collect();
    assert_eq!(command, ["prog", "--token", CANARY]);
    assert_eq!(
        config.postgres.bin_dir.as_deref(),
        Some(Path::new("/opt/pg"))
    );
    let log = LogConfig {
        file: Some("./pgkeep.log".into()),
        max_size_bytes: 1 << 20,
        keep: 0,
    };
    assert_eq!(config.log, log);
    let with_defaults = good(
        "log: {max_size: 10MiB, keep: 5}\ndatabases: {a: {host: h}}\nstorages: {x: {url: 's3://b'}}",
    );
    assert_eq!(with_defaults.log, LogConfig::default());
}

#[test]
fn a_lease_lives_in_a_storage_of_the_file_or_on_this_host() {
    let with = |name: &str, lock: &str| {
        format!(
            "storages: {{{name}: {{url: ./b, append_only: true}}}}\ndatabases: {{a: {{service: a}}}}\n{lock}\n"
        )
    };
    let place = |name, lock| good(&with(name, lock)).lease_place();
    assert_eq!(place("x", ""), LeasePlace::EachStorage);
    assert_eq!(
        place("x", "lock: {storage: x}"),
        LeasePlace::Storage("x".into())
    );
    assert_eq!(place("x", "lock: {storage: local}"), LeasePlace::ThisHost);
    // A storage may be called so, and is meant then.
    let local = LeasePlace::Storage("local".into());
    assert_eq!(place("local", "lock: {storage: local}"), local);
    assert_eq!(
        problems(&with("offsite", "lock: {storage: offsit}")),
        [
            "line 3: `lock.storage` is neither a storage of this file nor `local`; did you mean `offsite`?"
        ]
    );
}

#[test]
fn effective_config_shows_every_key() {
    let shown = good(&full()).effective();
    let here = |pointer: &str, section: &Section| {
        let keys = shown
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer}"))
            .as_object()
            .unwrap()
            .clone();
        let missing: Vec<&str> = section
            .keys
            .iter()
            .map(|key| key.name)
            .filter(|name| !keys.contains_key(*name))
            .collect();
        missing
    };
    // What cannot stand beside the rest, and files, whose secrets are shown hidden under their own key.
    assert_eq!(
        here("/databases/shop", &super::types::DATABASE),
        ["url", "url_file", "password_file"]
    );
    assert_eq!(
        here("/databases/shop/retention", &super::types::RETENTION),
        [] as [&str; 0]
    );
    assert_eq!(
        here("/databases/shop/retries", &super::types::RETRIES),
        [] as [&str; 0]
    );
    assert_eq!(
        here("/databases/shop/compression", &super::types::COMPRESSION),
        [] as [&str; 0]
    );
    assert_eq!(
        here("/databases/shop/encryption", &super::types::ENCRYPTION),
        [] as [&str; 0]
    );
    // No storage has all keys: most are for one kind, and a login comes from one place.
    let is_nowhere = |key: &&str| {
        let names = [
            "far", "vault", "key", "token", "blob", "sas", "app", "aks", "cli", "nobody",
        ];
        let mut storages = names
            .iter()
            .map(|name| here(&format!("/storages/{name}"), &super::types::STORAGE));
        storages.all(|missing| missing.contains(key))
    };
    let keys = super::types::STORAGE.keys.iter().map(|key| key.name);
    let nowhere: Vec<_> = keys.filter(is_nowhere).collect();
    let files = [
        "access_key_id",
        "secret_access_key",
        "session_token",
        "service_account",
        "account_key",
        "sas_token",
        "access_token",
        "client_secret",
    ];
    assert_eq!(nowhere, files.map(|name| format!("{name}_file")));
    assert_eq!(here("/log", &super::types::LOG), [] as [&str; 0]);
    assert_eq!(here("", &super::types::ROOT), ["defaults"]);
    assert_eq!(
        shown["databases"]["shop"]["retention"]["keep_pre_deploy"],
        "90d"
    );
    assert_eq!(
        shown["databases"]["shop"]["required_tables"][2],
        json!({"name": "orders", "min_rows": 2})
    );
    assert_eq!(shown["databases"]["shop"]["database"], "2024");
}

#[test]
fn effective_yaml_reads_back_and_keeps_the_order() {
    let text = full().replace(
        "credential_command: [prog, --token, '${SECRET}']",
        "credential_command: [prog]",
    );
    let config = good(&text);
    let yaml = config.effective_yaml();
    assert_eq!(good(&yaml).effective(), config.effective(), "{yaml}");
    let start = "databases:\n  shop:\n    host: db\n    port: 5433\n    user: app\n    database: \"2024\"\n    password: \"***\"\n";
    assert!(yaml.starts_with(start), "{yaml}");
    let odd = good(&in_database(
        "host: '$${x} # \"y\": [z'\nuser: \"null\"\ndatabase: 'on'",
    ));
    assert_eq!(
        good(&odd.effective_yaml()).effective(),
        odd.effective(),
        "{}",
        odd.effective_yaml()
    );
}

#[test]
fn effective_config_shows_the_level_in_force() {
    for (given, shown) in [
        ("allow_empty: false", json!({"method": "gzip"})),
        ("compression: zstd", json!({"method": "zstd", "level": 1})),
        ("compression: none", json!({"method": "none"})),
        (
            "compression: {method: zstd, level: 7}",
            json!({"method": "zstd", "level": 7}),
        ),
    ] {
        let effective = good(&in_database(given)).effective();
        assert_eq!(effective["databases"]["shop"]["compression"], shown);
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let with_url = good(
        "databases: {a: {url: '${URL}'}, b: {url_file: /run/url}}\nstorages: {local: {url: ./b}}\n",
    );
    assert_eq!(
        with_url.effective()["databases"]["a"]["url"],
        "postgres://app@db:5432/shop"
    );
    for config in [good(&full()), with_url] {
        for shown in [
            format!("{config:?}"),
            config.effective_yaml(),
            config.effective().to_string(),
        ] {
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }
    let secrets_in_wrong_places = [
        in_database(
            "port: ${WORD}\nsslmode: ${WORD}\nmax_age: ${WORD}\ntables: ['${WORD}*', '${WORD}.a.b.c']\nstorages: [ '${WORD}' ]",
        ),
        in_database(
            "host: db\nretention: {timezone: '${WORD}', keep_within: '${WORD}', keep_daily: '${WORD}', keep_pre_deploy: '${WORD}'}",
        ),
        in_database(
            "port: postgres://u:c4n4ry@h\npostgres://u:c4n4ry@h: 1\npassword: [c4n4ry]\nurl: c4n4ry",
        ),
        in_database("storages: [s3://u:c4n4ry@h]\nurl: 'postgres://u:c4n4ry @h'"),
        in_database("password_file: /run/lines\nurl_file: /run/notaurl"),
        in_storage(
            "endpoint: ${WORD}\npath_style: ${WORD}\npart_size: ${WORD}\naccess_key_id: [c4n4ry]",
        ),
        "databases: {a: {url: '${WORD}'}}\nstorages: {x: {url: 'ftp://${WORD}'}}\n".to_owned(),
        "a: \"c4n4ry\nb: 'c4n4ry".to_owned(),
    ];
    for text in secrets_in_wrong_places {
        for problem in problems(&text) {
            assert!(!problem.contains(CANARY), "{problem}");
        }
    }
}

#[test]
fn a_database_overrides_the_defaults() {
    let text = "defaults:\n  host: db1\n  user: backup\n  password: ${SECRET}\n  compression: zstd\n  retention: {keep_daily: 7, keep_weekly: 4}\n  required_tables: [users]\n  stall_timeout: 1h\n\
        databases:\n  a: {database: a}\n  b: {url: 'postgres://x/y', required_tables: [], stall_timeout: 0, retention: {keep_last: 2}}\n  c: {url: 'postgres://u:other@x/y', compression: none}\n\
        storages: {local: {url: ./b}}\n";
    let config = good(text);
    let [a, b, c] = ["a", "b", "c"].map(|name| config.database(name).unwrap().clone());
    assert_eq!(
        (
            a.connection.host.as_deref(),
            a.connection.database.as_deref()
        ),
        (Some("db1"), Some("a"))
    );
    assert_eq!(
        (a.compression.method, a.required_tables.len()),
        (CompressionMethod::Zstd, 1)
    );
    assert_eq!(a.stall_timeout, Some(Duration::from_secs(3600)));
    // A URL hides the other server's parts; the password stays, unless the URL has its own.
    assert_eq!(
        (b.connection.host.as_deref(), b.connection.user.as_deref()),
        (None, None)
    );
    assert!(b.connection.password.is_some() && c.connection.password.is_none());
    assert_eq!(
        (
            b.required_tables.len(),
            b.stall_timeout,
            c.compression.method
        ),
        (0, None, CompressionMethod::None)
    );
    let retention = b.retention.unwrap();
    assert_eq!((retention.keep_last, retention.keep_daily), (Some(2), None));
    assert_eq!(config.defaults.compression.method, CompressionMethod::Zstd);
    assert_eq!(config.defaults.storages, ["local"]);
}

#[test]
fn parts_hide_the_url_of_the_defaults() {
    let text = "defaults: {url: 'postgres://x/y'}\ndatabases: {a: {host: h}, b: }\nstorages: {local: {url: ./b}}\n";
    let config = good(text);
    assert!(config.database("a").unwrap().connection.url.is_none());
    assert!(config.database("b").unwrap().connection.url.is_some());
}

#[test]
fn one_problem_in_an_alias_is_told_for_each_place() {
    let text = "databases:\n  a: {service: a, retention: &r {keep_daily: x}}\n  b: {service: b, retention: *r}\nstorages: {local: {url: ./b}}\n";
    let expected = [
        "line 2: `databases.a.retention.keep_daily: x` must be a whole number from 1 to 876600",
        "line 2: `databases.b.retention.keep_daily: x` must be a whole number from 1 to 876600",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn path_style_is_left_open_unless_given() {
    for (keys, expected) in [
        ("endpoint: http://127.0.0.1:9000", None),
        (
            "endpoint: http://127.0.0.1:9000\npath_style: false",
            Some(false),
        ),
        ("path_style: true", Some(true)),
    ] {
        assert_eq!(
            good(&in_storage(keys)).storage("far").unwrap().path_style,
            expected,
            "{keys}"
        );
    }
}

#[test]
fn a_config_can_be_made_without_a_file() {
    let connection = Connection::from_url("postgres://app:c4n4ry@db/shop".into()).unwrap();
    let database = DatabaseConfig {
        connection,
        storages: vec!["local".into()],
        ..DatabaseConfig::default()
    };
    let config = Config {
        databases: vec![("shop".parse().unwrap(), database)],
        storages: vec![("local".into(), StorageConfig::new("./b".parse().unwrap()))],
        ..Config::default()
    };
    assert_eq!(
        config.effective()["databases"]["shop"]["url"],
        "postgres://app@db/shop"
    );
    assert!(Connection::from_url("mysql://x".into()).is_err());
    // The same as the least file gives.
    let file =
        good("databases: {shop: {url: 'postgres://app@db/shop'}}\nstorages: {local: {url: ./b}}\n");
    assert_eq!(file.effective(), config.effective());
}

/// The environment that the example names.
fn example_env() -> Fake {
    Fake::default()
        .var("DATABASE_URL", "postgres://app@db/shop")
        .var("CRM_PASSWORD", "x")
        .var("S3_ACCESS_KEY_ID", "x")
        .var("S3_SECRET_ACCESS_KEY", "x")
        .var("S3_SESSION_TOKEN", "x")
        .file("/run/secrets/ledger_password", "x")
        .file("/run/secrets/wiki_url", "postgres://app@db/wiki")
        .file("/run/secrets/s3_access_key_id", "x")
        .file("/run/secrets/s3_secret_access_key", "x")
        .file("/run/secrets/s3_session_token", "x")
        .file("/run/secrets/gcp_key.json", "{}")
        .var("GCP_KEY", "{}")
        .var("GCP_TOKEN", "x")
        .var("AZURE_KEY", "x")
        .var("AZURE_SAS", "sv=x&sig=y")
        .var("AZURE_APP_SECRET", "x")
        .var("AZURE_TOKEN", "x")
        .file("/run/secrets/azure_key", "x")
        .file("/run/secrets/azure_sas", "sv=x&sig=y")
        .file("/run/secrets/azure_app_secret", "x")
        .file("/run/secrets/azure_token", "x")
        .file("/run/secrets/gcp_token", "x")
        .var("WALL_TOKEN", "x")
        .file("/run/secrets/ci_token", "x")
        .var("MY_TOKEN", "x")
        .file("/run/secrets/cron_secret", "x")
        .var("VIEW_KEY", "x")
        .var("PROJECT_DSN", "https://x@sentry.example/42")
        .var("SMTP_PASSWORD", "x")
        .var("SLACK_URL", "https://hooks.slack.com/services/x")
        .var("DISCORD_URL", "https://discord.com/api/webhooks/1/x")
        .var("WEBHOOK_URL", "https://example.com/hook")
        .var("WEBHOOK_SECRET", "x")
        .var("WEBHOOK_TOKEN", "x")
        .var("PING_KEY", "x")
        .file("/run/secrets/smtp_password", "x")
        .file(
            "/run/secrets/slack_url",
            "https://hooks.slack.com/services/y",
        )
        .file(
            "/run/secrets/discord_url",
            "https://discord.com/api/webhooks/1/y",
        )
        .file("/run/secrets/webhook_url", "https://example.com/hook2")
        .file("/run/secrets/webhook_secret", "x")
        .file("/run/secrets/ping_url", "https://hc.example/x")
        .file("/run/secrets/start_url", "https://hc.example/x/begin")
        .file("/run/secrets/failure_url", "https://hc.example/x/bad")
}

/// The line of the example below which stand databases that belong below the first one.
const MOVED: &str =
    "# ---- Other ways to name a server. Move these lines up, below the `url` of `shop`.\n";

/// Sets every key of the example that is not set: takes the `#` from each line that does not explain, and moves up what
/// is to be moved.
fn example_with_all_keys() -> String {
    let set = |line: &str| {
        let text = line.trim_start();
        let explains = text.starts_with("# ") && !text.starts_with("#  ") || text == "#";
        if explains {
            line.to_owned()
        } else {
            line.replacen('#', "", 1)
        }
    };
    let (text, moved) = EXAMPLE.split_once(MOVED).unwrap();
    let first = "    url: ${DATABASE_URL}\n";
    let moved_up = text.replacen(first, &format!("{first}{moved}"), 1);
    moved_up.lines().map(set).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_good_as_it_is() {
    let config = parse(
        EXAMPLE,
        &Fake::default().var("DATABASE_URL", "postgres://app@db/shop"),
    )
    .unwrap();
    assert_eq!(config.databases.len(), 1);
    // `init` writes this file: nothing in it removes a backup until somebody asks for that.
    let shop = config.database("shop").unwrap();
    assert!(shop.retention.is_none() && config.defaults.retention.is_none());
    let too_long: Vec<&str> = EXAMPLE.lines().filter(|line| line.len() > 100).collect();
    assert_eq!(too_long, [] as [&str; 0]);
    // Six lines make it work, and they come first. The others that are set are names of empty sections.
    let is_set = |line: &&str| !line.is_empty() && !line.trim_start().starts_with('#');
    let set: Vec<&str> = EXAMPLE.lines().filter(is_set).collect();
    let (first, sections) = set.split_at(6);
    let top: Vec<&str> = EXAMPLE.lines().skip(2).take(6).collect();
    assert_eq!(first, top);
    assert_eq!(
        sections,
        [
            "defaults:",
            "sentry:",
            "postgres:",
            "log:",
            "lock:",
            "server:"
        ]
    );
}

#[test]
fn the_example_is_good_with_every_key_set() {
    let text = example_with_all_keys();
    let config =
        parse(&text, &example_env()).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    let names: Vec<&str> = config
        .databases
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["shop", "ledger", "crm", "wiki"]);
    let names: Vec<&str> = config
        .storages
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "local",
            "offsite",
            "mirror",
            "vault",
            "google",
            "google_key",
            "google_token",
            "blobs",
            "blobs_sas",
            "blobs_app",
            "blobs_files",
            "blobs_sas_file",
            "blobs_app_file",
            "blobs_token_file",
            "blobs_token",
            "blobs_aks",
            "blobs_cli",
            "emulator",
            "nas",
        ]
    );
    let retention = config.database("shop").unwrap().retention.as_ref();
    assert_eq!(retention.unwrap().keep_monthly, Some(12));
}

#[test]
fn the_example_holds_every_key_with_its_default() {
    let text = example_with_all_keys();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    for key in SECTIONS.iter().flat_map(|section| section.keys) {
        let is_key = |line: &str, at: usize| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| matches!(c, ' ' | '{'))
        };
        let name = format!("{}:", key.name);
        let holds = |line: &&str| line.match_indices(&name).any(|(at, _)| is_key(line, at));
        // A secret and its file cannot both stand in a section that there is once.
        let is_named = matches!(key.kind, Kind::SecretFile)
            && text.contains(&format!("`{}` names a file instead", key.name));
        assert!(
            is_named || lines.iter().any(holds),
            "`{}` is not in the example",
            key.name
        );
        let Some(default) = key.default else { continue };
        let expected = format!("{}: {default}", key.name);
        assert!(
            lines.iter().any(|line| line.trim() == expected),
            "`{expected}` is not in the example"
        );
    }
}

#[test]
fn the_table_of_keys_tells_the_real_defaults() {
    // Writes every default of the table into a config; it must mean the same as one without them.
    fn defaults(section: &Section) -> String {
        // What has no default of its own and cannot be empty.
        let is_off = |inner: &Section| ["retention", "encryption"].contains(&inner.name);
        let one = |key: &super::keys::Key| match (key.default, key.kind) {
            (Some(default), _) => Some(format!("{}: {default}", key.name)),
            (None, Kind::Section(inner) | Kind::SectionOrChoice(inner, _)) if !is_off(inner) => {
                Some(format!("{}: {{{}}}", key.name, defaults(inner)))
            }
            _ => None,
        };
        section
            .keys
            .iter()
            .filter_map(one)
            .collect::<Vec<_>>()
            .join(", ")
    }
    let written = format!(
        "databases: {{a: {{service: a, retention: {{keep_last: 1, {}}}, {}}}}}\nstorages: {{x: {{url: 's3://b', {}}}}}\n",
        defaults(&super::types::RETENTION),
        defaults(&super::types::DATABASE),
        defaults(&super::types::STORAGE),
    );
    let plain =
        "databases: {a: {service: a, retention: {keep_last: 1}}}\nstorages: {x: {url: 's3://b'}}\n";
    assert!(written.contains("max_delay: 5m"), "{written}");
    assert_eq!(
        good(&written).effective(),
        good(plain).effective(),
        "{written}"
    );
}

#[test]
fn a_long_config_is_read_fast() {
    let mut text = String::from("storages: {local: {url: ./b}}\ndatabases:\n");
    for at in 0..1000 {
        text.push_str(&format!("  d{at}:\n    service: s\n    required_tables: [a, b, {{name: c, min_rows: 1}}]\n    nope{at}: x\n"));
    }
    let start = Instant::now();
    assert_eq!(problems(&text).len(), 1000);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Text that looks like a config often enough to get past the first key.
fn almost_config() -> impl Strategy<Value = String> {
    let names: Vec<&str> = SECTIONS
        .iter()
        .flat_map(|section| section.keys)
        .map(|key| key.name)
        .collect();
    let word = prop_oneof![
        4 => prop::sample::select(names),
        1 => prop::sample::select(vec!["shop", "local", "zstd", "10m", "0", "-1", "true", "s3://b", "./b", "postgres://a:b@c/d"]),
        1 => prop::sample::select(vec!["${X}", "${X:-7}", "$${", "~", "''", "*a", "&a", "!t", "<<", "\"", "'", "|", ">"]),
    ];
    let glue = prop::sample::select(vec![
        ": ", ":\n", "\n", "\n  ", "\n    ", ", ", " {", "}", " [", "]", "- ", " #", "\t",
    ]);
    prop::collection::vec((word, glue), 0..40).prop_map(|parts| {
        parts
            .into_iter()
            .flat_map(|(word, glue)| [word, glue])
            .collect()
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        fuzz(text.as_bytes());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz(&bytes);
    }

    #[test]
    fn nothing_like_a_config_panics(text in almost_config()) {
        fuzz(text.as_bytes());
    }

    #[test]
    fn no_value_panics(section in 0..SECTIONS.len(), key in 0usize..40, value in "[^\\n]{0,30}") {
        let key = SECTIONS[section].keys[key % SECTIONS[section].keys.len()].name;
        fuzz(in_database(&format!("{key}: {value}")).as_bytes());
        fuzz(in_storage(&format!("{key}: {value}")).as_bytes());
        fuzz(in_database(&format!("retention:\n  keep_last: 1\n  {key}: {value}")).as_bytes());
    }

    #[test]
    fn any_text_survives_being_shown(value in "[^\\x00\\r\\n]{1,40}") {
        let quoted = serde_json::to_string(&value.replace("${", "$${")).unwrap();
        let text = in_database(&format!("host: {quoted}"));
        // Some characters cannot stand in YAML unescaped; then there is nothing to show.
        if let Ok(config) = parse(&text, &env()) {
            let again = good(&config.effective_yaml());
            prop_assert_eq!(again.effective(), config.effective());
        }
    }
}

#[test]
fn a_drill_is_read_and_each_slip_is_told() {
    let config = good(&full());
    let drill = &config.database("shop").unwrap().drill;
    assert!(drill.url.is_some() && drill.allow_superuser);
    let days = |days: u64| Some(Some(Duration::from_secs(days * 86_400)));
    assert_eq!(drill.max_age, days(40));
    assert_eq!(drill.skip_extensions, ["pg_cron"]);
    let names: Vec<&str> = drill
        .assertions
        .iter()
        .map(|assertion| assertion.name.as_str())
        .collect();
    assert_eq!(names, ["some", "app"]);
    for (drill, says) in [
        (
            "{assertions: [{sql: SELECT 1, expect: no_rows}]}",
            "`databases.shop.drill.assertions.name` is missing",
        ),
        (
            "{assertions: [{name: a}]}",
            "needs either `sql` with `expect`, or `command`",
        ),
        (
            "{assertions: [{name: a, sql: SELECT 1, command: [x]}]}",
            "needs either `sql` with `expect`, or `command`",
        ),
        (
            "{assertions: [{name: a, sql: SELECT 1}]}",
            "`databases.shop.drill.assertions.expect` is missing",
        ),
        (
            "{assertions: [{name: a, sql: SELECT 1, expect: about 3}]}",
            "must be `equals X`, `at_least N`",
        ),
        (
            "{assertions: [{name: a, command: x y}]}",
            "must be a list of a program and its arguments",
        ),
        ("{url: ftp://x}", "`databases.shop.drill.url`"),
    ] {
        let text = format!(
            "databases:\n  shop:\n    url: '${{URL}}'\n    drill: {drill}\nstorages: {{local: {{url: ./b}}}}\n"
        );
        let problems = super::parse(&text, &env()).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            told.iter().any(|line| line.contains(says)),
            "{drill}: {told:?}"
        );
    }
}

/// What may be asked for is what is reported.
#[test]
fn every_event_of_a_notifier_can_be_asked_for() {
    let names = super::notify::EVENTS.map(crate::notice::Event::as_str);
    assert_eq!(super::types::EVENTS, names);
}

#[test]
fn a_bad_address_is_one_problem() {
    let databases = "databases: {a: {service: a}, b: {service: b}}\n";
    for (rest, expected) in [
        (
            "storages: {far: {url: [x], region: r, part_size: 8MiB}}",
            "line 2: `storages.far.url` must be a single value, not a list",
        ),
        (
            "storages: {far: {region: r}}",
            "line 2: `storages.far.url` is missing",
        ),
        (
            "notify: {ping: {url: x y}}\nstorages: {local: {url: ./b}}",
            "line 2: `notify.ping.url` must be an address such as `https://example.com/hook`",
        ),
        (
            "notify: {ping: {style: plain}}\nstorages: {local: {url: ./b}}",
            "line 2: `notify.ping.url` is missing",
        ),
    ] {
        assert_eq!(problems(&format!("{databases}{rest}\n")), [expected]);
    }
}

/// What only a server needs is missed where somebody connects.
#[test]
fn a_connection_that_is_not_there_is_no_problem_of_storages() {
    let text = "databases:\n  shop: {url: '${NOPE}'}\n  blog: {host: h, database: b, password_file: /gone}\n\
                \x20 ok: {url: '${URL}', drill: {url: '${NOPE}'}}\nstorages:\n  s: {url: /b}\n";
    let (config, unset) = parse_for_storages(text, &env()).unwrap();
    assert_eq!(config.databases.len(), 3);
    assert_eq!(config.storage("s").unwrap().url.to_string(), "/b");
    let lines = |problems: &[Problem]| -> Vec<u64> {
        problems.iter().map(|problem| problem.line).collect()
    };
    assert_eq!(
        (lines(&unset.servers), lines(&unset.drills)),
        (vec![2, 3], vec![4])
    );
    assert_eq!(lines(&parse(text, &env()).unwrap_err()), [2, 3, 4]);
    // Storages and notifiers are needed, and a bad value is one.
    for text in [
        "databases:\n  shop: {url: '${URL}'}\nstorages:\n  s: {url: '${NOPE}'}\n",
        "databases:\n  shop: {url: 'http://x'}\nstorages:\n  s: {url: /b}\n",
        "databases:\n  shop: {url: '${URL}', required_tables: ['${NOPE}']}\nstorages:\n  s: {url: /b}\n",
    ] {
        assert!(parse_for_storages(text, &env()).is_err(), "{text}");
    }
}

#[test]
fn a_secret_counts_however_the_file_spells_it() {
    let secrets = ["p@ss w/rd".to_owned()];
    for (text, is_held) in [
        (
            "databases: {s: {url: 'postgres://u:p%40ss%20w%2frd@h/d'}}",
            true,
        ),
        ("databases: {s: {password: 'p@ss w/rd'}}", true),
        ("databases: {s: {password: \"p\\x40ss w/rd\"}}", true),
        ("# p@ss w/rd\ndatabases: {s: {password: '${X}'}}", false),
        ("databases: {s: {url: 'postgres://u:${X}@h/d'}}", false),
    ] {
        assert_eq!(holds_any(text, &secrets), is_held, "{text}");
    }
}

/// What `config init` writes removes nothing, and says what `backup` does once somebody turns retention on.
#[test]
fn the_example_removes_nothing() {
    let config = parse(EXAMPLE, &env().var("DATABASE_URL", "postgres://h/d")).unwrap();
    assert!(config.defaults.retention.is_none());
    assert!(
        config
            .databases
            .iter()
            .all(|(_, database)| database.retention.is_none())
    );
    let above = EXAMPLE.split("#retention:").next().unwrap();
    assert!(above.contains("Once this is set, `pgkeep backup` removes the"));
}

#[test]
fn limits_are_read_and_shown() {
    let config = good(&in_database(
        "limits: {events: {newest: 10000, by: created_at}, billing.images: {last: 30d, by: at, references: drop}, audit: \
         {where: 'tenant = 7'}}",
    ));
    let limits = &config.databases[0].1.limits.0;
    let keeps: Vec<String> = limits.iter().map(|limit| limit.keep.to_string()).collect();
    assert_eq!(
        keeps,
        [
            "newest 10000 by created_at",
            "last 30d by at",
            "where tenant = 7"
        ]
    );
    for (text, why) in [
        (
            "{events: {newest: 10}}",
            "`databases.shop.limits.events.by` is missing",
        ),
        ("{events: {by: at}}", "needs one of"),
        ("{events: {newest: 1, last: 3d, by: at}}", "needs one of"),
        ("{events: {where: x, by: at}}", "does not go with"),
        ("{events: {newest: 0, by: at}}", "whole number from 1"),
        (
            "{events: {newest: 5, by: 'a.b'}}",
            "must be the name of one column",
        ),
        (
            "{events: {newest: 5, by: at, references: all}}",
            "must be `keep` or `drop`",
        ),
        ("{a.b.c: {newest: 5, by: at}}", "a.b.c"),
        ("{events: 5}", "must hold keys"),
    ] {
        let told = problems(&in_database(&format!("limits: {text}"))).join("\n");
        assert!(told.contains(why), "{text}: {told}");
    }
    // What stands in the environment is never told.
    let told = problems(&in_database(
        "limits: {events: {newest: 5, by: 'x.${SECRET}.'}}",
    ));
    assert!(!told.join("").contains(CANARY), "{told:?}");
}

#[test]
fn tokens_have_names_of_their_own() {
    let server = |tokens: &str| {
        format!(
            "databases: {{shop: {{url: 'postgres://db/shop'}}}}\nstorages: {{local: {{url: ./b}}}}\nserver:\n  tokens: [{tokens}]\n"
        )
    };
    let good = good(&server(
        "{name: ci, role: operate, token: a}, {name: me, token: b}",
    ));
    let roles = good.server.tokens.iter().map(|token| token.role.as_str());
    assert_eq!(roles.collect::<Vec<_>>(), ["operate", "read"]);
    for (tokens, words) in [
        (
            "{name: 'a b', token: x}",
            "has letters, digits, `_` and `-` only",
        ),
        (
            "{name: ci, token: x}, {name: ci, token: y}",
            "holds two tokens that are called `ci`",
        ),
        ("{name: ci, role: admin, token: x}", "`server.tokens.role"),
        ("{name: ci}", "`server.tokens.token` is missing"),
    ] {
        let found = problems(&server(tokens));
        assert!(
            found.iter().any(|problem| problem.contains(words)),
            "{tokens}: {found:?}"
        );
    }
}
