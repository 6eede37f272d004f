//! Retention by tables of cases, by properties, and beside two slow ways to say the same.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan;
use jiff::tz::TimeZoneDatabase;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> jiff::tz::TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

/// A policy out of `d7 w4 m12`: l, h, d, w, m, y and a count.
fn policy(rules: &str, zone_name: &str) -> Retention {
    let mut policy = Retention {
        timezone: zone(zone_name),
        ..Retention::default()
    };
    for rule in rules.split_whitespace() {
        let count = Some(rule[1..].parse().unwrap());
        match &rule[..1] {
            "l" => policy.keep_last = count,
            "h" => policy.keep_hourly = count,
            "d" => policy.keep_daily = count,
            "w" => policy.keep_weekly = count,
            "m" => policy.keep_monthly = count,
            "y" => policy.keep_yearly = count,
            other => panic!("no rule is called {other}"),
        }
    }
    policy
}

fn far() -> Timestamp {
    at("2100-01-01T00:00:00Z")
}

fn decide(policy: &Retention, candidates: &[Candidate], now: Timestamp) -> Plan {
    plan(policy, candidates, now).unwrap()
}

fn good(times: &[&str]) -> Vec<Candidate> {
    times.iter().map(|time| Candidate::new(at(time))).collect()
}

/// Each verdict as `keep` or `remove` with its reasons, as they read.
fn words(plan: &Plan) -> Vec<String> {
    let line = |verdict: &Verdict| {
        let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
        let fate = if verdict.keep { "keep" } else { "remove" };
        format!("{fate}: {}", reasons.join(", "))
    };
    plan.verdicts.iter().map(line).collect()
}

/// Judges good backups only. The letters are `k` for keep and `.` for remove.
fn fates(policy: &Retention, times: &[&str]) -> String {
    let plan = decide(policy, &good(times), far());
    let letter = |verdict: &Verdict| if verdict.keep { 'k' } else { '.' };
    plan.verdicts.iter().map(letter).collect()
}

// Tables of cases.

#[test]
fn every_reason_has_its_words() {
    let weekly = Reason::Counted {
        tier: Tier::Weekly,
        period: Some(Period::Week(2026, 3)),
        number: 2,
        of: 4,
    };
    let last = Reason::Counted {
        tier: Tier::PreDeploy,
        period: None,
        number: 2,
        of: 5,
    };
    let cases = [
        (weekly, "weekly", "newest of 2026-W03: weekly 2 of 4"),
        (last, "pre_deploy", "pre-deploy 2 of 5"),
        (Reason::Oldest(Tier::Monthly), "monthly", "oldest monthly"),
        (
            Reason::younger(Tier::Within, 30.days()),
            "within",
            "within 30d",
        ),
        (
            Reason::younger(Tier::PreDeploy, 1.year().months(6)),
            "pre_deploy",
            "pre-deploy within 1y 6mo",
        ),
        (
            Reason::Pinned("pre-deploy v2.3".into()),
            "pinned",
            "pinned: pre-deploy v2.3",
        ),
        (Reason::Pinned(String::new()), "pinned", "pinned"),
        (
            Reason::Pinned("\u{1b}[2J".into()),
            "pinned",
            "pinned: \\u{1b}[2J",
        ),
        (Reason::NewestGood, "newest_good", "newest good"),
        (Reason::NewestDrilled, "newest_drilled", "newest drilled"),
        (
            Reason::MadeByThisRun,
            "made_by_this_run",
            "made by this run",
        ),
        (Reason::Future, "future", "future start, not counted"),
        (
            Reason::Unreadable("the pin is no JSON".into()),
            "unreadable",
            "state cannot be read: the pin is no JSON",
        ),
        (
            Reason::DamagedKept(Some(jiff::civil::date(2026, 3, 1))),
            "damaged",
            "damaged, kept until 2026-03-01",
        ),
        (
            Reason::DamagedKept(None),
            "damaged",
            "damaged, no newer good one",
        ),
        (
            Reason::DamagedRemoved,
            "damaged",
            "damaged, a newer good one is 30 days old",
        ),
        (Reason::NoRule, "no_rule", "no rule keeps it"),
    ];
    for (reason, id, words) in cases {
        assert_eq!((reason.id(), reason.to_string().as_str()), (id, words));
        assert_eq!(serde_json::to_value(&reason).unwrap(), words);
    }
}

#[test]
fn periods_read_as_they_are_written() {
    let start = at("2021-01-03T04:05:06Z").to_zoned(zone("UTC"));
    for (tier, words) in [
        (Tier::Hourly, "2021-01-03T04"),
        (Tier::Daily, "2021-01-03"),
        (Tier::Weekly, "2020-W53"),
        (Tier::Monthly, "2021-01"),
        (Tier::Yearly, "2021"),
    ] {
        assert_eq!(tier.period(&start).unwrap().to_string(), words);
    }
    assert_eq!(Tier::Last.period(&start), None);
}

#[test]
fn tells_every_reason_of_every_backup() {
    let candidates = good(&[
        "2026-01-17T03:00:00Z",
        "2026-01-16T15:00:00Z",
        "2026-01-16T03:00:00Z",
        "2026-01-11T03:00:00Z",
        "2026-01-05T03:00:00Z",
    ]);
    let plan = decide(&policy("l1 d2 w4 m1", "UTC"), &candidates, far());
    assert_eq!(
        words(&plan),
        [
            "keep: last 1 of 1, newest of 2026-01-17: daily 1 of 2, newest of 2026-W03: weekly 1 of 4, \
             newest of 2026-01: monthly 1 of 1, newest good",
            "keep: newest of 2026-01-16: daily 2 of 2",
            "remove: no rule keeps it",
            "keep: newest of 2026-W02: weekly 2 of 4",
            "keep: oldest weekly",
        ]
    );
    let tiers = plan.verdicts[0].tiers();
    assert_eq!(
        tiers,
        [Tier::Last, Tier::Daily, Tier::Weekly, Tier::Monthly]
    );
    assert_eq!(plan.removed(), 1);
}

