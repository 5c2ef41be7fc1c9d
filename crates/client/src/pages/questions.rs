//! The questions that a segment answers: how each is asked, and its answer checked.

use std::time::Duration;

use pg_quorum_proto::v1;
use pg_quorum_types::{BLOCK_SIZE, Lsn};

use super::read::{Failure, Question};
use super::{PageContent, PageReader, PageRequest, Pages, UnchangedRequest};
use crate::CallError;
use crate::error::within;

impl Question for PageRequest<'_> {
    type Answer = Pages;

    fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn pages(answer: &Pages) -> usize {
        answer.pages.len()
    }

    async fn ask(self, reader: &PageReader, index: usize) -> Result<Pages, Failure> {
        let message = v1::GetPagesRequest {
            context: Some(context(reader, index)),
            lsn: self.lsn.0,
            not_modified_since: self.not_modified_since.0,
            fork: Some(self.fork.into()),
            blocks: self.blocks.to_vec(),
            slru: None,
        };
        let stream = &reader.segments[index].stream;
        let reply = stream.ask(message, patience(reader)).await?;
        if let Some(refused) = reply.refused {
            return Err(CallError::refusal(refused).into());
        }
        pages(reply, self)
    }
}

impl Question for UnchangedRequest {
    type Answer = u128;

    /// It is answered about as soon as one page.
    fn blocks(&self) -> usize {
        1
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn pages(_answer: &u128) -> usize {
        0
    }

    async fn ask(self, reader: &PageReader, index: usize) -> Result<u128, Failure> {
        let message = v1::GetUnchangedRequest {
            context: Some(context(reader, index)),
            since: self.since.0,
            lsn: self.lsn.0,
            fork: Some(self.fork.into()),
            first_block: self.first_block,
        };
        let mut client = reader.segments[index].node.pages();
        let reply = within(patience(reader), client.get_unchanged(message)).await?;
        if let Some(refused) = reply.refused {
            return Err(CallError::refusal(refused).into());
        }
        let bits = reply.unchanged[..].try_into().map(u128::from_le_bytes);
        Ok(bits.map_err(|_| CallError::Malformed(format!("{} bytes of bits", reply.unchanged.len())))?)
    }
}

fn context(reader: &PageReader, index: usize) -> v1::Context {
    let segment = reader.attachment.membership.members[index].segment;
    reader.attachment.context(segment).into()
}

fn patience(reader: &PageReader) -> Duration {
    reader.timeouts.connect + reader.timeouts.request
}

/// Checks an answer against its request.
fn pages(reply: v1::GetPagesReply, request: PageRequest<'_>) -> Result<Pages, Failure> {
    let malformed = |text: String| Failure::Call(CallError::Malformed(text));
    let lsn = Lsn(reply.lsn);
    if reply.pages.len() != request.blocks.len() {
        return Err(malformed(format!(
            "{} pages for {} blocks",
            reply.pages.len(),
            request.blocks.len()
        )));
    }
    if lsn < request.not_modified_since || lsn > request.lsn {
        return Err(malformed(format!(
            "pages of {lsn}, asked for {} to {}",
            request.not_modified_since, request.lsn
        )));
    }
    let pages = reply
        .pages
        .into_iter()
        .map(|page| match (page.error.is_empty(), page.page.len()) {
            (false, _) => Err(Failure::Page(page.error)),
            (true, 0) => Ok(PageContent::Zeros),
            (true, BLOCK_SIZE) => Ok(PageContent::Bytes(page.page)),
            (true, length) => Err(malformed(format!("a page of {length} bytes"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Pages { pages, lsn })
}
