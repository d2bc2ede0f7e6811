//! Why a command of `socp-server` failed, as its user sees it: what is wrong, what to do, and an exit code.

use std::{io, path::PathBuf};

use socp::name::UserName;

use crate::{
    certificate::CertificateError, config::ConfigError, data_folder::DataFolderError, driver::DriverError,
    files::FilesError, identity::IdentityError, listen::ListenError, operator::OperatorError, storage::StorageError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder cannot be used.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// The folder of files, or one of them, cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The identity cannot be had.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no identity key, though users have registered.
    #[error("`{}` is missing, and users have registered with the server that it was the key of", .path.display())]
    LostKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The identity and the database are of two servers.
    #[error("`{}` is not the key that this server had when user `{user}` registered", .path.display())]
    ForeignKey {
        /// The key.
        path: PathBuf,
        /// One who registered with another.
        user: UserName,
    },
    /// There is something where a backup was to be restored. Nothing was changed.
    #[error("the data folder `{}` is not empty: there is `{}`", .path.display(), .content.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the files in it.
        content: PathBuf,
    },
    /// The certificate cannot be had.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The client listener cannot be had.
    #[error(transparent)]
    Listen(ListenError),
    /// The federation listener cannot be had.
    #[error(transparent)]
    FederationListen(ListenError),
    /// The listener for metrics cannot be had.
    #[error("{0}, for metrics")]
    MetricsListen(ListenError),
    /// The operator's socket, or a command over it.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The driver ended by itself.
    #[error("the server has stopped: {source}{}", caused_by(.source))]
    Driver {
        /// Why.
        #[from]
        source: DriverError,
    },
    /// The system refused something that a server cannot do without.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A second signal came while the server was draining.
    #[error("stopped before everything in progress had ended")]
    Hurried,
}

impl Error {
    /// What to do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => Some(error.hint()),
            Self::DataFolder(error) => Some(error.hint()),
            Self::Files(error) => Some(error.hint()),
            Self::Identity(error) => Some(error.hint()),
            Self::LostKey { .. } | Self::ForeignKey { .. } => Some(
                "restore it from a backup; if there is none, this is a new server: start over in a new data folder"
                    .into(),
            ),
            Self::NotEmpty { .. } => Some(
                "name a new data folder with `--data DIR`; what an interrupted restore left behind may be removed"
                    .into(),
            ),
            Self::Certificate(error) => Some(error.hint()),
            Self::Storage(error) => Some(error.hint()),
            Self::Listen(error) => Some(error.hint("listen")),
            Self::FederationListen(error) => Some(error.hint("federation_listen")),
            Self::MetricsListen(error) => Some(error.hint("metrics_listen") + ", or say `off`"),
            Self::Operator(error) => error.hint(),
            Self::Driver { source: DriverError::Storage(error) } => Some(error.hint()),
            Self::Driver { .. } | Self::System { .. } | Self::Hurried => None,
        }
    }

    /// 1 for what a running server refused, 2 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Operator(OperatorError::Refused(_)) => 1,
            _ => 2,
        }
    }
}

fn caused_by(error: &DriverError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"))
}