#[test]
fn oldest_is_kept_only_where_the_count_is_not_used_up() {
    let times = [
        "2026-03-02T00:00:00Z",
        "2026-02-02T00:00:00Z",
        "2026-01-20T00:00:00Z",
        "2026-01-02T00:00:00Z",
    ];
    for (rules, expected) in [
        ("m1", "k..."),
        ("m2", "kk.."),
        ("m3", "kkk."),
        // Three months have one, the fourth place goes to the oldest.
        ("m4", "kkkk"),
        ("m9", "kkkk"),
        ("y1", "k..."),
        ("y2", "k..k"),
        ("l3", "kkk."),
    ] {
        assert_eq!(fates(&policy(rules, "UTC"), &times), expected, "{rules}");
    }
    // The only one is the newest of its period, not the oldest besides.
    let plan = decide(&policy("d5", "UTC"), &good(&times[..1]), far());
    assert_eq!(
        words(&plan),
        ["keep: newest of 2026-03-02: daily 1 of 5, newest good"]
    );
}

#[test]
fn months_of_gaps_use_nothing_up() {
    let times = [
        "2026-06-30T03:00:00Z",
        "2026-06-29T03:00:00Z",
        "2025-11-03T03:00:00Z",
        "2025-11-02T03:00:00Z",
        "2024-02-29T03:00:00Z",
        "2024-02-28T03:00:00Z",
    ];
    for (rules, expected) in [
        ("d3", "kkk..."),
        ("w2", "k.k..."),
        ("w3", "k.kk.."),
        ("m3", "k.k.k."),
        ("m4", "k.k.kk"),
        ("y2", "k.k..."),
    ] {
        assert_eq!(fates(&policy(rules, "UTC"), &times), expected, "{rules}");
    }
}

#[test]
fn iso_weeks_cross_the_year() {
    let times = [
        "2021-01-04T00:00:00Z", // Monday, 2021-W01
        "2021-01-03T23:59:59Z", // Sunday, 2020-W53
        "2020-12-31T00:00:00Z", // Thursday, 2020-W53
        "2020-12-28T00:00:00Z", // Monday, 2020-W53
        "2020-12-27T23:59:59Z", // Sunday, 2020-W52
    ];
    assert_eq!(fates(&policy("w3", "UTC"), &times), "kk..k");
    // In New York the Mondays have not begun yet.
    assert_eq!(fates(&policy("w2", "America/New_York"), &times), "k..k.");
    let times = [
        "2025-01-05T12:00:00Z", // 2025-W01
        "2024-12-30T12:00:00Z", // 2025-W01
        "2024-12-29T12:00:00Z", // 2024-W52
    ];
    assert_eq!(fates(&policy("w2", "UTC"), &times), "k.k");
    assert_eq!(fates(&policy("y2", "UTC"), &times), "kk.");
}

#[test]
fn leap_days_are_days() {
    let times = [
        "2024-03-01T00:00:00Z",
        "2024-02-29T23:59:59Z",
        "2024-02-29T00:00:00Z",
        "2024-02-28T23:59:59Z",
    ];
    assert_eq!(fates(&policy("d3", "UTC"), &times), "kk.k");
    assert_eq!(fates(&policy("m2", "UTC"), &times), "kk..");
    // A year after the leap day ends with the 28th.
    let mut policy = policy("", "UTC");
    policy.keep_within = Some(1.year());
    let leap = "2024-02-29T12:00:00Z";
    assert_eq!(fates(&policy, &["2025-02-28T11:59:59Z", leap]), "kk");
    assert_eq!(fates(&policy, &["2025-02-28T12:00:00Z", leap]), "k.");
}

#[test]
fn hours_and_days_follow_the_clock_of_the_zone() {
    // Newest first. In autumn the clock shows one hour twice; it is one hour, as in restic.
    let autumn = [
        (
            "Europe/Berlin",
            [
                "2026-10-25T03:30:00+01:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T01:30:00+02:00",
            ],
        ),
        (
            "America/New_York",
            [
                "2026-11-01T02:30:00-05:00",
                "2026-11-01T01:30:00-05:00",
                "2026-11-01T01:30:00-04:00",
                "2026-11-01T00:30:00-04:00",
            ],
        ),
        (
            "Australia/Sydney",
            [
                "2026-04-05T03:30:00+10:00",
                "2026-04-05T02:30:00+10:00",
                "2026-04-05T02:30:00+11:00",
                "2026-04-05T01:30:00+11:00",
            ],
        ),
    ];
    for (zone, times) in autumn {
        assert_eq!(fates(&policy("h3", zone), &times), "kk.k", "{zone}");
        assert_eq!(fates(&policy("d1", zone), &times), "k...", "{zone}");
        assert_eq!(fates(&policy("h3", "UTC"), &times), "kkk.", "{zone}");
    }
    // In spring an hour is missing: the neighbours are an hour apart.
    let spring = [
        (
            "Europe/Berlin",
            "2026-03-29T03:30:00+02:00",
            "2026-03-29T01:30:00+01:00",
        ),
        (
            "America/New_York",
            "2026-03-08T03:30:00-04:00",
            "2026-03-08T01:30:00-05:00",
        ),
        (
            "Australia/Sydney",
            "2026-10-04T03:30:00+11:00",
            "2026-10-04T01:30:00+10:00",
        ),
    ];
    for (zone, after, before) in spring {
        assert_eq!(fates(&policy("h2", zone), &[after, before]), "kk", "{zone}");
        let times = [good(&[after]), good(&[before])].concat();
        let apart = times[0].started_at.duration_since(times[1].started_at);
        assert_eq!(apart.as_hours(), 1, "{zone}");
    }
}

