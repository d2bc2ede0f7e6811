//! Whom of the other servers this one believes, on disk: admissions as they were signed, names, and blocks.

use rusqlite::{Transaction, params};
use socp::{
    admission::{Admission, Kept},
    federation::v1::SignedAdmission,
    id::ServerId,
    name::ServerName,
    node::Trust,
};

use super::{StorageError, Store, one};

impl Store {
    /// Reads all of it. Admissions are read again through the parser by which they came.
    pub(super) fn trust(&self) -> Result<Trust, StorageError> {
        let query = "SELECT statement, signature, by_operator FROM admission ORDER BY issuer, subject";
        let kept = self.rows(query, |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?)))?;
        let admissions = kept.into_iter().map(|(statement, signature, by_operator)| {
            let signed = SignedAdmission { statement: statement.into(), signature: signature.into() };
            let admission = Admission::parse(&signed);
            let admission = admission.map_err(|_| self.damaged("an admission cannot be read".into()))?;
            Ok(Kept { admission, by_operator })
        });
        let names = self.rows("SELECT name, server FROM server_name ORDER BY name", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        })?;
        let id = |bytes: &[u8]| ServerId::from_bytes(bytes).expect("the table holds ids of 32 bytes");
        let names = names.into_iter().map(|(name, server)| {
            let parsed = ServerName::parse_shown(&name);
            let parsed = parsed.map_err(|_| self.damaged(format!("`{name}` is no server's name")))?;
            Ok((parsed, id(&server)))
        });
        let blocked = self.rows("SELECT server FROM blocked ORDER BY server", |row| row.get::<_, Vec<u8>>(0))?;
        Ok(Trust {
            admissions: admissions.collect::<Result<_, _>>()?,
            names: names.collect::<Result<_, _>>()?,
            blocked: blocked.iter().map(|server| id(server)).collect(),
        })
    }
}

/// Puts admissions in the places of what their issuers said before, once others have made room.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    kept: &[Kept],
    dropped: &[(ServerId, ServerId)],
) -> rusqlite::Result<()> {
    for (issuer, subject) in dropped {
        let of = params![issuer.as_bytes(), subject.as_bytes()];
        transaction.execute("DELETE FROM admission WHERE issuer = ?1 AND subject = ?2", of)?;
    }
    let mut keep = transaction.prepare_cached("INSERT OR REPLACE INTO admission VALUES (?1, ?2, ?3, ?4, ?5)")?;
    kept.iter().try_for_each(|Kept { admission, by_operator }| {
        let Admission { issuer, subject, signed, .. } = admission;
        let (statement, signature) = (&signed.statement[..], &signed.signature[..]);
        keep.execute(params![issuer.as_bytes(), subject.as_bytes(), statement, signature, by_operator]).map(drop)
    })
}

/// Binds names in this order; one that another server still has fails.
pub(super) fn name(transaction: &Transaction<'_>, names: &[(ServerName, ServerId)]) -> rusqlite::Result<()> {
    names.iter().try_for_each(|(name, server)| {
        transaction.execute("DELETE FROM server_name WHERE server = ?1", [server.as_bytes()])?;
        let row = params![server.as_bytes(), name.as_str()];
        transaction.execute("INSERT INTO server_name VALUES (?1, ?2)", row).map(drop)
    })
}

/// Blocks a server that was not, or the other way round.
pub(super) fn block(transaction: &Transaction<'_>, server: ServerId, is_blocked: bool) -> rusqlite::Result<()> {
    let change = if is_blocked { "INSERT INTO blocked VALUES (?1)" } else { "DELETE FROM blocked WHERE server = ?1" };
    one(transaction.execute(change, [server.as_bytes()])?)
}
