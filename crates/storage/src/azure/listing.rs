//! Listings of a container, read page by page to the last one.
//!
//! A page may be short or empty and still not be the last: only an empty marker ends a listing. In accounts with a hierarchical
//! namespace folders are listed as blobs without bytes, which are no objects of ours.
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/list-blobs>

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde::Deserialize;

use super::store::AzureStore;
use crate::cloud::client::Client;
use crate::cloud::pages::{Fault, cut_short, own_key, page};
use crate::{Error, Object, Result};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    blobs: Blobs,
    /// There in every answer, and empty in the last.
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    #[serde(default)]
    blob: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    properties: Properties,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Properties {
    /// There for every object; what folders have is nobody's promise.
    #[serde(rename = "Content-Length")]
    size_bytes: Option<u64>,
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "ResourceType")]
    resource_type: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(alias = "Hdi_isfolder")]
    hdi_isfolder: Option<String>,
}

impl Blob {
    fn is_folder(&self) -> bool {
        let says_so = |text: &Option<String>, yes: &str| {
            text.as_ref()
                .is_some_and(|text| text.eq_ignore_ascii_case(yes))
        };
        says_so(&self.properties.resource_type, "directory")
            || says_so(&self.metadata.hdi_isfolder, "true")
    }
}

/// Lists every object whose key starts with `prefix`.
pub(super) async fn list(client: &Client<AzureStore>, prefix: &str) -> Result<Vec<Object>> {
    let full_prefix = format!("{}{prefix}", client.prefix);
    let mut objects = Vec::new();
    let mut marker = String::new();
    loop {
        let mut query = vec![
            ("restype", "container"),
            ("comp", "list"),
            ("include", "metadata"),
        ];
        // An emulator takes an empty one for a name.
        let optional = [("prefix", &full_prefix), ("marker", &marker)];
        let given = optional.into_iter().filter(|(_, text)| !text.is_empty());
        query.extend(given.map(|(name, text)| (name, text.as_str())));
        let store = &client.store;
        let page: Page = page(client, || store.ask(&query), "EnumerationResults")
            .await
            .map_err(|fault| fault.explain(client, prefix))?;
        for blob in page.blobs.blob {
            objects.extend(to_object(client, blob).map_err(|fault| fault.explain(client, prefix))?);
        }
        match page.next_marker {
            Some(next) if next.is_empty() => break,
            Some(next) if next != marker => marker = next,
            _ => return Err(cut_short(client, prefix)),
        }
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(without_folders(objects))
}

fn to_object(
    client: &Client<AzureStore>,
    blob: Blob,
) -> std::result::Result<Option<Object>, Fault> {
    let Some(key) = own_key(client, &blob.name).filter(|_| !blob.is_folder()) else {
        return Ok(None);
    };
    let properties = &blob.properties;
    let known = time(&properties.modified).zip(properties.size_bytes);
    let (modified_at, size_bytes) = known.ok_or_else(|| {
        Fault::Told(Error::failed(format!(
            "listing in `{}` failed: `{key}` has no time or size that can be read",
            client.label
        )))
    })?;
    Ok(Some(Object {
        key: key.to_owned(),
        size_bytes,
        modified_at,
    }))
}

fn time(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// Leaves out what has no bytes and other keys below it, in a sorted listing: a folder that nothing else tells from a blob.
fn without_folders(objects: Vec<Object>) -> Vec<Object> {
    let is_above_others = |object: &Object| {
        let below = format!("{}/", object.key);
        let at = objects.partition_point(|other| other.key < below);
        objects
            .get(at)
            .is_some_and(|other| other.key.starts_with(&below))
    };
    let is_object: Vec<bool> = objects
        .iter()
        .map(|object| object.size_bytes > 0 || !is_above_others(object))
        .collect();
    let judged = objects.into_iter().zip(is_object);
    judged
        .filter_map(|(object, is_object)| is_object.then_some(object))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size_bytes: u64) -> Object {
        Object {
            key: key.to_owned(),
            size_bytes,
            modified_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_blob_without_bytes_above_others_is_a_folder() {
        let keys = [
            "empty",
            "shop",
            "shop-2",
            "shop/a",
            "shop/runs",
            "shop/runs/r",
        ];
        let objects = keys
            .map(|key| object(key, u64::from(key == "shop/a")))
            .to_vec();
        let left: Vec<_> = without_folders(objects)
            .into_iter()
            .map(|o| o.key)
            .collect();
        assert_eq!(left, ["empty", "shop-2", "shop/a", "shop/runs/r"]);
        let kept = vec![object("shop", 1), object("shop/a", 0)];
        assert_eq!(without_folders(kept.clone()), kept);
    }

    #[test]
    fn pages_are_read_as_azure_writes_them() {
        let text = "<EnumerationResults ServiceEndpoint=\"https://a/\" ContainerName=\"c\"><Prefix>pg/</Prefix><Blobs>\
            <Blob><Name Encoded=\"true\">pg/shop%0B</Name><Properties><Creation-Time>x</Creation-Time><Last-Modified>Wed, 09 Sep 2026 \
            09:20:02 GMT</Last-Modified><ResourceType>directory</ResourceType></Properties><OrMetadata/></Blob>\
            <Blob><Name>pg/old</Name><Properties><Last-Modified>Wed, 09 Sep 2026 09:20:02 GMT</Last-Modified><Content-Length>0\
            </Content-Length></Properties><Metadata><Hdi_isfolder>true</Hdi_isfolder></Metadata></Blob>\
            <Blob><Name>pg/shop/a</Name><Properties><Last-Modified>Wed, 09 Sep 2026 09:20:02 GMT</Last-Modified>\
            <Content-Length>7</Content-Length><ResourceType>file</ResourceType></Properties><Metadata /></Blob>\
            </Blobs><NextMarker /></EnumerationResults>";
        let page: Page = quick_xml::de::from_str(text).unwrap();
        let folders: Vec<_> = page.blobs.blob.iter().map(Blob::is_folder).collect();
        assert_eq!(folders, [true, true, false]);
        assert_eq!(page.next_marker.as_deref(), Some(""));
        assert_eq!(page.blobs.blob[2].properties.size_bytes, Some(7));
        let at = time(&page.blobs.blob[2].properties.modified).unwrap();
        assert_eq!(at.to_string(), "2026-09-09T09:20:02Z");

        let empty = "<EnumerationResults><Blobs /></EnumerationResults>";
        let page: Page = quick_xml::de::from_str(empty).unwrap();
        assert!(page.next_marker.is_none() && page.blobs.blob.is_empty());
    }
}
