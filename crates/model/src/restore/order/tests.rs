//! Plans of small dumps, and properties of plans of any: nothing is lost, nothing is done twice.

use super::*;
use proptest::prelude::*;

const HEAD: &str = "SET statement_timeout = 0;\nSET client_encoding = 'UTF8';\n\
    SELECT pg_catalog.set_config('search_path', '', false);\nSET default_tablespace = fast;\n\
    CREATE TABLE public.a (id int);\nCREATE TABLE public.b (id int, a int);\n\
    CREATE TABLE public.p (id int) PARTITION BY LIST (id);\n\
    CREATE TABLE public.\"p 1\" (id int);\nALTER TABLE ONLY public.p ATTACH PARTITION public.\"p 1\" FOR VALUES IN (1);\n";

const POST: &str = "ALTER TABLE ONLY public.a ADD CONSTRAINT a_pkey PRIMARY KEY (id);\n\
    CREATE INDEX a_i ON public.a USING btree (id);\nCREATE UNIQUE INDEX p_i ON ONLY public.p USING btree (id);\n\
    SET default_tablespace = '';\nALTER TABLE ONLY public.b ADD CONSTRAINT b_k UNIQUE (id);\n\
    ALTER INDEX public.p_i ATTACH PARTITION public.x;\nCREATE TRIGGER t BEFORE INSERT ON public.a EXECUTE FUNCTION f();\n\
    ALTER TABLE ONLY public.b ADD CONSTRAINT f1 FOREIGN KEY (a) REFERENCES public.a(id) ON DELETE CASCADE;\n\
    ALTER TABLE public.\"p 1\" ADD CONSTRAINT f2 FOREIGN KEY (id) REFERENCES public.b(id);\n\
    CREATE INDEX late ON public.p USING btree (id);\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict x\n";

fn rows(table: &str, count: usize) -> String {
    format!(
        "COPY public.{table} (id) FROM stdin;\n{}\\.\n\n",
        "1\n".repeat(count)
    )
}

fn plan(text: &str, step: usize, jobs: usize) -> (Scan, Vec<Stage>) {
    let mut scanner = Scanner::new();
    scanner.push(text.as_bytes());
    let scan = scanner.finish();
    let mut gathering = Gathering::new(Sections::of(&scan.sections).unwrap());
    text.as_bytes()
        .chunks(step)
        .for_each(|piece| gathering.push(piece));
    let stages = gathering.plan(&scan, jobs);
    (scan, stages)
}

fn text_of(task: &Task) -> &str {
    match &task.what {
        What::Text(text) => std::str::from_utf8(text).unwrap(),
        What::Part(_) => panic!("it is a part"),
    }
}

fn is_text(task: &Task) -> bool {
    matches!(task.what, What::Text(_))
}

fn sample(counts: &[usize]) -> String {
    let names = ["a", "b", "\"p 1\""];
    let data: String = counts
        .iter()
        .enumerate()
        .map(|(at, count)| rows(names[at % 3], *count))
        .collect();
    format!("{HEAD}{data}SELECT pg_catalog.setval('public.s', 7, true);\n{POST}")
}

