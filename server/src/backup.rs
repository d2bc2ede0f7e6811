//! `socp-server backup`, `restore` and `check`: a data folder in one file, the way back, and whether all is well.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    data_folder::{DataFolder, Layout, read_private, read_public, write_private, write_public},
    error::Error,
    files,
    identity::ServerIdentity,
    storage::{Loaded, StorageError},
    store::{
        Store,
        backup::{Backup, Begun, TextFiles},
    },
};

/// What was backed up, restored or checked.
#[derive(Debug)]
pub struct Found {
    identity: ServerIdentity,
    /// Nothing of a database of an earlier form.
    loaded: Option<Loaded>,
    /// Files that users sent.
    sent: usize,
}

/// Backs a data folder up, whether its server runs or not, to a file that is not there yet (mode 0600).
pub fn make(layout: &Layout, to: &Path) -> Result<Found, Error> {
    let database = existing_database(layout)?;
    let mut texts = TextFiles::new();
    for (path, is_private) in layout.texts() {
        let text = if is_private { read_private(&path)? } else { read_public(&path)? };
        texts.extend(text.map(|text| (file_name(&path), text)));
    }
    identity(layout, &texts, layout.folder())?;
    let begun = Begun::copy(&database, to)?;
    // From now on all that the copy names is there. A file that cannot be read is none for the server either.
    let sent: Vec<_> = files::whole(&layout.files())?.into_iter().flatten().collect();
    let backup = begun.finish(&texts, &sent)?;
    found(layout, backup, to)
}

/// Puts a backup into a data folder in which nothing is. The identity key comes last, so that what an interrupted restore
/// leaves behind is no server.
pub fn restore(layout: Layout, from: &Path) -> Result<Found, Error> {
    let backup = Backup::read(from)?;
    identity(&layout, &backup.texts, from)?;
    let folder = DataFolder::open(layout)?;
    let layout = folder.layout();
    if let Some(content) = folder.content()? {
        return Err(Error::NotEmpty { path: layout.folder().to_owned(), content });
    }
    backup.restore_database(&layout.database())?;
    files::prepare(&layout.files())?;
    backup.restore_files(&layout.files())?;
    sent(layout)?;
    for (path, is_private) in layout.texts() {
        match backup.texts.get(&file_name(&path)) {
            Some(text) if is_private => write_private(&path, text)?,
            Some(text) => write_public(&path, text)?,
            None => {}
        }
    }
    found(layout, backup, from)
}

/// Checks a data folder that no server uses, as a whole; changes nothing.
pub fn check(layout: Layout) -> Result<Found, Error> {
    let database = existing_database(&layout)?;
    let folder = DataFolder::open(layout)?;
    let layout = folder.layout();
    let checked = Store::open_as_it_is(&database)?.check()?;
    let sent = sent(layout)?;
    let identity = ServerIdentity::load(layout)?.ok_or_else(|| Error::LostKey { path: layout.identity_key() })?;
    agree(layout, Found { identity, loaded: checked.loaded, sent })
}

/// How many files that users sent are kept. Fails if one of them cannot be read.
fn sent(layout: &Layout) -> Result<usize, Error> {
    Ok(files::whole(&layout.files())?.into_iter().collect::<Result<Vec<_>, _>>()?.len())
}

fn existing_database(layout: &Layout) -> Result<std::path::PathBuf, Error> {
    let path = layout.database();
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(source) => Err(StorageError::Open { path, source }.into()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The identity among the files of a backup or data folder.
fn identity(layout: &Layout, texts: &TextFiles, place: &Path) -> Result<ServerIdentity, Error> {
    let name = file_name(&layout.identity_key());
    let path = place.join(&name);
    let key = texts.get(&name).ok_or_else(|| Error::LostKey { path: path.clone() })?;
    Ok(ServerIdentity::parse(key, &path)?)
}

fn found(layout: &Layout, backup: Backup, place: &Path) -> Result<Found, Error> {
    let identity = identity(layout, &backup.texts, place)?;
    agree(layout, Found { identity, loaded: backup.loaded, sent: backup.sent.len() })
}

/// The users must be those of this identity.
fn agree(layout: &Layout, found: Found) -> Result<Found, Error> {
    let foreigner = found.loaded.as_ref().and_then(|loaded| loaded.foreigner(found.identity.server_id()));
    match foreigner {
        Some(account) => Err(Error::ForeignKey { path: layout.identity_key(), user: account.user.clone() }),
        None => Ok(found),
    }
}

impl Found {
    fn counts(&self) -> Option<(usize, usize)> {
        let loaded = self.loaded.as_ref()?;
        Some((loaded.accounts.len(), loaded.mail.inboxes.iter().map(|inbox| inbox.kept.len()).sum()))
    }

    /// One object for programs.
    pub fn json(&self) -> Value {
        let (users, messages) = self.counts().unzip();
        json!({
            "server_id": self.identity.server_id().to_string(),
            "users": users,
            "messages": messages,
            "files": self.sent,
        })
    }

    /// The same for people, as the end of a sentence.
    pub fn text(&self) -> String {
        let (id, files) = (self.identity.server_id(), self.sent);
        match self.counts() {
            Some((users, messages)) => format!("server {id}, users: {users}, messages: {messages}, files: {files}"),
            None => {
                format!(
                    "server {id}, files: {files}, of an earlier version; the first start brings it to the present form"
                )
            }
        }
    }
}
