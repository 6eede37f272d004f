//! Whether a removal freed anything: some stores only hide what is removed, and say so in a header alone.
//!
//! object_store hands on no header of a DELETE, so the transport, which sees every answer, leaves word here.

use std::cell::Cell;

use object_store::HeaderMap;

use crate::Removed;

tokio::task_local! {
    static REMOVED: Cell<Removed>;
}

/// Carries out a removal, and returns with its outcome what the store said of it.
pub(super) async fn watched<T>(removal: impl Future<Output = T>) -> (T, Removed) {
    let told = async {
        let done = removal.await;
        (done, REMOVED.with(Cell::get))
    };
    REMOVED.scope(Cell::new(Removed::Freed), told).await
}

/// Notes what an answer to a DELETE says.
pub(super) fn note(headers: &HeaderMap) {
    let _ = REMOVED.try_with(|removed| removed.set(read(headers))); // nobody asked about the removal of a part
}

fn read(headers: &HeaderMap) -> Removed {
    let is = |name: &str, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.eq_ignore_ascii_case(wanted))
    };
    // S3 with versions: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html>
    // Azure with soft delete: <https://learn.microsoft.com/rest/api/storageservices/delete-blob>
    if is("x-amz-delete-marker", "true") || is("x-ms-delete-type-permanent", "false") {
        Removed::Hidden
    } else {
        Removed::Freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[tokio::test]
    async fn what_an_answer_says_is_told_with_the_outcome() {
        for (name, value, expected) in [
            ("x-amz-delete-marker", "true", Removed::Hidden),
            ("x-amz-delete-marker", "false", Removed::Freed),
            ("x-ms-delete-type-permanent", "false", Removed::Hidden),
            ("x-ms-delete-type-permanent", "true", Removed::Freed),
            ("date", "true", Removed::Freed),
        ] {
            let (_, told) = watched(async { note(&headers(name, value)) }).await;
            assert_eq!(told, expected, "{name}: {value}");
        }
        note(&headers("x-amz-delete-marker", "true"));
    }
}
