//! One table's rows put back: tried first and rolled back, with what would be done, and carried out when that is confirmed.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::{Shown, Visit};
use crate::apart::apart;
use crate::api::{bad_request, id_of};
use crate::app::App;
use crate::auth::Role;
use crate::page;
use crate::page::table::Preview;
use crate::problem::Problem;
use crate::runs::{Ask, Rows, rows_request};
use crate::snapshot::Verb;
use pgkeep_core::op::event::Silent;
use pgkeep_core::op::restore::{self, Outcome};

/// What the forms send.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    mode: String,
    confirm: Option<String>,
}

pub(crate) async fn rows(
    visit: Visit,
    State(app): State<App>,
    Path((id, table)): Path<(String, String)>,
    wanted: Result<Form<Wanted>, FormRejection>,
) -> Shown {
    visit.needs(Role::Restore)?;
    visit.take(app.may_act())?;
    let (id, wanted) = (visit.take(id_of(&id))?, visit.form(wanted)?);
    let setup = visit.take(app.setup_for(id.database()))?;
    let is_append = match wanted.mode.as_str() {
        "append" => true,
        "upsert" => false,
        other => {
            let message = format!("`{other}` is no way to put rows back: append or upsert");
            return Err(visit.trouble(bad_request(&message)));
        }
    };
    let rows = Rows { table, is_append };
    if wanted.confirm.is_some() {
        let ask = Ask {
            verb: Verb::Restore,
            database: id.database().clone(),
            backup: Some(id),
            rows: Some(rows),
            by: visit.who.name.clone(),
            slot: None,
            request_key: None,
        };
        let started = visit.take(app.runs.start(ask).map_err(|_| Problem::key_reused()))?;
        return Ok(visit.go(&format!("/runs/{}", started.id)));
    }
    let request = visit.take(rows_request(&setup, &id, &rows, true))?;
    let target = request.into.label();
    let context = app.context.clone();
    let tried = async move || restore::run(&request, &context, &Silent).await;
    let outcome = visit.take(apart(tried).await)?;
    let mut preview = Preview {
        backup_id: id.to_string(),
        database: id.database().to_string(),
        table: rows.table,
        mode: if rows.is_append { "append" } else { "upsert" }.to_owned(),
        target,
        counts: Vec::new(),
        warnings: Vec::new(),
        failure: outcome
            .failure()
            .map(|failure| (failure.message.clone(), failure.hints.clone())),
    };
    if let Outcome::Rows(report) = outcome {
        for merged in &report.tables {
            let counts = &merged.counts;
            preview.counts.extend([
                ("rows to add".to_owned(), counts.insert),
                ("rows to change".to_owned(), counts.update),
                ("rows as they are".to_owned(), counts.unchanged),
            ]);
        }
        preview.warnings.clone_from(&report.warnings);
    }
    Ok(page::table::preview(&visit.chrome, &preview).into_response())
}
