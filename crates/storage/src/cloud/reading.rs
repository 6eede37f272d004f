//! Reading objects: a stream that goes on where a broken connection stopped, and ends only after the last byte.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResult, ObjectStore as _};

use super::client::{Client, Store, to_object};
use super::fault::Trouble;
use crate::{Error, Object, Result, read};

/// Times in a row that a stream is opened again without a byte in between.
const MAX_REOPENED: u32 = 3;

type Body = BoxStream<'static, object_store::Result<Bytes>>;

/// Opens an object, or a range of it; returns what it is and its bytes.
pub(crate) async fn open<S: Store>(
    client: &Arc<Client<S>>,
    key: &str,
    range: Option<Range<u64>>,
) -> Result<(Object, BoxStream<'static, Result<Bytes>>)> {
    if let Some(range) = &range
        && range.is_empty()
    {
        // HTTP has no empty ranges.
        let object = client.head(key).await?;
        read::check_range(key, object.size_bytes, Some(range.clone()))?;
        return Ok((object, stream::empty().boxed()));
    }
    let opened = request(client, key, range.clone(), None)
        .await
        .map_err(|trouble| client.explain_reading(trouble, key))?;
    let object = to_object(key, &opened.meta);
    let range = read::check_range(key, object.size_bytes, range)?;
    let expected = range.end - range.start;
    let reading = Reading {
        client: Arc::clone(client),
        key: key.to_owned(),
        left: range,
        // A weak tag cannot be asked for with `If-Match`.
        e_tag: opened
            .meta
            .e_tag
            .clone()
            .filter(|tag| !tag.starts_with("W/")),
        body: Some(opened.into_stream()),
        reopened: 0,
    };
    let stream = stream::try_unfold(reading, Reading::next).boxed();
    Ok((object, read::exactly(key, expected, stream)))
}

/// An object half read.
struct Reading<S> {
    client: Arc<Client<S>>,
    key: String,
    left: Range<u64>,
    e_tag: Option<String>,
    /// `None` after it broke.
    body: Option<Body>,
    reopened: u32,
}

impl<S: Store> Reading<S> {
    /// Returns the next bytes, opening the object again where its stream broke.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        while !self.left.is_empty() {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.reopen().await?,
            };
            match body.try_next().await {
                Ok(Some(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    self.body = Some(body);
                    self.reopened = 0;
                    return Ok(Some((bytes, self)));
                }
                // Ended before its length: the same as cut.
                Ok(None) if self.reopened < MAX_REOPENED => {}
                Ok(None) => return Ok(None),
                Err(error) => self.judge(Trouble::from(error))?,
            }
        }
        Ok(None)
    }

    /// Lets a passing trouble pass.
    fn judge(&self, trouble: Trouble) -> Result<()> {
        if trouble.is_passing() && self.reopened < MAX_REOPENED {
            tracing::info!(key = self.key, %trouble, at = self.left.start, "reading on");
            return Ok(());
        }
        Err(self.client.explain_reading(trouble, &self.key))
    }

    async fn reopen(&mut self) -> Result<Body> {
        self.reopened += 1;
        let range = Some(self.left.clone());
        let opened = request(&self.client, &self.key, range, self.e_tag.clone()).await;
        match opened {
            Ok(opened) => Ok(opened.into_stream()),
            Err(trouble) if trouble.status() == Some(412) => Err(Error::failed(format!(
                "reading `{}` in `{}` failed: it was replaced meanwhile",
                self.key, self.client.label
            ))),
            Err(trouble) => Err(self.client.explain_reading(trouble, &self.key)),
        }
    }
}

async fn request<S: Store>(
    client: &Client<S>,
    key: &str,
    range: Option<Range<u64>>,
    if_match: Option<String>,
) -> std::result::Result<GetResult, Trouble> {
    let path = client.path(key);
    let get = client.patience.persist(|| {
        let options = GetOptions {
            range: range.clone().map(GetRange::Bounded),
            if_match: if_match.clone(),
            ..GetOptions::default()
        };
        client.store.objects().get_opts(&path, options)
    });
    get.await
}