#[test]
fn days_have_23_24_or_25_hours() {
    // Midnight to midnight, ends included, and the day after.
    for (zone, first, last, next) in [
        (
            "Europe/Berlin",
            "2026-03-28T23:00:00Z",
            "2026-03-29T21:59:59Z",
            "2026-03-29T22:00:00Z",
        ),
        (
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            "2026-10-25T22:59:59Z",
            "2026-10-25T23:00:00Z",
        ),
        (
            "America/New_York",
            "2026-11-01T04:00:00Z",
            "2026-11-02T04:59:59Z",
            "2026-11-02T05:00:00Z",
        ),
        (
            "Australia/Sydney",
            "2026-10-03T14:00:00Z",
            "2026-10-04T12:59:59Z",
            "2026-10-04T13:00:00Z",
        ),
        (
            "Australia/Sydney",
            "2026-04-04T13:00:00Z",
            "2026-04-05T13:59:59Z",
            "2026-04-05T14:00:00Z",
        ),
    ] {
        let kept = fates(&policy("d2", zone), &[next, last, first]);
        assert_eq!(kept, "kk.", "{zone} {first}");
    }
    // Samoa had no 30th of December 2011.
    let samoa = ["2011-12-30T12:00:00Z", "2011-12-30T09:00:00Z"];
    let plan = decide(&policy("d2", "Pacific/Apia"), &good(&samoa), far());
    assert_eq!(
        words(&plan),
        [
            "keep: newest of 2011-12-31: daily 1 of 2, newest good",
            "keep: newest of 2011-12-29: daily 2 of 2"
        ]
    );
}

#[test]
fn a_day_that_begins_twice_is_one_day() {
    // Newfoundland went from 00:01 back to 23:01 of the day before.
    let times = [
        "2010-11-07T12:00:00-03:30",
        "2010-11-06T23:30:00-03:30",
        "2010-11-07T00:00:30-02:30",
        "2010-11-06T22:30:00-02:30",
    ];
    let plan = decide(&policy("d3", "America/St_Johns"), &good(&times), far());
    assert_eq!(
        words(&plan),
        [
            "keep: newest of 2010-11-07: daily 1 of 3, newest good",
            "keep: newest of 2010-11-06: daily 2 of 3",
            "remove: no rule keeps it",
            "keep: oldest daily",
        ]
    );
}

#[test]
fn an_age_is_measured_to_the_newest() {
    let mut policy = policy("", "UTC");
    policy.keep_within = Some(3.days());
    let times = [
        "2020-01-04T00:00:00Z",
        "2020-01-01T00:00:01Z",
        "2020-01-01T00:00:00Z",
    ];
    // Years after the last backup nothing else is removed.
    assert_eq!(fates(&policy, &times), "kk.");
    policy.keep_within = Some(1.month());
    let times = [
        "2026-03-31T01:00:00Z",
        "2026-02-28T12:00:00Z",
        "2026-02-28T00:30:00Z",
    ];
    assert_eq!(fates(&policy, &times), "k..");
    // A day has 25 hours once a year.
    policy.keep_within = Some(1.day());
    policy.timezone = zone("Europe/Berlin");
    let times = ["2026-10-25T11:30:00Z", "2026-10-24T11:00:00Z"];
    assert_eq!(fates(&policy, &times), "kk");
    policy.keep_within = Some(24.hours());
    assert_eq!(fates(&policy, &times), "k.");
}

#[test]
fn an_age_beyond_the_calendar_keeps_everything() {
    let mut policy = policy("", "UTC");
    policy.keep_within = Some(1000.years());
    let times = ["9999-12-30T00:00:00Z", "9998-01-01T00:00:00Z"];
    let now = at("9999-12-30T12:00:00Z");
    let plan = decide(&policy, &good(&times), now);
    assert_eq!(plan.removed(), 0);
}

#[test]
fn an_empty_policy_is_refused() {
    let candidates = good(&["2026-01-01T00:00:00Z"]);
    let mut empty = vec![policy("", "UTC"), policy("l0 d0", "UTC")];
    for keep in [
        KeepPreDeploy::Last(5),
        KeepPreDeploy::Within(Span::new().days(9)),
    ] {
        let mut only_deploys = policy("", "UTC");
        only_deploys.keep_pre_deploy = Some(keep);
        empty.push(only_deploys);
    }
    let mut no_time = policy("", "UTC");
    no_time.keep_within = Some(Span::new());
    empty.push(no_time);
    for policy in empty {
        assert!(is_empty(&policy), "{policy:?}");
        assert_eq!(
            plan(&policy, &candidates, far()),
            Err(Refusal::EmptyPolicy),
            "{policy:?}"
        );
    }
    let nothing = decide(&policy("d1", "UTC"), &[], far());
    assert_eq!(nothing, Plan::default());
}

