//! The order in which tables are filled: those that others refer to come first.

use std::collections::{HashMap, HashSet};

use super::TargetTable;

/// Returns the positions of `tables`, referenced ones in front of those that refer to them.
///
/// Tables that refer to each other in a ring have no such order; they come in the order of `tables`, and the server
/// tells whether their rows let it be.
pub fn parents_first(tables: &[TargetTable]) -> Vec<usize> {
    let places: HashMap<(&str, &str), usize> = tables
        .iter()
        .enumerate()
        .map(|(at, table)| ((table.schema.as_str(), table.name.as_str()), at))
        .collect();
    let needs: Vec<HashSet<usize>> = tables
        .iter()
        .enumerate()
        .map(|(at, table)| {
            let needed = table
                .references
                .iter()
                .filter_map(|(schema, name)| places.get(&(schema.as_str(), name.as_str())));
            needed.copied().filter(|needed| *needed != at).collect()
        })
        .collect();
    let mut order = Vec::with_capacity(tables.len());
    let mut is_placed = vec![false; tables.len()];
    while order.len() < tables.len() {
        let before = order.len();
        for at in 0..tables.len() {
            if !is_placed[at] && needs[at].iter().all(|needed| is_placed[*needed]) {
                is_placed[at] = true;
                order.push(at);
            }
        }
        // A ring: one of it has to begin.
        if order.len() == before
            && let Some(at) = is_placed.iter().position(|placed| !placed)
        {
            is_placed[at] = true;
            order.push(at);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(name: usize, references: &[usize]) -> TargetTable {
        TargetTable {
            schema: "s".to_owned(),
            name: name.to_string(),
            references: references
                .iter()
                .map(|to| ("s".to_owned(), to.to_string()))
                .collect(),
            ..TargetTable::default()
        }
    }

    #[test]
    fn rings_and_strangers_do_not_stop_it() {
        let tables = [
            table(0, &[1]),
            table(1, &[0]),
            table(2, &[2, 99]),
            table(3, &[0]),
        ];
        assert_eq!(parents_first(&tables), [2, 0, 1, 3]);
    }

    proptest! {
        #[test]
        fn a_table_comes_behind_all_that_it_refers_to(
            links in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..20),
            shuffle in any::<u64>(),
        ) {
            // A table refers only to those with a lower name, so there is no ring.
            let mut tables: Vec<TargetTable> = links.iter().enumerate()
                .map(|(at, links)| {
                    let to: Vec<usize> = links.iter().filter(|_| at > 0).map(|link| link.index(at)).collect();
                    table(at, &to)
                })
                .collect();
            let count = tables.len();
            tables.rotate_left(usize::try_from(shuffle % count as u64).unwrap());
            let order = parents_first(&tables);
            let mut seen = HashSet::new();
            for at in order {
                for (_, name) in &tables[at].references {
                    prop_assert!(seen.contains(name) || *name == tables[at].name);
                }
                prop_assert!(seen.insert(tables[at].name.clone()));
            }
            prop_assert_eq!(seen.len(), count);
        }
    }
}
