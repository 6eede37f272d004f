//! What a store compares before it replaces an object: the version that is made of its answers, and what is asked for with one.

use object_store::UpdateVersion;

use crate::Version;

/// What a store compares before it replaces an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compared {
    /// The entity tag, as S3 and Azure do.
    ETag,
    /// The number of the write, as GCS does.
    Generation,
}

impl Compared {
    /// Makes a version out of what a store tells; none where it tells nothing that it compares.
    pub(crate) fn version(
        self,
        e_tag: Option<String>,
        generation: Option<String>,
    ) -> Option<Version> {
        match self {
            // A weak tag cannot be asked for with `If-Match`. What else differs must not tell two versions apart.
            Self::ETag => e_tag
                .filter(|tag| !tag.is_empty() && !tag.starts_with("W/"))
                .map(Version::of),
            Self::Generation => generation.map(|generation| Version {
                tag: e_tag.unwrap_or_default(),
                generation: Some(generation),
            }),
        }
    }

    /// Returns what is sent along to replace this version and no other.
    pub(crate) fn asked_for(self, version: &Version) -> UpdateVersion {
        UpdateVersion {
            e_tag: Some(version.tag.clone()),
            version: match self {
                Self::ETag => None,
                Self::Generation => version.generation.clone(),
            },
        }
    }

    /// Says what it is called.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::ETag => "entity tag",
            Self::Generation => "generation",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_store_is_asked_for_what_it_compares() {
        let by_tag = Compared::ETag.version(some("\"a\""), some("7")).unwrap();
        let asked = Compared::ETag.asked_for(&by_tag);
        assert_eq!((asked.e_tag, asked.version), (some("\"a\""), None));

        let by_generation = Compared::Generation.version(some("\"a\""), some("7"));
        let asked = Compared::Generation.asked_for(&by_generation.unwrap());
        assert_eq!(asked.version, some("7"));
    }

    #[test]
    fn what_is_not_compared_tells_no_versions_apart() {
        let before = Compared::ETag.version(some("\"a\""), None);
        assert_eq!(Compared::ETag.version(some("\"a\""), some("7")), before);
    }

    #[test]
    fn nothing_to_compare_is_no_version() {
        assert_eq!(Compared::ETag.version(some("W/\"a\""), some("7")), None);
        assert_eq!(Compared::ETag.version(some(""), None), None);
        assert_eq!(Compared::Generation.version(some("\"a\""), None), None);
    }
}
