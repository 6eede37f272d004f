//! What has to be known of a table to write its rows as `pg_dump` does: `dumpTableData_copy` and `fmtCopyColumnList` of its
//! `pg_dump.c`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Block, Copies};
use pgkeep_model::name::TableName;
use pgkeep_model::restore::properties::literal;

/// The first server that reads a range of pages without a look at all the others.
const READS_RANGES: u32 = 140_000;

/// The first server with partitioned tables.
const KNOWS_PARTITIONS: u32 = 100_000;

/// The uppermost partitioned table over a table that hashes an enum, or has such a one below it.
const THROUGH: &str = "(WITH RECURSIVE up(oid, level) AS (
      SELECT i.inhparent, 1 FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition
      UNION ALL SELECT i.inhparent, up.level + 1 FROM up JOIN pg_inherits i ON i.inhrelid = up.oid
        JOIN pg_class u ON u.oid = up.oid AND u.relispartition)
    SELECT quote_ident(rn.nspname) || '.' || quote_ident(r.relname) FROM up JOIN pg_class r ON r.oid = up.oid
    JOIN pg_namespace rn ON rn.oid = r.relnamespace
    WHERE EXISTS (SELECT FROM up JOIN pg_partitioned_table p ON p.partrelid = up.oid AND p.partstrat = 'h'
      JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
      JOIN pg_type y ON y.oid = a.atttypid AND y.typtype = 'e')
    ORDER BY up.level DESC LIMIT 1)";

/// Text of a table, as the server writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TableText {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Schema and name as SQL has them, quoted where that is needed.
    pub quoted: String,
    /// The role that owns it.
    pub owner: String,
    /// Its columns as SQL has them, without those that the server computes; none where there are no others.
    pub columns: Option<String>,
    /// How many pages it has.
    pub pages: u64,
    /// Bytes of its rows on disk, with those that are stored out of line.
    pub bytes: u64,
    /// Whether it is stored as PostgreSQL itself stores tables.
    pub is_heap: bool,
    /// The partitioned table that its rows go in through, where another server may sort them into other partitions: the hash
    /// of an enum's value is not the same everywhere (`forcePartitionRootLoad`).
    pub through: Option<String>,
}

/// Asks for tables by their names; `condition` leaves some of them out, and `order` is their order.
fn question(tables: &[TableName], server_version: u32, condition: &str, order: &str) -> String {
    let through = if server_version >= KNOWS_PARTITIONS {
        THROUGH
    } else {
        "NULL::text"
    };
    let wanted: Vec<Value> = tables
        .iter()
        .map(|table| json!([table.schema_or_public(), table.name]))
        .collect();
    let names = literal(&Value::Array(wanted).to_string());
    format!(
        "SELECT coalesce(jsonb_agg(to_jsonb(t) - 'at' ORDER BY {order}), '[]') FROM (
  SELECT n.nspname AS schema, c.relname AS name, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted,
    pg_get_userbyid(c.relowner) AS owner,
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND coalesce(to_jsonb(a)->>'attgenerated', '') = '') AS columns,
    pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages, pg_table_size(c.oid) AS bytes,
    coalesce((SELECT m.amname = 'heap' FROM pg_am m WHERE m.oid = c.relam), true) AS is_heap,
    c.relpersistence = 'p' AS is_logged,
    {through} AS through, w.at
  FROM jsonb_array_elements({names}::jsonb) WITH ORDINALITY w(name, at)
  JOIN pg_namespace n ON n.nspname = w.name->>0
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name->>1
  WHERE c.relkind = 'r') t WHERE {condition}"
    )
}

/// Which tables are worth several sessions.
#[derive(Clone, Copy, Debug)]
pub struct Large {
    /// Those of at least so many bytes.
    pub bytes: u64,
    /// At most so many, the largest.
    pub count: usize,
}

impl Large {
    /// Asks which of these tables are large, in the order in which `pg_dump` writes tables: by schema, then by name, byte
    /// by byte.
    pub fn question(self, tables: &[TableName], server_version: u32) -> String {
        let Self { bytes, count } = self;
        let condition = format!(
            "t.pages > 0 AND t.is_logged AND t.columns IS NOT NULL AND t.through IS NULL AND t.bytes >= {bytes}"
        );
        let order = "t.bytes DESC, t.schema, t.name";
        let inner = question(tables, server_version, &condition, order);
        format!(
            "SELECT coalesce(jsonb_agg(e.table ORDER BY convert_to(e.table->>'schema', 'UTF8'), \
             convert_to(e.table->>'name', 'UTF8')), '[]') FROM jsonb_array_elements(({inner})) \
             WITH ORDINALITY e(\"table\", at) WHERE e.at <= {count}"
        )
    }
}