#[test]
fn starts_in_the_future_are_kept_and_not_counted() {
    let now = at("2026-01-16T12:00:00Z");
    let candidates = good(&[
        "2027-01-16T00:00:00Z",
        "2026-01-16T12:10:01Z",
        "2026-01-16T12:10:00Z",
        "2026-01-15T12:00:00Z",
    ]);
    let plan = decide(&policy("l1", "UTC"), &candidates, now);
    assert_eq!(
        words(&plan),
        [
            "keep: future start, not counted",
            "keep: future start, not counted",
            "keep: last 1 of 1, newest good",
            "remove: no rule keeps it",
        ]
    );
}

#[test]
fn what_is_apart_is_kept_and_uses_nothing_up() {
    let mut candidates = good(&[
        "2026-01-16T00:00:00Z",
        "2026-01-15T00:00:00Z",
        "2026-01-14T00:00:00Z",
        "2026-01-13T00:00:00Z",
        "2026-01-12T00:00:00Z",
    ]);
    candidates[0].pinned = Some("pre-deploy v2.3".into());
    candidates[0].is_damaged = true;
    candidates[1].unreadable = Some("no answer".into());
    candidates[1].pinned = Some(String::new());
    candidates[2].is_damaged = true;
    candidates[4].is_made_by_this_run = true;
    let plan = decide(&policy("d1", "UTC"), &candidates, far());
    assert_eq!(
        words(&plan),
        [
            "keep: pinned: pre-deploy v2.3",
            "keep: state cannot be read: no answer, pinned",
            // The newer ones are damaged or unreadable.
            "keep: damaged, no newer good one",
            "keep: newest of 2026-01-13: daily 1 of 1, newest good",
            "keep: made by this run",
        ]
    );
}

#[test]
fn the_newest_drilled_good_one_stays() {
    let mut candidates = good(&[
        "2026-01-16T00:00:00Z",
        "2026-01-15T00:00:00Z",
        "2026-01-14T00:00:00Z",
        "2026-01-13T00:00:00Z",
        "2026-01-12T00:00:00Z",
    ]);
    for one in &mut candidates[1..] {
        one.is_drilled = true;
    }
    candidates[1].is_damaged = true;
    candidates[2].pinned = Some(String::new());
    let plan = decide(
        &policy("l1", "UTC"),
        &candidates,
        at("2026-01-17T00:00:00Z"),
    );
    assert_eq!(
        words(&plan),
        [
            "keep: last 1 of 1, newest good",
            "keep: damaged, kept until 2026-02-15",
            // A pin may be taken away, so it does not stand in for the newest drilled one.
            "keep: pinned",
            "keep: newest drilled",
            "remove: no rule keeps it",
        ]
    );
}

#[test]
fn damaged_ones_go_30_days_after_a_newer_good_one() {
    let mut candidates = good(&[
        "2026-03-01T03:00:00Z",
        "2026-01-02T03:00:00Z",
        "2026-01-01T03:00:00Z",
    ]);
    candidates[2].is_damaged = true;
    let policy = policy("m12", "UTC");
    for (now, expected) in [
        (
            "2026-02-01T02:59:59Z",
            "keep: damaged, kept until 2026-02-01",
        ),
        (
            "2026-02-01T03:00:00Z",
            "remove: damaged, a newer good one is 30 days old",
        ),
    ] {
        let plan = decide(&policy, &candidates, at(now));
        assert_eq!(words(&plan)[2], expected, "{now}");
    }
    // A good one with the same start is not newer.
    candidates[1].started_at = candidates[2].started_at;
    let plan = decide(&policy, &candidates[1..], far());
    assert_eq!(words(&plan)[1], "keep: damaged, no newer good one");
}

#[test]
fn backups_before_deploys_are_a_set_of_their_own_when_asked() {
    let mut candidates = good(&[
        "2026-01-16T00:00:00Z",
        "2026-01-15T00:00:00Z",
        "2026-01-14T00:00:00Z",
        "2026-01-13T00:00:00Z",
        "2026-01-12T00:00:00Z",
    ]);
    for at in [0, 2, 3] {
        candidates[at].is_pre_deploy = true;
    }
    let mut policy = policy("l1", "UTC");
    let fates = |policy: &Retention| words(&decide(policy, &candidates, far()));
    assert_eq!(
        fates(&policy)[..2],
        ["keep: last 1 of 1, newest good", "remove: no rule keeps it"]
    );
    policy.keep_pre_deploy = Some(KeepPreDeploy::Last(2));
    assert_eq!(
        fates(&policy),
        [
            "keep: pre-deploy 1 of 2, newest good",
            "keep: last 1 of 1",
            "keep: pre-deploy 2 of 2",
            "remove: no rule keeps it",
            "remove: no rule keeps it",
        ]
    );
    policy.keep_pre_deploy = Some(KeepPreDeploy::Within(60.hours()));
    assert_eq!(
        fates(&policy)[2..4],
        ["keep: pre-deploy within 60h", "remove: no rule keeps it"]
    );
}

/// A nightly backup that a deploy relied on goes on being a nightly one.
#[test]
fn what_a_deploy_relied_on_is_in_both_sets() {
    let mut candidates = good(&[
        "2026-01-16T00:00:00Z",
        "2026-01-15T00:00:00Z",
        "2026-01-14T00:00:00Z",
    ]);
    candidates[0].is_pre_deploy = true;
    candidates[1].is_guarded = true;
    let mut policy = policy("l1", "UTC");
    policy.keep_pre_deploy = Some(KeepPreDeploy::Last(2));
    assert_eq!(
        words(&decide(&policy, &candidates, far())),
        [
            "keep: pre-deploy 1 of 2, newest good",
            "keep: last 1 of 1, pre-deploy 2 of 2",
            "remove: no rule keeps it",
        ]
    );
    policy.keep_pre_deploy = Some(KeepPreDeploy::Last(1));
    candidates[2].is_guarded = true;
    assert_eq!(
        words(&decide(&policy, &candidates, far()))[1..],
        ["keep: last 1 of 1", "remove: no rule keeps it"]
    );
}

