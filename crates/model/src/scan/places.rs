//! Where the sections of a dump lie.

use super::report::{Block, Section, SectionName};

/// Where data begins and ends, and where what follows the data begins in a dump without any.
#[derive(Default)]
pub(super) struct Places {
    data_start: Option<u64>,
    data_end: u64,
    pub(super) post_data_start: Option<u64>,
}

impl Places {
    pub(super) fn note_data(&mut self, start: u64, end: u64) {
        self.data_start.get_or_insert(start);
        self.data_end = end;
    }

    /// Returns where what is not a definition begins.
    pub(super) fn definitions_end(&self) -> Option<u64> {
        self.data_start
            .into_iter()
            .chain(self.post_data_start)
            .min()
    }

    pub(super) fn sections(&self, bytes: u64) -> Vec<Section> {
        let section = |name, start, end| Section {
            name,
            block: Block {
                offset: start,
                length: end - start,
            },
        };
        let sections = match (self.data_start, self.post_data_start) {
            (Some(start), _) => vec![
                section(SectionName::PreData, 0, start),
                section(SectionName::Data, start, self.data_end),
                section(SectionName::PostData, self.data_end, bytes),
            ],
            (None, Some(post)) => {
                vec![
                    section(SectionName::PreData, 0, post),
                    section(SectionName::PostData, post, bytes),
                ]
            }
            (None, None) => vec![section(SectionName::PreData, 0, bytes)],
        };
        sections
            .into_iter()
            .filter(|section| section.block.length > 0)
            .collect()
    }
}