impl TableText {
    /// Asks for these tables, in this order.
    pub fn question(tables: &[TableName], server_version: u32) -> String {
        question(tables, server_version, "true", "t.at")
    }

    /// Returns its name.
    pub fn table_name(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }

    /// Returns what stands in front of its rows. `pg_dump` turns line ends in names to spaces within comments.
    pub fn head(&self) -> String {
        let plain = |text: &str| text.replace(['\n', '\r'], " ");
        let columns = self
            .columns
            .as_ref()
            .map_or(String::new(), |columns| format!("({columns})"));
        let through = self.through.as_ref();
        let note = through.map_or(String::new(), |root| {
            format!("-- load via partition root {}\n\n", plain(root))
        });
        format!(
            "--\n-- Data for Name: {}; Type: TABLE DATA; Schema: {}; Owner: {}\n--\n\n{note}COPY {} {columns} FROM stdin;\n",
            plain(&self.name),
            plain(&self.schema),
            plain(&self.owner),
            through.unwrap_or(&self.quoted)
        )
    }

    /// Returns the query that gives its rows, up to a condition.
    pub fn select(&self) -> String {
        format!(
            "SELECT {} FROM ONLY {}",
            self.columns.as_deref().unwrap_or_default(),
            self.quoted
        )
    }

    /// Returns all its rows as a block, in ranges of about so many bytes where the server can read such.
    pub fn block(&self, server_version: u32, range_bytes: u64) -> Block {
        // A page may lead to many that are stored out of line.
        let page_bytes = (self.bytes / self.pages.max(1)).max(1);
        let step = (range_bytes / page_bytes).max(1);
        let copies = if self.is_heap && server_version >= READS_RANGES && self.pages > step {
            Copies::Ranges {
                select: self.select(),
                pages: self.pages,
                step,
            }
        } else {
            Copies::One(format!(
                "COPY {} ({}) TO STDOUT",
                self.quoted,
                self.columns.as_deref().unwrap_or_default()
            ))
        };
        Block {
            table: self.table_name(),
            head: self.head(),
            copies,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_as_pg_dump_writes_it() {
        let mut table = TableText {
            schema: "public".to_owned(),
            name: "odd\nname".to_owned(),
            quoted: "public.\"odd\nname\"".to_owned(),
            owner: "own".to_owned(),
            columns: Some("id, \"order\"".to_owned()),
            pages: 3,
            bytes: 3 * 8192,
            is_heap: true,
            through: None,
        };
        let block = table.block(150_000, 81_920);
        assert_eq!(
            block.head,
            "--\n-- Data for Name: odd name; Type: TABLE DATA; Schema: public; Owner: own\n--\n\n\
             COPY public.\"odd\nname\" (id, \"order\") FROM stdin;\n"
        );
        let one = "COPY public.\"odd\nname\" (id, \"order\") TO STDOUT".to_owned();
        assert_eq!(block.copies, Copies::One(one.clone()));
        (table.pages, table.bytes) = (30, 30 * 8192);
        assert_eq!(
            table.block(130_000, 81_920).copies,
            Copies::One(one.clone())
        );
        let ranges = Copies::Ranges {
            select: "SELECT id, \"order\" FROM ONLY public.\"odd\nname\"".to_owned(),
            pages: 30,
            step: 10,
        };
        assert_eq!(table.block(140_000, 81_920).copies, ranges);
        table.bytes *= 10;
        let Copies::Ranges { step, .. } = table.block(140_000, 81_920).copies else {
            panic!("it is large")
        };
        assert_eq!(step, 1, "most of it is out of line");
        table.is_heap = false;
        assert_eq!(table.block(180_000, 81_920).copies, Copies::One(one));
        table.columns = None;
        assert!(
            table
                .head()
                .ends_with("COPY public.\"odd\nname\"  FROM stdin;\n")
        );
    }
}
