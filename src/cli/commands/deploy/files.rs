//! The files of the repository's `deploy/`, as they are there; nothing is filled in.

/// One file.
pub(super) struct File {
    /// Its path below `deploy/`, which is its name.
    pub name: &'static str,
    /// What it is, for a list.
    pub about: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! files {
    ($($name:literal: $about:literal,)*) => {
        &[$(File {
            name: $name,
            about: $about,
            text: include_str!(concat!("../../../../deploy/", $name)),
        },)*]
    };
}

/// All of them, in the order of a list.
pub(super) const FILES: &[File] = files! {
    "cron/crontab.example": "three lines for `crontab -e`, without scripts",
    "cron/weekly-backup.sh": "backs up every database; cron runs it",
    "cron/weekly-verify.sh": "verifies stored backups; cron runs it",
    "cron/monthly-drill.sh": "drills every database; cron runs it",
    "cron/pre-deploy.sh": "runs a command only after a proven backup",
    "cron/environment.sh": "shared by these scripts; keep it with them",
    "pgkeep.env.example": "variables for cron and systemd",
    "systemd/pgkeep-backup.service": "one backup of every database",
    "systemd/pgkeep-backup.timer": "every night",
    "systemd/pgkeep-verify.service": "verifies stored backups",
    "systemd/pgkeep-verify.timer": "every week",
    "systemd/pgkeep-drill.service": "drills every database",
    "systemd/pgkeep-drill.timer": "every month",
    "systemd/pgkeep-serve.service": "the server, in place of the timers",
    "kubernetes/cronjob.yaml": "secret, configuration and two CronJobs",
    "kubernetes/serve.yaml": "the server: secret, configuration, Deployment, Service",
    "docker/compose.yaml": "the server behind Caddy",
    "proxy/Caddyfile": "TLS in front of the server, with Caddy",
    "proxy/nginx.conf": "TLS in front of the server, with nginx",
    "vercel/route.ts": "a route for Vercel's cron, which calls the server",
    "prometheus/alerts.yaml": "alerts on the metrics of the server",
    "grafana/pgkeep.json": "a dashboard over the metrics of the server",
    "github-actions/weekly-backup.yml": "a workflow: backup every week",
    "github-actions/monthly-drill.yml": "a workflow: verify and drill every month",
    "github-actions/pre-deploy.yml": "a workflow: deploy only after a backup",
};

/// Returns the files of one folder, each with the name that it has there.
pub(super) fn of_folder(folder: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let inside = move |file: &File| {
        let name = file.name.strip_prefix(folder)?.strip_prefix('/')?;
        Some((name, file.text))
    };
    FILES.iter().filter_map(inside)
}