#[test]
fn same_start_leaves_one_and_rather_the_drilled_one() {
    let mut candidates = good(&["2026-01-16T00:00:00Z"; 3]);
    candidates[1].is_drilled = true;
    let plan = decide(&policy("l1", "UTC"), &candidates, far());
    let keep: Vec<bool> = plan.verdicts.iter().map(|verdict| verdict.keep).collect();
    assert_eq!(keep, [false, true, false]);
}

#[test]
fn removing_more_than_half_of_more_than_ten_is_too_much() {
    for (all, kept, expected) in [
        (10, 1, false),
        (11, 5, true),
        (11, 6, false),
        (12, 6, false),
        (12, 5, true),
        (0, 0, false),
    ] {
        let verdict = |keep| Verdict {
            keep,
            reasons: Vec::new(),
        };
        let plan = Plan {
            verdicts: (0..all).map(|at| verdict(at < kept)).collect(),
        };
        assert_eq!(plan.removes_too_much(), expected, "{kept} of {all}");
    }
}

/// Daily backups at 03:00 in Berlin under 7/4/12, pruned after each, day by day for five years.
#[test]
fn seven_four_twelve_settles_at_about_twenty() {
    let policy = policy("d7 w4 m12", "Europe/Berlin");
    let first = jiff::civil::date(2020, 1, 1).at(3, 0, 0, 0);
    let mut kept: Vec<Candidate> = Vec::new();
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for day in 0..5 * 365 {
        let start = (first + day.days()).to_zoned(policy.timezone.clone());
        let now = start.unwrap().timestamp();
        kept.push(Candidate::new(now));
        let plan = decide(&policy, &kept, now);
        let mut fates = plan.verdicts.iter();
        kept.retain(|_| fates.next().unwrap().keep);
        // The first year fills the months; the second lets what the start left behind go.
        if day >= 2 * 365 {
            *sizes.entry(kept.len()).or_default() += 1;
        }
    }
    // Seven days, two Sundays beside them (three on a Sunday), eleven ends of months that are sometimes one of these.
    assert_eq!(sizes, BTreeMap::from([(19, 245), (20, 739), (21, 111)]));
}

// Properties.

/// Zones of both hemispheres, with and without daylight saving, half an hour of it, and a day that begins twice.
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Sydney",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "America/St_Johns",
];

/// The first minute of generated backups: shortly before Newfoundland's day that begins twice.
const FIRST: &str = "2010-11-06T00:00:00Z";

fn spans() -> impl Strategy<Value = Span> {
    select(vec![
        1.hour(),
        36.hours(),
        1.day(),
        3.days(),
        2.weeks(),
        1.month(),
        1.year().months(2),
    ])
}

fn keep_pre_deploy() -> impl Strategy<Value = KeepPreDeploy> {
    prop_oneof![
        (1..5u32).prop_map(KeepPreDeploy::Last),
        spans().prop_map(KeepPreDeploy::Within)
    ]
}

fn count() -> impl Strategy<Value = Option<u32>> {
    proptest::option::of(1..6u32)
}

fn policies() -> impl Strategy<Value = Retention> {
    let counts = [count(), count(), count(), count(), count(), count()];
    let ages = (
        proptest::option::of(spans()),
        proptest::option::of(keep_pre_deploy()),
    );
    let parts = (counts, ages, select(&ZONES[..]));
    let built = parts.prop_map(|(counts, (keep_within, keep_pre_deploy), name)| {
        let [last, hourly, daily, weekly, monthly, yearly] = counts;
        Retention {
            keep_last: last,
            keep_hourly: hourly,
            keep_daily: daily,
            keep_weekly: weekly,
            keep_monthly: monthly,
            keep_yearly: yearly,
            keep_within,
            keep_pre_deploy,
            timezone: zone(name),
        }
    });
    built.prop_filter("an empty policy decides nothing", |policy| {
        !is_empty(policy)
    })
}

/// A backup in the first `minutes`, at a multiple of `step`.
fn candidate(minutes: i64, step: i64) -> impl Strategy<Value = Candidate> {
    let flag = proptest::bool::weighted;
    let text = |share| proptest::option::weighted(share, select(vec![String::new(), "why".into()]));
    let start = (0..minutes / step).prop_map(move |number| at(FIRST) + (number * step).minutes());
    let flags = (
        flag(0.2),
        flag(0.1),
        flag(0.15),
        flag(0.2),
        flag(0.05),
        flag(0.1),
    );
    (start, text(0.1), text(0.05), flags).prop_map(|(started_at, pinned, unreadable, flags)| {
        let (is_pre_deploy, is_guarded, is_damaged, is_drilled, is_made_by_this_run, is_held) =
            flags;
        Candidate {
            started_at,
            pinned,
            is_pre_deploy,
            is_guarded,
            is_damaged,
            is_drilled,
            is_held,
            is_made_by_this_run,
            unreadable,
        }
    })
}

/// Backups within two days (also many with the same start), two months or four years, and a present that may lie
/// before some of them.
fn situations() -> impl Strategy<Value = (Vec<Candidate>, Timestamp)> {
    const DAY: i64 = 24 * 60;
    let ranges = [
        (2 * DAY, 1),
        (2 * DAY, DAY / 4),
        (60 * DAY, 1),
        (4 * 366 * DAY, 1),
    ];
    select(ranges.to_vec()).prop_flat_map(|(minutes, step)| {
        let now = (minutes / 2..2 * minutes).prop_map(|minute| at(FIRST) + minute.minutes());
        (vec(candidate(minutes, step), 0..40), now)
    })
}

