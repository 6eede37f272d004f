//! What the questions to a source and to a target have in common: parts of their queries, each of which makes JSON.

/// Sets `pgkeep_system` to what identifies the cluster, or to nothing where we may not read it.
///
/// Rights on `pg_control_system` are checked before it is named, because PostgreSQL checks them when the query starts,
/// even behind a CASE.
pub(super) const SYSTEM_IDENTIFIER: &str = r"SELECT has_function_privilege('pg_control_system()', 'EXECUTE') AS pgkeep_may_control \gset
\set pgkeep_system ''
\if :pgkeep_may_control
SELECT system_identifier AS pgkeep_system FROM pg_control_system() \gset
\endif";

/// What a plain dump leaves out of a database, as pairs of an object; `d` is its row of `pg_database`.
///
/// `row_to_json(d)->>'x'` reads a column that only some versions have, where naming it would be an error on others.
pub(super) const DATABASE_PROPERTIES: &str = "'owner', pg_get_userbyid(d.datdba),
    'collate', row_to_json(d)->>'datcollate', 'ctype', row_to_json(d)->>'datctype', 'locale_provider', row_to_json(d)->>'datlocprovider',
    'locale', coalesce(row_to_json(d)->>'datlocale', row_to_json(d)->>'daticulocale'), 'icu_rules', row_to_json(d)->>'daticurules',
    'acl', d.datacl::text[],
    'settings', coalesce((SELECT jsonb_agg(jsonb_build_object('role', r.rolname, 'settings', s.setconfig) ORDER BY r.rolname NULLS FIRST)
      FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid), '[]'),
    'comment', shobj_description(d.oid, 'pg_database'),
    'connection_limit', d.datconnlimit";

/// Every schema but the system's own, and whom it belongs to, as an array.
pub(super) const SCHEMA_OWNERS: &str = "coalesce((SELECT jsonb_agg(jsonb_build_object('name', n.nspname, 'owner', o.rolname, 'can_login', o.rolcanlogin,
    'is_of_extension', EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e')
      OR EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid AND NOT x.extrelocatable)) ORDER BY n.nspname)
    FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'), '[]')";
