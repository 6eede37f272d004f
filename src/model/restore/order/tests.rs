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
    let indexes: Vec<&str> = stages[2].iter().map(text_of).collect();
    // `a` has two statements, and so more to do than `b` with more rows.
    assert_eq!(indexes.len(), 3, "{indexes:?}");
    assert!(
        indexes[0].contains("a_pkey") && indexes[0].contains("a_i ON"),
        "{indexes:?}"
    );
    assert!(indexes[1].contains("b_k"), "{indexes:?}");
    assert!(stages[3].len() == 1 && text_of(&stages[3][0]).contains("ATTACH"));
    assert!(text_of(&stages[3][0]).contains("CREATE TRIGGER"));
    let locks: Vec<Vec<String>> = stages[4]
        .iter()
        .map(|task| task.locks.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(locks, [["public.a", "public.b"], ["public.b", "public.p"]]);
    // Without ONLY it goes down to the partitions, so it is not side by side with anything.
    assert!(text_of(&stages[5][0]).contains("INDEX late"));
    assert_eq!(stages.len(), 6);
}

#[test]
fn every_task_has_the_settings_of_its_place() {
    let (_, stages) = plan(&sample(&[1_000_000, 1_000_000]), 4096, 2);
    let settings = |task: &Task| String::from_utf8(task.settings.clone()).unwrap();
    for task in &stages[1] {
        assert!(
            settings(task).contains("client_encoding") && settings(task).contains("set_config")
        );
    }
    let tablespace = |name: &str| {
        let task = stages[2].iter().find(|task| text_of(task).contains(name));
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
    assert_eq!(stages[2].len(), 2);
}

#[test]
fn no_two_tasks_with_a_common_lock_are_taken() {
    let (_, mut stages) = plan(&sample(&[600_000, 600_000, 600_000]), 4096, 2);
    let keys = &mut stages[4];
    let first = take_next(keys, &[]).unwrap();
    assert_eq!(take_next(keys, &first.locks), None);
    assert!(take_next(keys, &[]).is_some());
    assert_eq!(take_next(keys, &[]), None);
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
        let mut parts: Vec<Block> = stages[1].iter().map(|task| match task.what {
            What::Part(block) => block,
            What::Text(_) => panic!("it is text"),
        }).collect();
        prop_assert!(parts.is_sorted_by_key(|part| std::cmp::Reverse(part.length)));
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
        let behind: String = stages[2..].iter().flatten().map(text_of).collect();
        let wanted: Vec<&str> = POST.lines().filter(|line| line.ends_with(';') && !line.starts_with("SET")).collect();
        for line in wanted {
            prop_assert_eq!(behind.matches(line).count(), 1);
        }
    }
}