/// The same plans as comparable sets: candidate and verdict, sorted.
fn as_set(candidates: &[Candidate], plan: &Plan) -> Vec<String> {
    let pairs = candidates.iter().zip(&plan.verdicts);
    let mut lines: Vec<String> = pairs.map(|pair| format!("{pair:?}")).collect();
    lines.sort_unstable();
    lines
}

fn kept(candidates: &[Candidate], plan: &Plan) -> Vec<Candidate> {
    let pairs = candidates.iter().zip(&plan.verdicts);
    pairs
        .filter(|(_, verdict)| verdict.keep)
        .map(|(candidate, _)| candidate.clone())
        .collect()
}

/// Prunes after each backup, as in life, and returns what is left. The present is the start of the newest backup that
/// there has been, but a clock that ran ahead is set right again.
fn prune_after_each(policy: &Retention, arrivals: &[(Timestamp, Candidate)]) -> Vec<Candidate> {
    let mut left: Vec<Candidate> = Vec::new();
    for (now, candidate) in arrivals {
        for old in &mut left {
            old.is_made_by_this_run = false;
        }
        left.push(Candidate {
            is_made_by_this_run: true,
            ..candidate.clone()
        });
        left = kept(&left, &decide(policy, &left, *now));
    }
    left
}

fn sorted(candidates: impl IntoIterator<Item = Candidate>) -> Vec<String> {
    let mut lines: Vec<String> = candidates
        .into_iter()
        .map(|candidate| format!("{candidate:?}"))
        .collect();
    lines.sort_unstable();
    lines
}

/// The policy with one of its numbers raised; `None` where the one that was chosen has no number.
fn raised(policy: &Retention, which: usize, by: u32) -> Option<Retention> {
    let mut policy = policy.clone();
    let counts = [
        &mut policy.keep_last,
        &mut policy.keep_hourly,
        &mut policy.keep_daily,
        &mut policy.keep_weekly,
        &mut policy.keep_monthly,
        &mut policy.keep_yearly,
    ];
    let longer = |span: Span| span.checked_mul(1 + i64::from(by)).unwrap();
    match which {
        0..6 => {
            // A rule that was not there is raised from nothing.
            let count = counts.into_iter().nth(which)?;
            *count = Some(count.unwrap_or(0) + by);
        }
        6 => policy.keep_within = Some(longer(policy.keep_within?)),
        _ => {
            policy.keep_pre_deploy = Some(match policy.keep_pre_deploy? {
                KeepPreDeploy::Last(count) => KeepPreDeploy::Last(count + by),
                KeepPreDeploy::Within(age) => KeepPreDeploy::Within(longer(age)),
            });
        }
    }
    Some(policy)
}