#[test]
fn indexes_go_by_table_and_keys_and_the_rest_stay_behind_what_they_need() {
    let (_, stages) = plan(&sample(&[400_000, 700_000, 1]), 997, 2);
    assert_eq!(text_of(&stages[0][0]), HEAD);
    let indexes: Vec<&Task> = stages[1].iter().filter(|task| is_text(task)).collect();
    let needs: Vec<Vec<String>> = indexes
        .iter()
        .map(|task| task.needs.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(
        needs,
        [vec!["public.a"], vec!["public.b"], vec!["public.p"]]
    );
    let indexes: Vec<&str> = indexes.into_iter().map(text_of).collect();
    // `a` has two statements, and so more to do than `b` with more rows.
    assert_eq!(indexes.len(), 3, "{indexes:?}");
    assert!(
        indexes[0].contains("a_pkey") && indexes[0].contains("a_i ON"),
        "{indexes:?}"
    );
    assert!(indexes[1].contains("b_k"), "{indexes:?}");
    assert!(stages[2].len() == 1 && text_of(&stages[2][0]).contains("ATTACH"));
    assert!(text_of(&stages[2][0]).contains("CREATE TRIGGER"));
    let locks: Vec<Vec<String>> = stages[3]
        .iter()
        .map(|task| task.locks.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(locks, [["public.a", "public.b"], ["public.b", "public.p"]]);
    // Without ONLY it goes down to the partitions, so it is not side by side with anything.
    assert!(text_of(&stages[4][0]).contains("INDEX late"));
    assert_eq!(stages.len(), 5);
}

#[test]
fn every_task_has_the_settings_of_its_place() {
    let (_, stages) = plan(&sample(&[1_000_000, 1_000_000]), 4096, 2);
    let settings = |task: &Task| String::from_utf8(task.settings.clone()).unwrap();
    for task in stages[1].iter().filter(|task| !is_text(task)) {
        assert!(
            settings(task).contains("client_encoding") && settings(task).contains("set_config")
        );
    }
    let tablespace = |name: &str| {
        let mut tasks = stages[1].iter().filter(|task| is_text(task));
        let task = tasks.find(|task| text_of(task).contains(name));
        settings(task.unwrap()).lines().last().unwrap().to_owned()
    };
    assert_eq!(tablespace("a_pkey"), "SET default_tablespace = fast;");
    assert_eq!(tablespace("b_k"), "SET default_tablespace = '';");
}

/// pg_dump makes large objects in front of the rows and fills them behind.
#[test]
fn large_objects_are_made_before_anything_fills_them() {
    let make = "SELECT pg_catalog.lo_create('7');\n";
    let text = sample(&[10]).replace("COPY public.a", &format!("{make}\nCOPY public.a"));
    let (scan, stages) = plan(&text, 4096, 2);
    assert_eq!(scan.large_objects, 1);
    let What::Part(lead) = stages[1][0].what else {
        panic!("it is text");
    };
    let lead =
        &text[usize::try_from(lead.offset).unwrap()..][..usize::try_from(lead.length).unwrap()];
    assert_eq!((stages[1].len(), lead.trim_end()), (1, make.trim_end()));
    assert_eq!(stages[2].iter().filter(|task| !is_text(task)).count(), 2);
}

#[test]
fn no_two_tasks_with_a_common_lock_are_taken() {
    let (_, mut stages) = plan(&sample(&[600_000, 600_000, 600_000]), 4096, 2);
    let mut keys = Queue::new(stages.remove(3));
    let first = keys.take().unwrap();
    assert_eq!(keys.take(), None);
    keys.done(&first.locks, &first.fills);
    assert!(keys.take().is_some());
    assert_eq!(keys.take(), None);
}

#[test]
fn an_index_that_may_read_other_tables_waits_for_all_rows() {
    for (sql, expected) in [
        ("CREATE INDEX i ON public.a USING btree (id);", true),
        (
            "CREATE UNIQUE INDEX i ON public.a USING gin (\"where\" x.ops DESC) INCLUDE (b) WITH (fillfactor='70');",
            true,
        ),
        (
            "ALTER TABLE ONLY public.a ADD CONSTRAINT k PRIMARY KEY (id);",
            true,
        ),
        (
            "CREATE INDEX i ON public.a USING btree (public.nm(lk));",
            false,
        ),
        ("CREATE INDEX i ON public.a USING btree (((a + 1)));", false),
        (
            "CREATE INDEX i ON public.a USING btree (id) WHERE public.is_new(id);",
            false,
        ),
        (
            "ALTER TABLE ONLY public.a ADD CONSTRAINT k EXCLUDE USING gist (f(a) WITH =);",
            false,
        ),
    ] {
        assert_eq!(is_of_columns(sql.as_bytes()), expected, "{sql}");
    }
    let dump = sample(&[400_000, 700_000, 1]).replace(
        "CREATE INDEX a_i ON public.a USING btree (id);",
        "CREATE INDEX a_i ON public.a USING btree (public.nm(id));",
    );
    let (_, stages) = plan(&dump, 997, 2);
    let of = |name: &str| {
        let mut tasks = stages[1].iter().filter(|task| is_text(task));
        tasks.find(|task| text_of(task).contains(name)).unwrap()
    };
    assert_eq!(of("a_pkey").needs.len(), 1);
    let filled = stages[1].iter().flat_map(|task| &task.fills);
    assert!(
        filled
            .clone()
            .all(|table| of("a_i ON").needs.contains(table))
    );
    let mut queue = Queue::new(stages[1].clone());
    let mut filled_until = 0;
    while let Some(task) = queue.take() {
        if is_text(&task) && text_of(&task).contains("a_i ON") {
            let fillers = stages[1].iter().filter(|task| !task.fills.is_empty());
            assert_eq!(filled_until, fillers.count());
        }
        filled_until += usize::from(!task.fills.is_empty());
        queue.done(&task.locks, &task.fills);
    }
}

#[test]
fn an_index_waits_for_the_rows_of_its_table_and_for_no_other() {
    let (_, mut stages) = plan(&sample(&[900_000, 600_000, 3]), 4096, 2);
    let mut queue = Queue::new(stages.remove(1));
    let (first, second) = (queue.take().unwrap(), queue.take().unwrap());
    assert_eq!((first.fills.len(), is_text(&first)), (1, false));
    let other = queue.take().unwrap(); // rows of the small table
    assert!(!is_text(&other) && !is_text(&second));
    let index_of = |queue: &mut Queue, table: &Task| {
        queue.done(&table.locks, &table.fills);
        queue.take().unwrap()
    };
    let index = index_of(&mut queue, &second);
    assert!(is_text(&index), "{index:?}");
    assert_eq!(index.needs, second.fills);
}

#[test]
fn only_tables_that_one_copy_fills_are_emptied() {
    let names = |text: &str| {
        let mut scanner = Scanner::new();
        scanner.push(text.as_bytes());
        let mut names: Vec<String> = can_be_emptied(&scanner.finish().tables)
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(
        names(&sample(&[1, 1, 1])),
        "public.\"p 1\" public.a public.b"
    );
    // Twice, by its root, not made by the dump, foreign, without data.
    assert_eq!(names(&sample(&[1, 1, 1, 1])), "public.\"p 1\" public.b");
    assert_eq!(
        names(&format!("{}{}", sample(&[1, 0, 1]), rows("p", 1))),
        "public.a public.b"
    );
    assert_eq!(names(&format!("{HEAD}{}", rows("spatial_ref_sys", 1))), "");
    let foreign = HEAD.replace("CREATE TABLE public.a", "CREATE FOREIGN TABLE public.a");
    assert_eq!(names(&format!("{foreign}{}", rows("a", 1))), "");
    assert_eq!(names(HEAD), "");
}

#[test]
fn dumps_of_another_shape_have_no_sections() {
    for text in [HEAD.to_owned(), format!("{HEAD}{POST}"), String::new()] {
        let mut scanner = Scanner::new();
        scanner.push(text.as_bytes());
        assert_eq!(Sections::of(&scanner.finish().sections), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn parts_cover_the_data_exactly_and_every_statement_is_in_one_task(
        counts in prop::collection::vec(0usize..700_000, 1..9),
        step in 1000usize..100_000,
        jobs in 1usize..9,
    ) {
        let text = sample(&counts);
        let (scan, stages) = plan(&text, step, jobs);
        let sections = Sections::of(&scan.sections).unwrap();
        prop_assert!(stages[1].is_sorted_by_key(|task| std::cmp::Reverse(task.weight)));
        let mut parts: Vec<Block> = stages[1].iter().filter_map(|task| match task.what {
            What::Part(block) => Some(block),
            What::Text(_) => None,
        }).collect();
        parts.sort_by_key(|part| part.offset);
        let mut at = sections.data.offset;
        for part in parts {
            prop_assert_eq!(part.offset, at);
            at += part.length;
            let cuts_a_block = scan.tables.iter().flat_map(|table| &table.blocks)
                .any(|block| block.offset < at && at < block.offset + block.length);
            prop_assert!(!cuts_a_block);
        }
        prop_assert_eq!(at, sections.post.offset);
        let behind: String = stages[1..].iter().flatten().filter(|task| is_text(task)).map(text_of).collect();
        let wanted: Vec<&str> = POST.lines().filter(|line| line.ends_with(';') && !line.starts_with("SET")).collect();
        for line in wanted {
            prop_assert_eq!(behind.matches(line).count(), 1);
        }
    }
}
