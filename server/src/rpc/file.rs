//! `FileService`: the node says what may be, and bytes go between the client and the disk.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use socp::{
    file::File,
    input::Request as Ask,
    output::Answer,
    rejection::Rejection,
    statement,
    v1::{
        CreateFileRequest, CreateFileResponse, DownloadFileRequest, DownloadFileResponse, Reason, UploadBegin,
        UploadFileRequest, UploadFileResponse, file_service_server::FileService, upload_file_request::Kind,
    },
};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{refused, token};
use crate::{
    driver::Handle,
    federation::Fetched,
    files::{Files, Place, Reading},
    limits::TRANSFER_SILENCE_MS,
    requests::Handover,
    status,
};

/// The service.
pub(super) struct FileCalls {
    handle: Handle,
    files: Files,
}

impl FileCalls {
    pub(super) fn new(handle: Handle, files: Files) -> Self {
        Self { handle, files }
    }

    /// Takes parts until the client sends no more. Each is waited for, and there are few who have a place.
    async fn take(
        &self,
        file: &File,
        offset: u64,
        parts: &mut Streaming<UploadFileRequest>,
        handover: Option<Handover>,
    ) -> Result<u64, Status> {
        let rejected = |rejection: Rejection| status::of(&rejection);
        let _place = self.files.place(Some(&file.owner)).map_err(rejected)?;
        if let Some(handover) = handover {
            handover.take();
        }
        let mut upload = self.files.upload(file, offset).await.map_err(rejected)?;
        loop {
            let part = tokio::select! {
                biased;
                replaced = upload.replaced() => return Err(rejected(replaced)),
                part = next(parts) => part?,
            };
            match part {
                None => break,
                Some(Kind::Part(part)) => upload.write(part).await.map_err(rejected)?,
                Some(Kind::Begin(_)) => return Err(rejected(statement::invalid("begin"))),
            }
        }
        let stored = upload.stored();
        if upload.finish().await.map_err(rejected)? {
            self.handle.file_stored(file.id).await.map_err(rejected)?;
        }
        Ok(stored)
    }
}

/// The next message of an upload, unless the client is silent for too long.
async fn next(
    parts: &mut (impl Stream<Item = Result<UploadFileRequest, Status>> + Unpin),
) -> Result<Option<Kind>, Status> {
    let patience = Duration::from_millis(TRANSFER_SILENCE_MS);
    match timeout(patience, parts.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(UploadFileRequest { kind: Some(kind) }))) => Ok(Some(kind)),
        Ok(Some(Ok(UploadFileRequest { kind: None }))) => {
            let rejection = Rejection::new(Reason::UnknownType, "a message of an upload is of no known kind");
            Err(status::of(&rejection.with("field", "kind")))
        }
        Ok(Some(Err(status))) => Err(status),
        Err(_) => Err(status::of(&Rejection::new(Reason::Timeout, "nothing came for too long"))),
    }
}

type Parts = Pin<Box<dyn Stream<Item = Result<DownloadFileResponse, Status>> + Send>>;

/// Where the bytes of a download come from.
enum Origin {
    Disk(Reading),
    Server(Fetched),
}

impl Origin {
    async fn next(&mut self) -> Result<Option<Bytes>, Rejection> {
        match self {
            Self::Disk(reading) => reading.next().await,
            Self::Server(fetched) => fetched.next().await,
        }
    }
}

/// The rest of a file as messages.
fn parts(origin: Origin, place: Place) -> Parts {
    Box::pin(stream::unfold(Some((origin, place)), async |open| {
        let (mut origin, place) = open?;
        match origin.next().await.transpose()? {
            Ok(part) => Some((Ok(DownloadFileResponse { part }), Some((origin, place)))),
            Err(rejection) => Some((Err(status::of(&rejection)), None)),
        }
    }))
}

#[tonic::async_trait]
impl FileService for FileCalls {
    type DownloadFileStream = Parts;

    async fn create_file(&self, request: Request<CreateFileRequest>) -> Result<Response<CreateFileResponse>, Status> {
        let token = token(request.metadata());
        match self.handle.call(Ask::CreateFile { token, file: request.into_inner() }).await {
            Ok(Answer::FileCreated { file, created_unix_ms, expires_unix_ms }) => {
                let stored_bytes = self.files.create(file, created_unix_ms).await;
                let stored_bytes = stored_bytes.map_err(|rejection| status::of(&rejection))?;
                Ok(Response::new(CreateFileResponse { stored_bytes, expires_unix_ms }))
            }
            other => Err(refused(other)),
        }
    }

    async fn upload_file(
        &self,
        request: Request<Streaming<UploadFileRequest>>,
    ) -> Result<Response<UploadFileResponse>, Status> {
        let token = token(request.metadata());
        let handover = request.extensions().get::<Handover>().cloned();
        let mut parts = request.into_inner();
        let Some(Kind::Begin(UploadBegin { file_id, offset })) = next(&mut parts).await? else {
            return Err(status::of(&statement::invalid("begin")));
        };
        match self.handle.call(Ask::UploadFile { token, file: file_id }).await {
            Ok(Answer::FileToUpload(file)) => {
                let stored_bytes = self.take(&file, offset, &mut parts, handover).await?;
                Ok(Response::new(UploadFileResponse { stored_bytes }))
            }
            other => Err(refused(other)),
        }
    }

    async fn download_file(
        &self,
        request: Request<DownloadFileRequest>,
    ) -> Result<Response<Self::DownloadFileStream>, Status> {
        let token = token(request.metadata());
        let DownloadFileRequest { file_id, home_id, offset } = request.into_inner();
        let rejected = |rejection: Rejection| status::of(&rejection);
        let (origin, place) =
            match self.handle.call(Ask::DownloadFile { token, file: file_id, home: home_id, offset }).await {
                Ok(Answer::FileHere { file, user }) => {
                    let place = self.files.place(user.as_ref()).map_err(rejected)?;
                    (Origin::Disk(self.files.read(&file, offset).await.map_err(rejected)?), place)
                }
                Ok(Answer::FileElsewhere { link, fetch, user }) => {
                    let place = self.files.place(user.as_ref()).map_err(rejected)?;
                    (Origin::Server(self.handle.ways().fetch(link, fetch).await.map_err(rejected)?), place)
                }
                other => return Err(refused(other)),
            };
        Ok(Response::new(parts(origin, place)))
    }
}

#[cfg(test)]
mod tests;