proptest! {
    #[test]
    fn agrees_with_the_definition((candidates, now) in situations(), policy in policies()) {
        let plan = decide(&policy, &candidates, now);
        let keep: Vec<bool> = plan.verdicts.iter().map(|verdict| verdict.keep).collect();
        prop_assert_eq!(keep, by_definition(&policy, &candidates, now));
    }

    /// One walk over neighbours, as restic does it, where no day begins twice.
    #[test]
    fn agrees_with_a_walk((candidates, _) in situations(), mut policy in policies(), zone_name in select(&ZONES[..6])) {
        policy.timezone = zone(zone_name);
        policy.keep_within = None;
        let starts: BTreeSet<Timestamp> = candidates.iter().map(|one| one.started_at).collect();
        let mut newest_first: Vec<Candidate> = starts.into_iter().map(Candidate::new).collect();
        newest_first.reverse();
        prop_assume!(!is_empty(&policy));
        let plan = decide(&policy, &newest_first, far());
        let keep: Vec<bool> = plan.verdicts.iter().map(|verdict| verdict.keep).collect();
        prop_assert_eq!(keep, by_walking(&policy, &newest_first));
    }

    #[test]
    fn order_means_nothing(
        ((candidates, now), order) in situations().prop_flat_map(|(all, now)| {
            (Just((all.clone(), now)), Just((0..all.len()).collect::<Vec<_>>()).prop_shuffle())
        }),
        policy in policies(),
    ) {
        let shuffled: Vec<Candidate> = order.iter().map(|at| candidates[*at].clone()).collect();
        prop_assert_eq!(
            as_set(&shuffled, &decide(&policy, &shuffled, now)),
            as_set(&candidates, &decide(&policy, &candidates, now))
        );
    }

    #[test]
    fn planning_twice_is_planning_once((candidates, now) in situations(), policy in policies()) {
        let left = kept(&candidates, &decide(&policy, &candidates, now));
        prop_assert_eq!(decide(&policy, &left, now).removed(), 0);
    }

    #[test]
    fn pruning_after_each_backup_is_pruning_once(
        (candidates, _) in situations(),
        ahead in vec(prop_oneof![4 => Just(0), 1 => 1..40i64, 1 => 1..200_000i64], 40),
        policy in policies(),
    ) {
        let mut arrivals: Vec<(Timestamp, Candidate)> =
            candidates.into_iter().map(|one| (one.started_at, one)).collect();
        arrivals.sort_by_key(|(now, _)| *now);
        for ((_, candidate), ahead) in arrivals.iter_mut().zip(ahead) {
            candidate.started_at += ahead.minutes();
        }
        let Some((now, newest)) = arrivals.last().cloned() else { return Ok(()) };
        let all: Vec<Candidate> = arrivals
            .iter()
            .enumerate()
            .map(|(at, (_, one))| Candidate {
                is_made_by_this_run: at + 1 == arrivals.len(),
                ..one.clone()
            })
            .collect();
        let often = prune_after_each(&policy, &arrivals);
        let once = kept(&all, &decide(&policy, &all, now));
        prop_assert!(often.iter().any(|one| one.started_at == newest.started_at));

        // A damaged one is judged by the oldest newer good one that is still there, so it may stay longer.
        let of = |all: &[Candidate], is_damaged| {
            sorted(all.iter().filter(|one| one.is_damaged == is_damaged).cloned())
        };
        prop_assert_eq!(of(&often, false), of(&once, false));
        let damaged_often: BTreeSet<String> = of(&often, true).into_iter().collect();
        prop_assert!(of(&once, true).iter().all(|one| damaged_often.contains(one)));
    }

    #[test]
    fn raising_a_number_loses_nothing(
        (candidates, now) in situations(),
        policy in policies(),
        which in 0..8usize,
        by in 1..4u32,
    ) {
        let Some(raised) = raised(&policy, which, by) else { return Ok(()) };
        let before = decide(&policy, &candidates, now);
        let after = decide(&raised, &candidates, now);
        for (before, after) in before.verdicts.iter().zip(&after.verdicts) {
            prop_assert!(after.keep || !before.keep, "{before:?} became {after:?}");
        }
    }

    #[test]
    fn what_is_apart_or_damaged_changes_nobody_elses_fate(
        (candidates, now) in situations(),
        added in vec((candidate(4 * 366 * 24 * 60, 1), 0..4usize, any::<prop::sample::Index>()), 1..10),
        policy in policies(),
    ) {
        let mut more: Vec<(Candidate, Option<usize>)> =
            candidates.iter().cloned().zip((0..).map(Some)).collect();
        for (mut one, kind, place) in added {
            match kind {
                0 => one.pinned = Some("kept".into()),
                1 => one.is_damaged = true,
                2 => one.started_at = now + 11.minutes() + (one.started_at - at(FIRST)),
                _ => one.unreadable = Some("no answer".into()),
            }
            more.insert(place.index(more.len() + 1), (one, None));
        }
        let (all, places): (Vec<Candidate>, Vec<Option<usize>>) = more.into_iter().unzip();
        let alone = decide(&policy, &candidates, now);
        let together = decide(&policy, &all, now);
        for (verdict, place) in together.verdicts.iter().zip(places) {
            if let Some(place) = place {
                prop_assert_eq!(verdict, &alone.verdicts[place]);
            }
        }
    }

    #[test]
    fn what_must_survive_survives((candidates, now) in situations(), policy in policies()) {
        let plan = decide(&policy, &candidates, now);
        let is_good = |one: &&Candidate| !one.is_damaged && one.unreadable.is_none();
        let survives = |start: Option<Timestamp>| {
            let mut pairs = candidates.iter().zip(&plan.verdicts);
            start.is_none_or(|start| pairs.any(|(one, verdict)| {
                one.started_at == start && !one.is_damaged && verdict.keep
            }))
        };
        let starts = || candidates.iter().filter(is_good);
        prop_assert!(survives(starts().map(|one| one.started_at).max()));
        let drilled = || starts().filter(|one| one.is_drilled);
        prop_assert!(survives(drilled().map(|one| one.started_at).max()));
        // The same holds where future ones, whose stamps are wrong, do not count as the newest.
        let counts = |one: &&Candidate| one.started_at <= now + 10.minutes();
        prop_assert!(survives(starts().filter(counts).map(|one| one.started_at).max()));
        prop_assert!(survives(drilled().filter(counts).map(|one| one.started_at).max()));
        for (one, verdict) in candidates.iter().zip(&plan.verdicts) {
            let is_sacred = one.pinned.is_some() || one.unreadable.is_some() || one.is_made_by_this_run;
            prop_assert!(verdict.keep || !is_sacred, "{one:?}");
        }
    }

    #[test]
    fn every_backup_has_a_verdict_with_reasons((candidates, now) in situations(), policy in policies()) {
        let plan = decide(&policy, &candidates, now);
        prop_assert_eq!(plan.verdicts.len(), candidates.len());
        prop_assert_eq!(plan.removed() + kept(&candidates, &plan).len(), candidates.len());
        for verdict in &plan.verdicts {
            let reason = verdict.reasons.first().unwrap();
            let removes = matches!(reason, Reason::NoRule | Reason::DamagedRemoved);
            prop_assert_eq!(verdict.keep, !removes || verdict.reasons.len() > 1, "{:?}", verdict);
        }
    }
}

// Two slow ways to say the same.

/// The rule as a definition: asks for each backup alone whether something keeps it.
fn by_definition(policy: &Retention, candidates: &[Candidate], now: Timestamp) -> Vec<bool> {
    let all = Definition {
        policy,
        candidates,
        now,
    };
    (0..candidates.len()).map(|at| all.keeps(at)).collect()
}

struct Definition<'a> {
    policy: &'a Retention,
    candidates: &'a [Candidate],
    now: Timestamp,
}

impl Definition<'_> {
    fn is_apart(&self, at: usize) -> bool {
        let one = &self.candidates[at];
        let limit = self.now + 10.minutes();
        one.pinned.is_some() || one.unreadable.is_some() || one.is_held || one.started_at > limit
    }

    fn is_good(&self, at: usize) -> bool {
        !self.is_apart(at) && !self.candidates[at].is_damaged
    }

    /// Whether it is in the set of those before deploys, or in the set of all others; a guarded one is in both.
    fn is_in_set(&self, at: usize, own: bool) -> bool {
        let one = &self.candidates[at];
        match (self.policy.keep_pre_deploy.is_some(), own) {
            (true, true) => one.is_pre_deploy || one.is_guarded,
            (true, false) => !one.is_pre_deploy,
            (false, own) => !own,
        }
    }

    /// Whether `a` counts as newer than `b`.
    fn is_newer(&self, a: usize, b: usize) -> bool {
        let key = |at: usize| {
            let one = &self.candidates[at];
            let marks = [one.is_drilled, one.is_pre_deploy, one.is_guarded];
            let flags = (marks, one.is_made_by_this_run);
            (one.started_at, flags, self.candidates.len() - at)
        };
        key(a) > key(b)
    }

    fn clock(&self, at: usize, format: &str) -> String {
        let start = self.candidates[at]
            .started_at
            .to_zoned(self.policy.timezone.clone());
        format!(
            "{}{}",
            start.strftime(format),
            if format.is_empty() {
                at.to_string()
            } else {
                String::new()
            }
        )
    }

    fn keeps(&self, at: usize) -> bool {
        let one = &self.candidates[at];
        if self.is_apart(at) || one.is_made_by_this_run {
            return true;
        }
        let all = || (0..self.candidates.len()).filter(|other| self.is_good(*other));
        if one.is_damaged {
            let limit = self.now - 720.hours();
            let start = |other: usize| self.candidates[other].started_at;
            return !all().any(|other| start(other) > one.started_at && start(other) <= limit);
        }
        let is_newest = !all().any(|other| self.is_newer(other, at));
        let newer_drilled =
            all().any(|other| self.candidates[other].is_drilled && self.is_newer(other, at));
        is_newest || one.is_drilled && !newer_drilled || self.is_kept_by_a_rule(at)
    }

    fn is_kept_by_a_rule(&self, at: usize) -> bool {
        let sets = [true, false].into_iter();
        sets.filter(|own| self.is_in_set(at, *own))
            .any(|own| self.is_kept_in_set(at, own))
    }

    fn is_kept_in_set(&self, at: usize, own: bool) -> bool {
        let set: Vec<usize> = (0..self.candidates.len())
            .filter(|other| self.is_good(*other) && self.is_in_set(*other, own))
            .collect();
        let policy = self.policy;
        let (counts, age) = match (&policy.keep_pre_deploy, own) {
            (Some(KeepPreDeploy::Last(count)), true) => (vec![("", Some(*count))], None),
            (Some(KeepPreDeploy::Within(age)), true) => (Vec::new(), Some(*age)),
            _ => {
                let counts = vec![
                    ("", policy.keep_last),
                    ("%Y-%m-%d %H", policy.keep_hourly),
                    ("%Y-%m-%d", policy.keep_daily),
                    ("%G-%V", policy.keep_weekly),
                    ("%Y-%m", policy.keep_monthly),
                    ("%Y", policy.keep_yearly),
                ];
                (counts, policy.keep_within)
            }
        };
        let is_counted = counts
            .into_iter()
            .any(|(format, count)| self.is_counted(at, &set, format, count.unwrap_or(0) as usize));
        is_counted || age.is_some_and(|age| self.is_younger(at, &set, age))
    }

    fn is_counted(&self, at: usize, set: &[usize], format: &str, count: usize) -> bool {
        let period = self.clock(at, format);
        let newer = || set.iter().filter(|other| self.is_newer(**other, at));
        let newer_periods: BTreeSet<String> =
            newer().map(|other| self.clock(*other, format)).collect();
        let is_newest_of_period = !newer_periods.contains(&period);
        let periods: BTreeSet<String> =
            set.iter().map(|other| self.clock(*other, format)).collect();
        let is_oldest = newer().count() + 1 == set.len();
        is_newest_of_period && newer_periods.len() < count || is_oldest && periods.len() < count
    }

    fn is_younger(&self, at: usize, set: &[usize], age: Span) -> bool {
        let start = |at: usize| {
            let start = self.candidates[at].started_at;
            start.to_zoned(self.policy.timezone.clone())
        };
        let end = start(at).checked_add(age).unwrap();
        set.iter().all(|other| start(*other) < end)
    }
}

/// One walk from newest to oldest that compares each backup with the period that was kept last. For good backups with
/// different starts, newest first.
fn by_walking(policy: &Retention, newest_first: &[Candidate]) -> Vec<bool> {
    let formats = ["%s", "%Y-%m-%d %H", "%Y-%m-%d", "%G-%V", "%Y-%m", "%Y"];
    let counts = [
        policy.keep_last,
        policy.keep_hourly,
        policy.keep_daily,
        policy.keep_weekly,
        policy.keep_monthly,
        policy.keep_yearly,
    ];
    let mut buckets: Vec<(&str, u32, String)> = formats
        .into_iter()
        .zip(counts)
        .map(|(format, count)| (format, count.unwrap_or(0), String::new()))
        .collect();
    let mut keep = Vec::new();
    for (at, candidate) in newest_first.iter().enumerate() {
        let start = candidate.started_at.to_zoned(policy.timezone.clone());
        let mut is_kept = false;
        for (format, left, last) in &mut buckets {
            let period = start.strftime(*format).to_string();
            if *left > 0 && (period != *last || at + 1 == newest_first.len()) {
                *left -= 1;
                *last = period;
                is_kept = true;
            }
        }
        keep.push(is_kept);
    }
    keep
}
